//! Both ends over real sockets on the loopback.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::endpoint::v3::ClusterStats,
    service::{
        load_stats::v3::{LoadStatsRequest, LoadStatsResponse},
        status::v3::{ClientStatusRequest, ClientStatusResponse},
    },
};
use http_body_util::BodyExt as _;
use mesh_core::Rng;
use mesh_xds::{
    Accept, Event, Reconnect, Rejection,
    ResourceType::{self, Cluster, Endpoints},
    Subscriber, SubscriberConfig, Variant,
    load::{ClusterLoad, EndpointLoad},
    server::{ConfigStatus, LoadSink, LrsSettings, NodeId, Snapshot, SnapshotCache},
    transport::{
        Commands, Driver, FileDriver, FileSource, Handler, Interest, LoadDriver, PathConfigSource,
        Stream, XdsService,
    },
    wire::{DeltaDiscoveryRequest, DiscoveryResponse, Node},
};
use prost::Message as _;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tower_service::Service as _;

use crate::support::{accept, any, body, content, entry, node};

/// How long a test waits for something that must happen.
const SOON: Duration = Duration::from_secs(20);

type State = BTreeMap<(ResourceType, String), String>;

/// A proxy that only remembers: endpoints of each cluster, and what it was told.
struct Recorder {
    state: watch::Sender<State>,
    connections: watch::Sender<(u32, String)>,
}

impl Accept for Recorder {
    fn accept(&mut self, ty: ResourceType, name: &str, body: &Bytes) -> Result<(), Rejection> {
        accept(ty, name, body)
    }
}

impl Handler for Recorder {
    fn on_events(&mut self, _: Instant, events: Vec<Event>, interest: &mut Interest) {
        self.state.send_modify(|state| {
            for event in events {
                match event {
                    Event::Updated { ty, resource } => {
                        if ty == Cluster {
                            interest.subscribe(Endpoints, resource.name.clone());
                        }
                        state.insert((ty, resource.name), content(&resource.body));
                    }
                    Event::Removed { ty, name, .. } => {
                        if ty == Cluster {
                            interest.unsubscribe(Endpoints, name.clone());
                            state.remove(&(Endpoints, name.clone()));
                        }
                        state.remove(&(ty, name));
                    }
                    _ => {}
                }
            }
        });
    }

    fn on_connection(&mut self, connected: bool, reason: &str) {
        self.connections.send_modify(|(n, last)| {
            *n += u32::from(connected);
            reason.clone_into(last);
        });
    }
}

struct Client {
    state: watch::Receiver<State>,
    connections: watch::Receiver<(u32, String)>,
    commands: Commands,
    task: JoinHandle<Recorder>,
}

impl Client {
    fn new(id: &str, stream: Stream) -> Self {
        let (state, states) = watch::channel(State::new());
        let (connections, seen) = watch::channel((0, String::new()));
        let recorder = Recorder { state, connections };
        let mut subscriber = Subscriber::new(SubscriberConfig::new(node(id), stream.variant));
        let now = mesh_core::clock::now();
        subscriber.subscribe_all(now, stream.only.unwrap_or(Cluster));
        let ms = Duration::from_millis;
        let reconnect = Reconnect::with_backoff(stream.servers.len(), ms(5), ms(20)).unwrap();
        let (driver, commands) =
            Driver::new(subscriber, recorder, stream, reconnect, Rng::seeded(7));
        Self {
            state: states,
            connections: seen,
            commands,
            task: tokio::spawn(driver.run()),
        }
    }

    async fn until(&mut self, done: impl FnMut(&State) -> bool) -> State {
        let state = tokio::time::timeout(SOON, self.state.wait_for(done)).await;
        state.expect("in time").unwrap().clone()
    }
}

struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    async fn new(service: XdsService) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, service)
    }

    fn on(listener: TcpListener, service: XdsService) -> Self {
        let address = listener.local_addr().unwrap();
        let serving = service.serve(TcpListenerStream::new(listener), std::future::pending());
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, task }
    }

    fn uri(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn aggregated(variant: Variant, uri: &str) -> Stream {
    Stream::aggregated(variant, [uri]).unwrap()
}

fn snapshot(pairs: &[(&str, &str)]) -> Snapshot {
    let entries = || pairs.iter().map(|(name, text)| entry(name, text)).collect();
    Snapshot::new()
        .with(Cluster, entries())
        .with(Endpoints, entries())
}

#[tokio::test]
async fn config_arrives_changes_and_goes() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        let cache = SnapshotCache::new(NodeId, "cp");
        let server = Server::new(XdsService::builder(cache.clone()).build()).await;
        // The client is there before its snapshot.
        let mut client = Client::new("n", aggregated(variant, &server.uri()));
        cache.set_snapshot("n", snapshot(&[("a", "1"), ("b", "1")]));
        client.until(|state| state.len() == 4).await;
        cache.set_snapshot("n", snapshot(&[("a", "2")]));
        let state = client.until(|state| state.len() == 2).await;
        assert_eq!(state[&(Cluster, "a".to_owned())], "2");
        client
            .until(|state| state.values().all(|text| text == "2"))
            .await;
        // What is rejected is known to the server, by name.
        cache.set_snapshot("n", snapshot(&[("a", "bad")]));
        let reported = async {
            loop {
                let rows = cache.clients().into_iter().flat_map(|report| report.rows);
                if rows.filter(|row| row.status == ConfigStatus::Error).count() == 2 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, reported).await.unwrap();
        assert!(client.state.borrow().values().all(|text| text == "2"));
        // The driver ends with the last who could talk to it, and the server forgets the client.
        drop(client.commands);
        client.task.await.unwrap();
        let forgotten = async {
            while !cache.clients().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, forgotten).await.unwrap();
    }
}

#[tokio::test]
async fn a_single_type_has_a_stream_of_its_own() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        let cache = SnapshotCache::new(NodeId, "cp");
        cache.set_snapshot("n", snapshot(&[("a", "1")]));
        let server = Server::new(XdsService::builder(cache).build()).await;
        let mut stream = aggregated(variant, &server.uri());
        stream.only = Some(Cluster);
        let mut client = Client::new("n", stream);
        client.until(|state| state.len() == 1).await;
        // Endpoints are not spoken of on the stream of clusters: they stay asked for.
        let statuses = client.commands.statuses().await;
        assert_eq!(statuses.len(), 2, "{statuses:?}");
    }
}

#[tokio::test]
async fn the_next_server_is_tried_when_one_does_not_answer() {
    let cache = SnapshotCache::new(NodeId, "cp");
    cache.set_snapshot("n", snapshot(&[("a", "1")]));
    let server = Server::new(XdsService::builder(cache).build()).await;
    // A port that was just free: nobody listens there.
    let dead = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (dead, good) = (format!("http://{dead}"), server.uri());
    let uris = [dead.as_str(), good.as_str()];
    let mut client = Client::new("n", Stream::aggregated(Variant::Delta, uris).unwrap());
    client.until(|state| state.len() == 2).await;
    let (connected, reason) = client.connections.borrow().clone();
    assert_eq!(connected, 1, "{reason}");
}

#[tokio::test]
async fn config_outlives_the_server_and_is_confirmed_by_the_next() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        let cache = SnapshotCache::new(NodeId, "cp");
        cache.set_snapshot("n", snapshot(&[("a", "1"), ("b", "1")]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::on(listener, XdsService::builder(cache).build());
        let mut client = Client::new("n", aggregated(variant, &server.uri()));
        client.until(|state| state.len() == 4).await;
        server.task.abort();
        assert!(server.task.await.unwrap_err().is_cancelled());
        let broken = client
            .connections
            .wait_for(|(_, reason)| !reason.is_empty());
        tokio::time::timeout(SOON, broken).await.unwrap().unwrap();
        assert_eq!(client.state.borrow().len(), 4);
        let cache = SnapshotCache::new(NodeId, "next");
        cache.set_snapshot("n", snapshot(&[("a", "2")]));
        let listener = TcpListener::bind(address).await.unwrap();
        let _server = Server::on(listener, XdsService::builder(cache).build());
        client
            .until(|s| s.len() == 2 && s.values().all(|text| text == "2"))
            .await;
        assert!(client.connections.borrow().0 >= 2);
    }
}

#[tokio::test]
async fn a_push_reaches_many_and_one_who_does_not_read_holds_up_nobody() {
    let group = |_: &Node| "all".to_owned();
    let cache = SnapshotCache::new(group, "cp");
    let large = "x".repeat(1 << 20);
    cache.set_snapshot("all", snapshot(&[("a", "1")]));
    let server = Server::new(XdsService::builder(cache.clone()).build()).await;
    // It asks for everything, and never reads a byte of it.
    let silent = {
        let channel = tonic::transport::Endpoint::from_shared(server.uri())
            .unwrap()
            .connect_lazy();
        let hello = DeltaDiscoveryRequest {
            node: Some(node("silent")),
            type_url: Cluster.type_url().to_owned(),
            ..Default::default()
        };
        let hello =
            tokio_stream::StreamExt::chain(tokio_stream::once(hello), tokio_stream::pending());
        let codec = Proto::<_, DiscoveryResponse>::default();
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = Variant::Delta.aggregated_path().parse().unwrap();
        grpc.streaming(tonic::Request::new(hello), path, codec)
            .await
            .unwrap()
    };
    let mut clients: Vec<Client> = (0..50)
        .map(|n| Client::new(&format!("n{n}"), aggregated(Variant::Delta, &server.uri())))
        .collect();
    for text in ["2", large.as_str(), "4"] {
        cache.set_snapshot("all", snapshot(&[("a", text), ("b", "1")]));
        for client in &mut clients {
            client
                .until(|s| s.get(&(Cluster, "a".to_owned())).is_some_and(|t| t == text))
                .await;
        }
    }
    drop(silent);
}

/// A codec of prost messages.
struct Proto<E, D>(std::marker::PhantomData<fn(E) -> D>);

impl<E, D> Default for Proto<E, D> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<E: prost::Message + 'static, D: prost::Message + Default + 'static> tonic::codec::Codec
    for Proto<E, D>
{
    type Encode = E;
    type Decode = D;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<E: prost::Message, D> tonic::codec::Encoder for Proto<E, D> {
    type Item = E;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: E,
        buf: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        item.encode(buf)
            .map_err(|e| tonic::Status::internal(e.to_string()))
    }
}

impl<E, D: prost::Message + Default> tonic::codec::Decoder for Proto<E, D> {
    type Item = D;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        buf: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<D>, tonic::Status> {
        D::decode(buf)
            .map(Some)
            .map_err(|e| tonic::Status::internal(e.to_string()))
    }
}

#[tokio::test]
async fn csds_tells_what_each_client_has() {
    let cache = SnapshotCache::new(NodeId, "cp");
    cache.set_snapshot("n", snapshot(&[("a", "1")]));
    let server = Server::new(XdsService::builder(cache.clone()).build()).await;
    let mut client = Client::new("n", aggregated(Variant::Delta, &server.uri()));
    client.until(|state| state.len() == 2).await;
    let synced = async {
        while !cache
            .clients()
            .iter()
            .all(|report| report.rows.len() == 2 && report.is_synced())
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, synced).await.unwrap();

    let endpoint = tonic::transport::Endpoint::from_shared(server.uri()).unwrap();
    let mut grpc = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let path = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus";
    let request = tonic::Request::new(ClientStatusRequest::default());
    let codec = Proto::<ClientStatusRequest, ClientStatusResponse>::default();
    let answer = grpc
        .unary(request, path.parse().unwrap(), codec)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.config.len(), 1);
    let config = &answer.config[0];
    assert_eq!(config.node.as_ref().unwrap().id, "n");
    let rows = &config.generic_xds_configs;
    assert_eq!(rows.len(), 2);
    assert!(
        rows.iter()
            .all(|row| row.config_status == 1 && row.client_status == 3),
        "{rows:?}"
    );
    assert_eq!(rows[0].xds_config.as_ref().unwrap().value, body("a", "1"));
}

#[tokio::test]
async fn a_node_gets_nothing_unless_it_is_admitted() {
    #[derive(Clone)]
    struct Proven(&'static str);
    let cache = SnapshotCache::new(NodeId, "cp");
    cache.set_snapshot("shop", snapshot(&[("a", "1")]));
    let service = XdsService::builder(cache)
        .admit(|node, connection| match connection.get::<Proven>() {
            Some(proven) if proven.0 == node.id => Ok(()),
            _ => Err(format!("you are not {}", node.id)),
        })
        .build();
    let ask = async |proven: Option<&'static str>| {
        let request = DeltaDiscoveryRequest {
            node: Some(Node {
                id: "shop".to_owned(),
                ..Node::default()
            }),
            type_url: Cluster.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let bytes = request.encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        frame.extend(bytes);
        let mut request = http::Request::new(http_body_util::Full::new(Bytes::from(frame)));
        let path =
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
        *request.uri_mut() = path.parse().unwrap();
        if let Some(name) = proven {
            request.extensions_mut().insert(Proven(name));
        }
        let mut service = service.clone();
        let response = service.call(request).await.unwrap();
        response.into_body().frame().await.unwrap().unwrap()
    };
    for refused in [None, Some("users")] {
        let trailers = ask(refused).await.into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "7");
        assert_eq!(trailers["grpc-message"], "you%20are%20not%20shop");
    }
    // Its request was all it had to say.
    let trailers = ask(Some("shop")).await.into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[derive(Default)]
struct Sink(Mutex<Vec<(String, Vec<ClusterLoad>)>>);

impl LoadSink for Sink {
    fn on_report(&self, node: &Node, clusters: Vec<ClusterLoad>) {
        self.0.lock().unwrap().push((node.id.clone(), clusters));
    }
}

#[tokio::test]
async fn load_reports_arrive() {
    let sink = Arc::new(Sink::default());
    let service = XdsService::builder(SnapshotCache::new(NodeId, "cp"))
        .load_reports(
            sink.clone(),
            LrsSettings {
                report_endpoint_granularity: true,
                ..LrsSettings::default()
            },
        )
        .build();
    let server = Server::new(service).await;
    let endpoint = tonic::transport::Endpoint::from_shared(server.uri()).unwrap();
    let mut grpc = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    let hello = mesh_xds::load::LoadReporter::hello(node("n"));
    requests.send(hello).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let path = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
    let codec = Proto::<LoadStatsRequest, LoadStatsResponse>::default();
    let answers = grpc
        .streaming(tonic::Request::new(stream), path.parse().unwrap(), codec)
        .await;
    let mut answers = answers.unwrap().into_inner();
    let wanted = answers.message().await.unwrap().unwrap();
    assert!(wanted.send_all_clusters);

    let mut reporter = mesh_xds::load::LoadReporter::new();
    let now = mesh_core::clock::now();
    let load = mesh_xds::load::LocalityLoad {
        total_successful_requests: 3,
        total_requests_in_progress: 1,
        total_error_requests: 2,
        total_issued_requests: 6,
    };
    let locality = mesh_core::Locality::default();
    reporter.on_response(now, &wanted);
    reporter.add(now, ("users", ""), (&locality, 0), &load);
    let endpoint = EndpointLoad {
        of: (locality.clone(), 0),
        load,
        health: "/failed_outlier_check".to_owned(),
    };
    let address = ([10, 0, 0, 1], 80).into();
    assert!(reporter.wants_endpoints());
    reporter.add_endpoint(now, ("users", ""), address, &endpoint);
    reporter.add_dropped(now, ("users", ""), "throttle", 4);
    assert!(reporter.poll_report(now + Duration::from_secs(9)).is_none());
    let at = reporter.next_deadline().unwrap();
    let report = reporter.poll_report(at).unwrap();
    requests.send(report).await.unwrap();
    // It is asked again: there may be more clusters now.
    assert_eq!(answers.message().await.unwrap().unwrap(), wanted);
    drop(requests);
    assert!(answers.message().await.unwrap().is_none());
    let reports = sink.0.lock().unwrap();
    let [(id, clusters)] = reports.as_slice() else {
        panic!("{reports:?}");
    };
    assert_eq!((id.as_str(), clusters.len()), ("n", 1));
    assert_eq!(clusters[0].localities[&(locality, 0)], load);
    assert_eq!(clusters[0].endpoints[&address], endpoint);
    assert_eq!(clusters[0].dropped["throttle"], 4);
    assert_eq!(clusters[0].load_report_interval, Duration::from_secs(10));
    // It was taken out: what is left is what still runs.
    let next = reporter.poll_report(at + Duration::from_secs(10)).unwrap();
    let ClusterStats {
        upstream_locality_stats,
        total_dropped_requests,
        ..
    } = &next.cluster_stats[0];
    assert_eq!(
        (
            upstream_locality_stats[0].total_issued_requests,
            *total_dropped_requests
        ),
        (0, 0)
    );
    assert_eq!(upstream_locality_stats[0].total_requests_in_progress, 1);
}

#[tokio::test]
async fn a_file_is_read_when_it_is_moved_into_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cds.pb");
    let write = |text: &str, to: &std::path::Path| {
        let response = DiscoveryResponse {
            resources: vec![any(Cluster, body("a", text))],
            ..DiscoveryResponse::default()
        };
        std::fs::write(to, response.encode_to_vec()).unwrap();
    };
    write("1", &path);
    let (state, mut states) = watch::channel(State::new());
    let (connections, _) = watch::channel((0, String::new()));
    let (failures, mut failed) = watch::channel(String::new());
    let config = PathConfigSource {
        path: path.clone(),
        watched_directory: None,
    };
    let source = FileSource::new(config).unwrap();
    let mut subscriber =
        Subscriber::new(SubscriberConfig::new(node("n"), Variant::StateOfTheWorld));
    subscriber.subscribe_all(mesh_core::clock::now(), Cluster);
    let parse = |_: &std::path::Path, bytes: &[u8]| {
        DiscoveryResponse::decode(bytes).map_err(|error| error.to_string())
    };
    let recorder = Recorder { state, connections };
    let (driver, _commands) = FileDriver::new(source, Cluster, subscriber, recorder);
    let running = tokio::spawn(driver.run(parse, move |reason| {
        failures.send_replace(reason.to_owned());
    }));
    let a = (Cluster, "a".to_owned());
    let wait = async {
        states
            .wait_for(|s| s.get(&a).is_some_and(|t| t == "1"))
            .await
            .unwrap();
        // Written in place, nothing happens; broken and moved, it is reported; whole and moved, it is used.
        write("2", &path);
        let next = directory.path().join("next");
        std::fs::write(&next, b"\xff").unwrap();
        std::fs::rename(&next, &path).unwrap();
        failed
            .wait_for(|reason| reason.contains("cds.pb: "))
            .await
            .unwrap();
        assert_eq!(states.borrow()[&a], "1");
        write("3", &next);
        std::fs::rename(&next, &path).unwrap();
        states
            .wait_for(|s| s.get(&a).is_some_and(|t| t == "3"))
            .await
            .unwrap();
    };
    tokio::time::timeout(SOON, wait).await.unwrap();
    running.abort();
}

#[tokio::test]
async fn a_driver_reports_what_is_collected() {
    let sink = Arc::new(Sink::default());
    let interval = mesh_xds::load::INTERVAL_MIN;
    let service = XdsService::builder(SnapshotCache::new(NodeId, "cp"))
        .load_reports(
            sink.clone(),
            LrsSettings {
                load_reporting_interval: interval,
                ..LrsSettings::default()
            },
        )
        .build();
    let server = Server::new(service).await;
    let stream = Stream::aggregated(Variant::Delta, [server.uri().as_str()]).unwrap();
    let reconnect = Reconnect::new(1).unwrap();
    let driver = LoadDriver::new(node("n"), stream.servers, reconnect, Rng::seeded(1));
    let mut asked = 0;
    let running = tokio::spawn(driver.run(move |now, reporter| {
        asked += 1;
        let load = mesh_xds::load::LocalityLoad {
            total_issued_requests: asked,
            ..mesh_xds::load::LocalityLoad::default()
        };
        let locality = mesh_core::Locality::default();
        reporter.add(now, ("users", ""), (&locality, 0), &load);
    }));
    let reports = || sink.0.lock().unwrap().clone();
    let two = async {
        while reports().len() < 2 {
            tokio::time::sleep(interval / 10).await;
        }
    };
    tokio::time::timeout(SOON, two).await.unwrap();
    let reports = reports();
    let issued = |at: usize| {
        let users = &reports[at].1[0];
        users
            .localities
            .values()
            .next()
            .unwrap()
            .total_issued_requests
    };
    assert_eq!(reports[0].0, "n");
    // What was there at the start, and what came until the first report; then only what is new.
    assert_eq!((issued(0), issued(1)), (1 + 2, 3));
    // An interval, give or take what the machine needed.
    assert!(reports[0].1[0].load_report_interval >= interval);
    running.abort();
}
