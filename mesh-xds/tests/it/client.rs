//! Rules of the wire, one by one, on the client.

use mesh_xds::{
    Cause, ClientStatus, Event, RateLimit, Rejection, ResourceType, Subscriber, SubscriberConfig,
    Variant,
    wire::{DeltaDiscoveryRequest, Request, Response},
};

use crate::support::{
    accept, any, body, delta, epoch, ms, node, requests, sotw, subscriber, world,
};

use ResourceType::{Cluster, Endpoints, Listener, RouteConfiguration};
use Variant::{Delta, StateOfTheWorld};

fn names(events: &[Event]) -> Vec<String> {
    let name = |event: &Event| match event {
        Event::Updated { resource, .. } => format!("+{}", resource.name),
        Event::Removed { name, cause, .. } => match cause {
            Cause::Deleted => format!("-{name}"),
            Cause::Expired => format!("~{name}"),
        },
        Event::Missing { name, .. } => format!("?{name}"),
        Event::Rejected { name, .. } => format!("!{name}"),
        Event::Complete { .. } => "complete".to_owned(),
        Event::TimedOut { name, .. } => format!("timeout {}", name.as_deref().unwrap_or("*")),
    };
    events.iter().map(name).collect()
}

fn as_delta(request: &Request) -> &DeltaDiscoveryRequest {
    let Request::Delta(request) = request else {
        panic!("{request:?}");
    };
    request
}

#[test]
fn sotw_a_nack_repeats_the_last_accepted_version_with_the_rejected_nonce() {
    let now = epoch();
    let mut client = subscriber(StateOfTheWorld);
    client.subscribe_all(now, Cluster);
    client.on_connected();
    let first = requests(now, &mut client);
    assert_eq!(sotw(&first[0]), (Cluster, vec![], "", "", None));

    client.on_response(now, world(Cluster, "1", "a", &[("x", "good")]), &mut accept);
    let ack = requests(now, &mut client);
    assert_eq!(sotw(&ack[0]), (Cluster, vec![], "1", "a", None));

    let events = client.on_response(
        now,
        world(Cluster, "2", "b", &[("x", "bad"), ("y", "good")]),
        &mut accept,
    );
    assert_eq!(names(&events), ["!x", "+y"]);
    let nack = requests(now, &mut client);
    let message = "cds \"x\": content: it is bad";
    assert_eq!(sotw(&nack[0]), (Cluster, vec![], "1", "b", Some(message)));
    // The old one stays in force, and the dump says both.
    assert_eq!(client.held(Cluster, "x").unwrap(), &body("x", "good"));
    let x = &client.statuses()[0];
    assert_eq!((x.status, x.version.as_str()), (ClientStatus::Nacked, "1"));
    assert_eq!(x.error.as_ref().unwrap().version, "2");
    // A good one clears it.
    client.on_response(now, world(Cluster, "3", "c", &[("x", "good")]), &mut accept);
    assert_eq!(client.statuses()[0].status, ClientStatus::Acked);
    assert_eq!(sotw(&requests(now, &mut client)[0]).2, "3");
}

#[test]
fn sotw_what_is_missing_is_gone_for_clusters_and_listeners_only() {
    let now = epoch();
    for (ty, gone) in [
        (Cluster, true),
        (Listener, true),
        (Endpoints, false),
        (RouteConfiguration, false),
    ] {
        let mut client = subscriber(StateOfTheWorld);
        client.subscribe(now, ty, "a");
        client.subscribe(now, ty, "b");
        client.on_connected();
        client.on_response(
            now,
            world(ty, "1", "1", &[("a", ""), ("b", "")]),
            &mut accept,
        );
        let events = client.on_response(now, world(ty, "2", "2", &[("a", "")]), &mut accept);
        let expected: &[&str] = if gone { &["-b"] } else { &[] };
        assert_eq!(names(&events), expected, "{ty}");
        assert_eq!(client.held(ty, "b").is_none(), gone, "{ty}");
    }
}

#[test]
fn sotw_after_a_reconnect_the_version_is_kept_and_the_nonce_is_not() {
    let now = epoch();
    let mut client = subscriber(StateOfTheWorld);
    client.subscribe(now, Endpoints, "a");
    client.on_connected();
    client.on_response(now, world(Endpoints, "7", "n", &[("a", "")]), &mut accept);
    requests(now, &mut client);
    client.on_disconnected();
    assert!(requests(now, &mut client).is_empty());
    client.on_connected();
    let again = requests(now, &mut client);
    assert_eq!(sotw(&again[0]), (Endpoints, vec!["a"], "7", "", None));
}

#[test]
fn sotw_after_a_partly_taken_response_a_new_stream_claims_no_version() {
    let now = epoch();
    let mut client = subscriber(StateOfTheWorld);
    client.subscribe_all(now, Cluster);
    client.on_connected();
    client.on_response(now, world(Cluster, "1", "1", &[]), &mut accept);
    client.on_response(
        now,
        world(Cluster, "2", "2", &[("a", ""), ("b", "bad")]),
        &mut accept,
    );
    // On this stream version 1 is the last one accepted, but what is held is neither.
    assert_eq!(sotw(&requests(now, &mut client)[0]).2, "1");
    client.on_connected();
    assert_eq!(sotw(&requests(now, &mut client)[0]).2, "");
}

#[test]
fn sotw_a_name_beside_the_wildcard_makes_the_wildcard_explicit() {
    let now = epoch();
    let mut client = subscriber(StateOfTheWorld);
    client.subscribe_all(now, Cluster);
    client.on_connected();
    assert_eq!(sotw(&requests(now, &mut client)[0]).1, Vec::<&str>::new());
    client.subscribe(now, Cluster, "a");
    assert_eq!(sotw(&requests(now, &mut client)[0]).1, ["*", "a"]);
    client.unsubscribe(Cluster, "a");
    // An empty list would now mean: nothing.
    assert_eq!(sotw(&requests(now, &mut client)[0]).1, ["*"]);
    client.unsubscribe_all(Cluster);
    assert_eq!(sotw(&requests(now, &mut client)[0]).1, Vec::<&str>::new());
}

#[test]
fn sotw_a_response_with_a_name_twice_or_of_another_type_changes_nothing() {
    let now = epoch();
    let mut client = subscriber(StateOfTheWorld);
    client.subscribe_all(now, Cluster);
    client.on_connected();
    client.on_response(now, world(Cluster, "1", "1", &[("a", "old")]), &mut accept);
    requests(now, &mut client);
    let twice = world(Cluster, "2", "2", &[("a", "new"), ("b", ""), ("b", "")]);
    client.on_response(now, twice, &mut accept);
    assert_eq!(client.held(Cluster, "a").unwrap(), &body("a", "old"));
    let nack = requests(now, &mut client);
    let (_, _, version, nonce, error) = sotw(&nack[0]);
    assert_eq!((version, nonce), ("1", "2"));
    assert!(
        error.unwrap().contains("resources[2]: duplicate name b"),
        "{error:?}"
    );

    let Response::Sotw(mut other) = world(Cluster, "3", "3", &[]) else {
        unreachable!()
    };
    other.resources.push(any(Listener, body("l", "")));
    client.on_response(now, Response::Sotw(other), &mut accept);
    let nack = requests(now, &mut client);
    assert!(sotw(&nack[0]).4.unwrap().contains("Listener"), "{nack:?}");
    assert!(client.held(Cluster, "a").is_some());
}

#[test]
fn requests_go_out_in_an_order_that_breaks_nothing() {
    let now = epoch();
    let mut client = subscriber(StateOfTheWorld);
    client.subscribe(now, RouteConfiguration, "r");
    client.subscribe_all(now, Listener);
    client.subscribe(now, Endpoints, "e");
    client.subscribe_all(now, Cluster);
    client.on_connected();
    let order: Vec<_> = requests(now, &mut client)
        .iter()
        .map(|r| sotw(r).0)
        .collect();
    assert_eq!(order, [Cluster, Endpoints, Listener, RouteConfiguration]);
}

#[test]
fn unchanged_bytes_are_neither_looked_at_nor_told_again() {
    let now = epoch();
    let mut looked = 0;
    let mut count = |_, _: &str, _: &bytes::Bytes| {
        looked += 1;
        Ok::<(), Rejection>(())
    };
    let mut client = subscriber(StateOfTheWorld);
    client.subscribe_all(now, Cluster);
    client.on_connected();
    client.on_response(
        now,
        world(Cluster, "1", "1", &[("a", ""), ("b", "")]),
        &mut count,
    );
    let events = client.on_response(
        now,
        world(Cluster, "2", "2", &[("a", ""), ("b", "new")]),
        &mut count,
    );
    assert_eq!(names(&events), ["+b"]);
    assert_eq!(looked, 3);
}

#[test]
fn a_subscription_taken_back_and_made_anew_before_the_server_heard_gets_what_is_held() {
    let now = epoch();
    for variant in [StateOfTheWorld, Delta] {
        let mut client = subscriber(variant);
        client.subscribe(now, Endpoints, "a");
        client.on_connected();
        requests(now, &mut client);
        let response = match variant {
            StateOfTheWorld => world(Endpoints, "1", "1", &[("a", "")]),
            Delta => delta(Endpoints, "1", &[("a", "1", "")], &[]),
        };
        client.on_response(now, response, &mut accept);
        requests(now, &mut client);
        client.unsubscribe(Endpoints, "a");
        let event = client.subscribe(now, Endpoints, "a");
        assert_eq!(names(&event.into_iter().collect::<Vec<_>>()), ["+a"]);
        // Once the server was told, it is dropped, and must come anew.
        client.unsubscribe(Endpoints, "a");
        requests(now, &mut client);
        assert!(client.held(Endpoints, "a").is_none());
        assert_eq!(client.subscribe(now, Endpoints, "a"), None);
        assert_eq!(requests(now, &mut client).len(), 1);
    }
}

#[test]
fn delta_first_request_says_what_is_held() {
    let now = epoch();
    let mut client = subscriber(Delta);
    client.subscribe_all(now, Cluster);
    client.subscribe(now, Endpoints, "a");
    client.on_connected();
    let first = requests(now, &mut client);
    assert!(as_delta(&first[0]).resource_names_subscribe.is_empty());
    assert_eq!(as_delta(&first[1]).resource_names_subscribe, ["a"]);
    client.on_response(
        now,
        delta(Cluster, "1", &[("x", "v1", "")], &[]),
        &mut accept,
    );
    client.on_response(
        now,
        delta(Cluster, "2", &[("y", "v2", "bad")], &[]),
        &mut accept,
    );
    let answers = requests(now, &mut client);
    assert_eq!(as_delta(&answers[0]).response_nonce, "1");
    assert_eq!(as_delta(&answers[1]).response_nonce, "2");
    assert!(
        as_delta(&answers[1])
            .error_detail
            .as_ref()
            .unwrap()
            .message
            .contains("cds \"y\"")
    );

    client.on_connected();
    let again = requests(now, &mut client);
    let held = &as_delta(&again[0]).initial_resource_versions;
    // What was rejected is not held.
    assert_eq!(
        held.iter().collect::<Vec<_>>(),
        [(&"x".to_owned(), &"v1".to_owned())]
    );
    assert!(as_delta(&again[0]).response_nonce.is_empty());
}

#[test]
fn delta_removal_deletes_clusters_and_leaves_endpoints_in_use() {
    let now = epoch();
    let mut client = subscriber(Delta);
    client.subscribe_all(now, Cluster);
    client.subscribe(now, Endpoints, "a");
    client.subscribe(now, Endpoints, "none");
    client.on_connected();
    client.on_response(
        now,
        delta(Cluster, "1", &[("a", "1", "")], &[]),
        &mut accept,
    );
    client.on_response(
        now,
        delta(Endpoints, "1", &[("a", "1", "")], &["none"]),
        &mut accept,
    );
    let none = client
        .statuses()
        .into_iter()
        .find(|s| s.name == "none")
        .unwrap();
    assert_eq!(none.status, ClientStatus::DoesNotExist);
    let events = client.on_response(now, delta(Endpoints, "2", &[], &["a"]), &mut accept);
    assert!(events.is_empty() && client.held(Endpoints, "a").is_some());
    let events = client.on_response(now, delta(Cluster, "2", &[], &["a"]), &mut accept);
    assert_eq!(names(&events), ["-a"]);
}

#[test]
fn delta_refresh_subscribes_again_and_does_not_claim_to_hold() {
    let now = epoch();
    let mut client = subscriber(Delta);
    client.subscribe(now, Endpoints, "a");
    client.on_connected();
    client.on_response(
        now,
        delta(Endpoints, "1", &[("a", "1", "")], &[]),
        &mut accept,
    );
    requests(now, &mut client);
    client.refresh(Endpoints, "a");
    assert_eq!(
        as_delta(&requests(now, &mut client)[0]).resource_names_subscribe,
        ["a"]
    );
    // Said again while the stream breaks: the next one must not let the server think that all is well.
    client.refresh(Endpoints, "a");
    client.on_connected();
    assert!(
        as_delta(&requests(now, &mut client)[0])
            .initial_resource_versions
            .is_empty()
    );
}

#[test]
fn a_first_fetch_is_given_up_in_time_and_only_once() {
    let now = epoch();
    let mut client = subscriber(StateOfTheWorld);
    client.subscribe_all(now, Cluster);
    client.subscribe(now, Endpoints, "came");
    client.subscribe(now, Endpoints, "late");
    client.on_connected();
    client.on_response(
        now,
        world(Endpoints, "1", "1", &[("came", "")]),
        &mut accept,
    );
    assert_eq!(client.next_deadline(), Some(now + ms(15_000)));
    assert!(client.on_timer(now + ms(14_999)).is_empty());
    let events = client.on_timer(now + ms(15_000));
    assert_eq!(names(&events), ["timeout *", "timeout late"]);
    assert_eq!(client.next_deadline(), None);
}

#[test]
fn a_resource_expires_unless_a_heartbeat_renews_it() {
    let now = epoch();
    let mut client = subscriber(Delta);
    client.subscribe(now, Endpoints, "a");
    client.on_connected();
    let ttl = envoy_types::pb::google::protobuf::Duration {
        seconds: 10,
        nanos: 0,
    };
    let Response::Delta(mut response) = delta(Endpoints, "1", &[("a", "1", "")], &[]) else {
        unreachable!()
    };
    response.resources[0].ttl = Some(ttl);
    client.on_response(now, Response::Delta(response.clone()), &mut accept);
    response.resources[0].resource = None;
    client.on_response(now + ms(9_000), Response::Delta(response), &mut accept);
    assert!(client.on_timer(now + ms(18_999)).is_empty());
    assert!(client.held(Endpoints, "a").is_some());
    assert_eq!(names(&client.on_timer(now + ms(19_000))), ["~a"]);
    assert!(client.held(Endpoints, "a").is_none());
}

#[test]
fn a_ttl_beyond_all_time_does_not_end() {
    let now = epoch();
    let mut client = subscriber(Delta);
    client.subscribe(now, Endpoints, "a");
    client.on_connected();
    let ttl = envoy_types::pb::google::protobuf::Duration {
        seconds: i64::MAX,
        nanos: 0,
    };
    let Response::Delta(mut response) = delta(Endpoints, "1", &[("a", "1", "")], &[]) else {
        unreachable!()
    };
    response.resources[0].ttl = Some(ttl);
    client.on_response(now, Response::Delta(response), &mut accept);
    assert_eq!(client.next_deadline(), None);
    assert!(client.held(Endpoints, "a").is_some());
}

#[test]
fn requests_keep_to_their_rate() {
    let now = epoch();
    let mut config = SubscriberConfig::new(node("n"), StateOfTheWorld);
    config.rate_limit = Some(RateLimit {
        max_tokens: 1,
        fill_rate: 2.0,
    });
    config.initial_fetch_timeout = None;
    let mut client = Subscriber::new(config);
    client.subscribe_all(now, Cluster);
    client.subscribe_all(now, Listener);
    client.on_connected();
    assert_eq!(requests(now, &mut client).len(), 1);
    assert!(!client.may_send(now) && client.has_request());
    let at = client.next_deadline().unwrap();
    assert!(at > now + ms(499) && at < now + ms(502), "{:?}", at - now);
    client.on_timer(at);
    assert_eq!(requests(at, &mut client).len(), 1);
}

#[test]
fn the_node_is_sent_once_where_that_is_enough() {
    let now = epoch();
    let mut config = SubscriberConfig::new(node("n"), Delta);
    config.set_node_on_first_message_only = true;
    let mut client = Subscriber::new(config);
    client.subscribe_all(now, Cluster);
    client.subscribe_all(now, Listener);
    for _ in 0..2 {
        client.on_connected();
        let nodes: Vec<_> = requests(now, &mut client)
            .iter()
            .map(|r| r.node().is_some())
            .collect();
        assert_eq!(nodes, [true, false]);
    }
}

#[test]
fn a_restored_cache_is_told_and_then_confirmed_without_a_change() {
    let now = epoch();
    let mut before = subscriber(Delta);
    before.subscribe_all(now, Cluster);
    before.on_connected();
    before.on_response(
        now,
        delta(Cluster, "1", &[("a", "1", ""), ("b", "1", "bad now")], &[]),
        &mut |_: ResourceType, _: &str, _: &bytes::Bytes| Ok::<(), Rejection>(()),
    );
    let saved = before.all_held(Cluster);

    let mut client = subscriber(Delta);
    client.subscribe_all(now, Cluster);
    let events = client.restore(now, Cluster, saved, &mut accept);
    assert_eq!(names(&events), ["+a", "!b", "complete"]);
    client.on_connected();
    let first = requests(now, &mut client);
    assert_eq!(as_delta(&first[0]).initial_resource_versions.len(), 1);
    let events = client.on_response(
        now,
        delta(Cluster, "n", &[("a", "1", "")], &[]),
        &mut accept,
    );
    assert!(events.is_empty(), "{events:?}");
}
