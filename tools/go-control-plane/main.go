// A control plane built on go-control-plane, for `cargo xtask interop`.
//
// It listens on a port of the kernel's choice and prints it. Each line on standard input is a snapshot for
// node "interop": a version, then pairs of cluster=endpoint-port. What clients reject is printed.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

const node = "interop"

func cluster(name string) *clusterv3.Cluster {
	ads := &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
	return &clusterv3.Cluster{
		Name:                 name,
		ConnectTimeout:       durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads},
	}
}

func endpoints(name string, port uint32) *endpointv3.ClusterLoadAssignment {
	address := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       "127.0.0.1",
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
	endpoint := &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: endpoint}},
		}},
	}
}

func publish(snapshots cache.SnapshotCache, line string) error {
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil
	}
	var clusters, assignments []types.Resource
	for _, pair := range words[1:] {
		name, text, _ := strings.Cut(pair, "=")
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return err
		}
		clusters = append(clusters, cluster(name))
		assignments = append(assignments, endpoints(name, uint32(port)))
	}
	snapshot, err := cache.NewSnapshot(words[0], map[resource.Type][]types.Resource{
		resource.ClusterType:  clusters,
		resource.EndpointType: assignments,
	})
	if err != nil {
		return err
	}
	return snapshots.SetSnapshot(context.Background(), node, snapshot)
}

func main() {
	snapshots := cache.NewSnapshotCache(false, cache.IDHash{}, nil)
	callbacks := server.CallbackFuncs{
		StreamRequestFunc: func(_ int64, request *discoveryv3.DiscoveryRequest) error {
			if detail := request.GetErrorDetail(); detail != nil {
				fmt.Printf("nack sotw %s %s\n", request.GetVersionInfo(), detail.GetMessage())
			}
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, request *discoveryv3.DeltaDiscoveryRequest) error {
			if detail := request.GetErrorDetail(); detail != nil {
				fmt.Printf("nack delta - %s\n", detail.GetMessage())
			}
			return nil
		},
	}
	port := "0"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	xds := server.NewServer(context.Background(), snapshots, callbacks)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(grpcServer, xds)
	go func() { log.Fatal(grpcServer.Serve(listener)) }()
	fmt.Printf("listening %s\n", listener.Addr())
	// It ends with its standard input.
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := publish(snapshots, lines.Text()); err != nil {
			log.Fatal(err)
		}
	}
}
