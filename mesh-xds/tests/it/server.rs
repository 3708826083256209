//! Rules of the wire, one by one, on the server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_xds::{
    ResourceType::{self, Cluster, Endpoints, Listener, RouteConfiguration},
    Variant::{self, Delta, StateOfTheWorld},
    server::{ConfigStatus, Diff, Peer, Snapshot, TypeSet},
    wire::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        Request, Response, Status,
    },
};

use crate::support::{entry, epoch, ms, node};

/// A peer, and the client's side of its stream.
struct Stream {
    now: Instant,
    variant: Variant,
    peer: Peer,
    snapshot: Snapshot,
}

impl Stream {
    fn new(variant: Variant, snapshot: Snapshot) -> Self {
        Self {
            now: epoch(),
            variant,
            peer: Peer::new(variant, None),
            snapshot,
        }
    }

    fn sotw(&mut self, ty: ResourceType, names: &[&str], nonce: &str) {
        self.send(Request::Sotw(sotw(ty, names, nonce)));
    }

    fn delta(&mut self, ty: ResourceType, subscribe: &[&str], nonce: &str) {
        self.send(Request::Delta(delta(ty, subscribe, nonce)));
    }

    fn send(&mut self, request: Request) {
        self.peer.on_request(self.now, &request);
    }

    fn poll(&mut self) -> Option<Response> {
        let mut differ = |from: &Arc<TypeSet>, to: &Arc<TypeSet>| Arc::new(Diff::between(from, to));
        let push = self.peer.poll_push(self.now, &self.snapshot, &mut differ)?;
        let bytes = push.encode("cp").to_bytes();
        Some(Response::decode(self.variant, bytes).unwrap())
    }

    fn world(&mut self) -> Option<(DiscoveryResponse, Vec<String>)> {
        match self.poll()? {
            Response::Sotw(response) => {
                let name = |any: &mesh_xds::wire::Any| mesh_xds::name_of(&any.value).unwrap();
                let names = response.resources.iter().map(name).collect();
                Some((response, names))
            }
            Response::Delta(_) => unreachable!(),
        }
    }

    fn change(&mut self) -> Option<(DeltaDiscoveryResponse, Vec<String>)> {
        match self.poll()? {
            Response::Delta(response) => {
                let names = response.resources.iter().map(|r| r.name.clone()).collect();
                Some((response, names))
            }
            Response::Sotw(_) => unreachable!(),
        }
    }
}

fn sotw(ty: ResourceType, names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node("n")),
        type_url: ty.type_url().to_owned(),
        resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn delta(ty: ResourceType, subscribe: &[&str], nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(node("n")),
        type_url: ty.type_url().to_owned(),
        resource_names_subscribe: subscribe.iter().map(|n| (*n).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn clusters(names: &[&str]) -> Snapshot {
    let entries = names.iter().map(|name| entry(name, "")).collect();
    Snapshot::new().with(Cluster, entries)
}

#[test]
fn sotw_an_answer_to_an_overtaken_response_is_ignored() {
    let mut stream = Stream::new(StateOfTheWorld, clusters(&["a"]));
    stream.sotw(Cluster, &[], "of an earlier stream");
    let (first, names) = stream.world().unwrap();
    assert_eq!(
        (
            names.len(),
            first.control_plane.unwrap().identifier.as_str()
        ),
        (1, "cp")
    );
    // No second response while the first is not answered, and none on a stale answer.
    stream.snapshot = clusters(&["a", "b"]);
    assert!(stream.world().is_none());
    stream.sotw(Cluster, &[], "stale");
    assert!(stream.world().is_none());
    stream.sotw(Cluster, &[], &first.nonce);
    assert_eq!(stream.world().unwrap().1, ["a", "b"]);
}

#[test]
fn a_slow_client_gets_the_newest_and_nothing_between() {
    let mut stream = Stream::new(Delta, clusters(&["a"]));
    stream.delta(Cluster, &[], "");
    let (first, _) = stream.change().unwrap();
    for n in 0..100 {
        stream.snapshot = clusters(&["a", &format!("only {n}")]);
        assert!(stream.change().is_none());
    }
    stream.delta(Cluster, &[], &first.nonce);
    assert_eq!(stream.change().unwrap().1, ["only 99"]);
    // One that never acknowledges is not waited for without end.
    stream.snapshot = clusters(&["a", "b"]);
    assert!(stream.change().is_none());
    stream.now = stream.peer.next_deadline().unwrap();
    assert_eq!(stream.change().unwrap().1, ["b"]);
}

#[test]
fn sotw_a_new_name_is_answered_though_nothing_changed() {
    let both = vec![entry("a", ""), entry("b", "")];
    let mut stream = Stream::new(StateOfTheWorld, Snapshot::new().with(Endpoints, both));
    stream.sotw(Endpoints, &["a"], "");
    let (first, _) = stream.world().unwrap();
    stream.sotw(Endpoints, &["a"], &first.nonce);
    assert!(stream.world().is_none());
    stream.sotw(Endpoints, &["a", "b", "none"], &first.nonce);
    let (second, names) = stream.world().unwrap();
    assert_eq!(names, ["b"]);
    // Less is not an occasion to send anything.
    stream.sotw(Endpoints, &["b"], &second.nonce);
    assert!(stream.world().is_none());
}

#[test]
fn sotw_an_empty_list_means_nothing_once_a_name_was_named() {
    let mut stream = Stream::new(StateOfTheWorld, clusters(&["a", "b"]));
    stream.sotw(Cluster, &["a"], "");
    let (first, names) = stream.world().unwrap();
    assert_eq!(names, ["a"]);
    stream.sotw(Cluster, &[], &first.nonce);
    stream.snapshot = clusters(&["a", "b", "c"]);
    assert!(stream.world().is_none());
    stream.sotw(Cluster, &["*"], &first.nonce);
    assert_eq!(stream.world().unwrap().1, ["a", "b", "c"]);
}

#[test]
fn delta_a_name_that_does_not_exist_is_answered_at_once() {
    let mut stream = Stream::new(Delta, Snapshot::new());
    stream.delta(Endpoints, &["none"], "");
    let (first, names) = stream.change().unwrap();
    assert!(names.is_empty());
    assert_eq!(first.removed_resources, ["none"]);
    stream.delta(Endpoints, &[], &first.nonce);
    assert!(stream.change().is_none());
    stream.snapshot = Snapshot::new().with(Endpoints, vec![entry("none", "")]);
    assert_eq!(stream.change().unwrap().1, ["none"]);
}

#[test]
fn delta_a_reconnecting_client_gets_what_differs() {
    let snapshot = clusters(&["same", "new"]);
    let same = snapshot
        .set(Cluster)
        .get("same")
        .unwrap()
        .version
        .to_string();
    let mut stream = Stream::new(Delta, snapshot);
    let mut request = delta(Cluster, &[], "");
    for (name, version) in [("same", same.as_str()), ("gone", "1")] {
        request
            .initial_resource_versions
            .insert(name.to_owned(), version.to_owned());
    }
    stream.send(Request::Delta(request));
    let (first, names) = stream.change().unwrap();
    assert_eq!(names, ["new"]);
    assert_eq!(first.removed_resources, ["gone"]);
}

#[test]
fn delta_a_name_subscribed_to_again_is_sent_again() {
    let mut stream = Stream::new(Delta, Snapshot::new().with(Endpoints, vec![entry("a", "")]));
    stream.delta(Endpoints, &["a"], "");
    let (first, _) = stream.change().unwrap();
    stream.delta(Endpoints, &["a"], &first.nonce);
    assert_eq!(stream.change().unwrap().1, ["a"]);
}

#[test]
fn a_rejected_resource_is_reported_and_not_sent_again_until_it_changes() {
    let mut stream = Stream::new(Delta, clusters(&["good", "evil"]));
    stream.delta(Cluster, &[], "");
    let (first, _) = stream.change().unwrap();
    let mut nack = delta(Cluster, &[], &first.nonce);
    let message = "cds \"evil\": name: it is evil".to_owned();
    nack.error_detail = Some(Status {
        code: 13,
        message: message.clone(),
    });
    stream.send(Request::Delta(nack));
    assert!(stream.change().is_none());
    let rows = stream.peer.rows(&stream.snapshot);
    let evil = rows.iter().find(|row| &*row.name == "evil").unwrap();
    assert_eq!(evil.status, ConfigStatus::Error);
    assert_eq!(evil.error.as_ref().unwrap().1, message);
    let good = rows.iter().find(|row| &*row.name == "good").unwrap();
    assert_eq!(good.status, ConfigStatus::Stale);

    let healed = vec![entry("good", ""), entry("evil", "better")];
    stream.snapshot = std::mem::take(&mut stream.snapshot).with(Cluster, healed);
    let (second, names) = stream.change().unwrap();
    assert_eq!(names, ["evil"]);
    stream.delta(Cluster, &[], &second.nonce);
    let rows = stream.peer.rows(&stream.snapshot);
    assert!(
        rows.iter().all(|row| row.status == ConfigStatus::Synced),
        "{rows:?}"
    );
}

#[test]
fn a_push_waits_for_clusters_and_takes_clusters_away_last() {
    let state = |cluster: &str, routes: &str| {
        Snapshot::new()
            .with(Cluster, vec![entry(cluster, "")])
            .with(Listener, vec![entry("l", cluster)])
            .with(RouteConfiguration, vec![entry("r", routes)])
    };
    for variant in [StateOfTheWorld, Delta] {
        let mut stream = Stream::new(variant, state("old", "old"));
        let ask = |stream: &mut Stream, ty: ResourceType, nonce: &str| match (variant, ty) {
            (StateOfTheWorld, RouteConfiguration) => stream.sotw(ty, &["r"], nonce),
            (StateOfTheWorld, _) => stream.sotw(ty, &[], nonce),
            (Delta, RouteConfiguration) if nonce.is_empty() => stream.delta(ty, &["r"], nonce),
            (Delta, _) => stream.delta(ty, &[], nonce),
        };
        let order = |stream: &mut Stream| {
            let mut order = Vec::new();
            while let Some(response) = stream.poll() {
                let (ty, nonce, n, gone) = match response {
                    Response::Sotw(r) => (r.type_url, r.nonce, r.resources.len(), 0),
                    Response::Delta(r) => (
                        r.type_url,
                        r.nonce,
                        r.resources.len(),
                        r.removed_resources.len(),
                    ),
                };
                let ty = ResourceType::from_type_url(&ty).unwrap();
                // What sends traffic does not come before this was answered.
                assert!(ty != Cluster || stream.poll().is_none());
                order.push((ty, n, gone));
                ask(stream, ty, &nonce);
            }
            order
        };
        for ty in [RouteConfiguration, Listener, Cluster] {
            ask(&mut stream, ty, "");
        }
        assert_eq!(
            order(&mut stream),
            [
                (Cluster, 1, 0),
                (Listener, 1, 0),
                (RouteConfiguration, 1, 0)
            ]
        );
        stream.snapshot = state("new", "new");
        let (both, last) = match variant {
            StateOfTheWorld => ((Cluster, 2, 0), (Cluster, 1, 0)),
            Delta => ((Cluster, 1, 0), (Cluster, 0, 1)),
        };
        let expected = [both, (Listener, 1, 0), (RouteConfiguration, 1, 0), last];
        assert_eq!(order(&mut stream), expected, "{variant:?}");
    }
}

/// Envoy acknowledges clusters when they are warm, for which it needs their endpoints.
#[test]
fn endpoints_do_not_wait_for_the_acknowledgement_of_clusters() {
    for variant in [StateOfTheWorld, Delta] {
        let snapshot = clusters(&["a"])
            .with(Endpoints, vec![entry("a", "")])
            .with(RouteConfiguration, vec![entry("r", "a")]);
        let mut stream = Stream::new(variant, snapshot);
        let types = [(Cluster, None), (RouteConfiguration, Some("r"))];
        let ask = |stream: &mut Stream, ty, name: Option<&str>| {
            let names: Vec<_> = name.into_iter().collect();
            match variant {
                StateOfTheWorld => stream.sotw(ty, &names, ""),
                Delta => stream.delta(ty, &names, ""),
            }
        };
        for (ty, name) in types {
            ask(&mut stream, ty, name);
        }
        assert!(stream.poll().is_some() && stream.poll().is_none());
        ask(&mut stream, Endpoints, Some("a"));
        assert!(stream.poll().is_some(), "endpoints, {variant:?}");
        assert!(stream.poll().is_none(), "routes wait, {variant:?}");
    }
}

#[test]
fn a_ttl_is_renewed_three_times_within_it() {
    let ttl = Duration::from_secs(3);
    let living = Snapshot::new().with(
        Endpoints,
        vec![entry("a", "").with_ttl(ttl), entry("b", "")],
    );
    let mut stream = Stream::new(Delta, living.clone());
    stream.delta(Endpoints, &["a", "b"], "");
    let (first, _) = stream.change().unwrap();
    assert_eq!(first.resources[0].ttl.unwrap().seconds, 3);
    stream.delta(Endpoints, &[], &first.nonce);
    assert!(stream.change().is_none());
    assert_eq!(stream.peer.next_deadline(), Some(stream.now + ms(1_000)));
    stream.now += ms(1_000);
    let (heartbeat, names) = stream.change().unwrap();
    assert_eq!(names, ["a"]);
    assert!(heartbeat.resources[0].resource.is_none() && heartbeat.resources[0].ttl.is_some());

    // In the state of the world it is wrapped, for clients that know how to unwrap it.
    for (features, wrapped) in [
        (vec![], 0),
        (vec!["xds.config.supports-resource-ttl".to_owned()], 1),
    ] {
        let mut stream = Stream::new(StateOfTheWorld, living.clone());
        let mut request = sotw(Endpoints, &["a", "b"], "");
        request.node.as_mut().unwrap().client_features = features;
        stream.send(Request::Sotw(request));
        let Some(Response::Sotw(response)) = stream.poll() else {
            unreachable!()
        };
        let wrappers = response
            .resources
            .iter()
            .filter(|any| any.type_url.ends_with(".Resource"));
        assert_eq!(wrappers.count(), wrapped);
    }
}

#[test]
fn references_that_lead_nowhere_are_named() {
    use envoy_types::pb::envoy::config::cluster::v3::{
        Cluster as Message,
        cluster::{ClusterDiscoveryType, DiscoveryType},
    };
    use prost::Message as _;
    let cluster = Message {
        name: "c".to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        ..Message::default()
    };
    let entry_of = |body: Vec<u8>| mesh_xds::server::Entry::new("c", body);
    let snapshot = Snapshot::new().with(Cluster, vec![entry_of(cluster.encode_to_vec())]);
    assert_eq!(
        snapshot.dangling(),
        ["\"c\" refers to eds \"c\", which is not there"]
    );
    assert!(
        snapshot
            .with(Endpoints, vec![entry("c", "")])
            .dangling()
            .is_empty()
    );
    let broken = Snapshot::new().with(Cluster, vec![entry_of(vec![0xff])]);
    assert!(broken.dangling()[0].starts_with("\"c\" cannot be decoded"));
}
