use std::{net::SocketAddr, sync::Arc};

use http::{HeaderValue, Request};
use mesh_core::{Body, ConnectionInfo, RequestInfo, clock};
use mesh_ratelimit::{Action, HeaderKey, RateLimitRule, RequestView};
use mesh_testkit::request;

/// The descriptor of `request` under `actions`, printed.
fn descriptor(actions: Vec<Action>, request: &Request<Body>) -> Option<String> {
    let rule = RateLimitRule::new(actions);
    let entries = rule.descriptor(&RequestView::new(request))?;
    let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k}={v}")).collect();
    Some(entries.join(","))
}

fn from_peer(peer: &str) -> Request<Body> {
    let peer: SocketAddr = peer.parse().unwrap();
    let connection = Arc::new(ConnectionInfo::new(1, None, Some(peer)));
    let info = Arc::new(RequestInfo::new(clock::now(), 0, connection, Arc::from("")));
    let mut request = request("http://a/");
    RequestInfo::attach(&info, &mut request);
    request
}

fn generic(value: &str) -> Action {
    Action::GenericKey {
        descriptor_key: Arc::from("generic_key"),
        descriptor_value: value.into(),
    }
}

fn header(name: &str, skip_if_absent: bool) -> Action {
    Action::RequestHeaders {
        header_name: name.parse().unwrap(),
        descriptor_key: Arc::from("h"),
        skip_if_absent,
    }
}

fn query(name: &str) -> Action {
    Action::QueryParameters {
        query_parameter_name: name.into(),
        descriptor_key: Arc::from("q"),
        skip_if_absent: false,
    }
}

#[test]
fn entries_come_in_the_order_of_the_actions() {
    let actions = vec![
        Action::SourceCluster(Arc::from("me")),
        generic("x"),
        generic("y"),
    ];
    assert_eq!(
        descriptor(actions, &request("http://a/")).unwrap(),
        "source_cluster=me,generic_key=x,generic_key=y"
    );
}

#[test]
fn one_no_drops_the_whole_descriptor_and_a_skip_only_its_entry() {
    let plain = request("http://a/");
    assert_eq!(
        descriptor(vec![generic("x"), header("x-user", false)], &plain),
        None
    );
    assert_eq!(
        descriptor(vec![generic("x"), header("x-user", true)], &plain).unwrap(),
        "generic_key=x"
    );
    assert_eq!(descriptor(vec![header("x-user", true)], &plain), None);
}

#[test]
fn headers_are_read_with_their_first_value_and_pseudo_headers_too() {
    let mut request = request("http://host:81/path?q=1");
    request
        .headers_mut()
        .append("x-user", HeaderValue::from_static("a"));
    request
        .headers_mut()
        .append("x-user", HeaderValue::from_static("b"));
    for (name, value) in [
        ("x-user", "h=a"),
        (":method", "h=GET"),
        (":path", "h=/path?q=1"),
        (":authority", "h=host:81"),
        (":scheme", "h=http"),
    ] {
        assert_eq!(
            descriptor(vec![header(name, false)], &request).unwrap(),
            value
        );
    }
    assert_eq!(
        "a b".parse::<HeaderKey>().unwrap_err().to_string(),
        "\"a b\" is not a header name"
    );
}

#[test]
fn the_authority_of_a_plain_target_is_the_host_header() {
    let mut request = request("/path");
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("api"));
    assert_eq!(
        descriptor(vec![header(":authority", false)], &request).unwrap(),
        "h=api"
    );
}

#[test]
fn query_parameters_are_decoded_and_the_first_counts() {
    let request = request("http://a/?x=1&tenant=a%20b%2Fc&tenant=z&empty&bad=%zz%4");
    assert_eq!(
        descriptor(vec![query("tenant")], &request).unwrap(),
        "q=a b/c"
    );
    assert_eq!(descriptor(vec![query("empty")], &request).unwrap(), "q=");
    assert_eq!(descriptor(vec![query("bad")], &request).unwrap(), "q=%zz%4");
    assert_eq!(descriptor(vec![query("none")], &request), None);
}

#[test]
fn addresses_are_the_trusted_client_and_can_be_masked() {
    let masked = |v4, v6| Action::MaskedRemoteAddress {
        v4_prefix_mask_len: v4,
        v6_prefix_mask_len: v6,
    };
    let v4 = from_peer("10.20.30.40:5");
    assert_eq!(
        descriptor(vec![Action::RemoteAddress], &v4).unwrap(),
        "remote_address=10.20.30.40"
    );
    for (len, network) in [
        (0, "0.0.0.0/0"),
        (12, "10.16.0.0/12"),
        (32, "10.20.30.40/32"),
        (99, "10.20.30.40/32"),
    ] {
        assert_eq!(
            descriptor(vec![masked(len, 128)], &v4).unwrap(),
            format!("masked_remote_address={network}")
        );
    }
    let v6 = from_peer("[2001:db8:1:2::3]:5");
    for (len, network) in [
        (0, "::/0"),
        (48, "2001:db8:1::/48"),
        (128, "2001:db8:1:2::3/128"),
    ] {
        assert_eq!(
            descriptor(vec![masked(32, len)], &v6).unwrap(),
            format!("masked_remote_address={network}")
        );
    }
    let info = RequestInfo::of(&v4).unwrap();
    info.with(|facts| facts.remote = Some("1.2.3.4:0".parse().unwrap()));
    assert_eq!(
        descriptor(vec![Action::RemoteAddress], &v4).unwrap(),
        "remote_address=1.2.3.4"
    );
    assert_eq!(
        descriptor(vec![Action::RemoteAddress], &request("http://a/")),
        None
    );
}

#[test]
fn the_destination_is_the_routed_cluster() {
    let request = from_peer("1.1.1.1:1");
    assert_eq!(descriptor(vec![Action::DestinationCluster], &request), None);
    let info = RequestInfo::of(&request).unwrap();
    info.with(|facts| facts.cluster = Some(Arc::from("backend")));
    assert_eq!(
        descriptor(vec![Action::DestinationCluster], &request).unwrap(),
        "destination_cluster=backend"
    );
}

#[test]
fn a_value_match_holds_when_the_condition_is_what_is_expected() {
    let matches = |expect_match| Action::ValueMatch {
        descriptor_key: Arc::from("header_match"),
        descriptor_value: Arc::from("big"),
        expect_match,
        matches: Arc::new(|request: &RequestView<'_>| request.uri.path() == "/big"),
    };
    for (path, expect, holds) in [
        ("/big", true, true),
        ("/big", false, false),
        ("/small", true, false),
        ("/small", false, true),
    ] {
        let found = descriptor(vec![matches(expect)], &request(&format!("http://a{path}")));
        assert_eq!(found.is_some(), holds, "{path} {expect}");
    }
}

#[test]
fn code_can_find_a_value() {
    let custom = |skip_if_absent| Action::Custom {
        descriptor_key: Arc::from("len"),
        skip_if_absent,
        value: Arc::new(|request: &RequestView<'_>| {
            let len = request.uri.path().len();
            (len > 1).then(|| len.to_string())
        }),
    };
    assert_eq!(
        descriptor(vec![custom(false)], &request("http://a/abc")).unwrap(),
        "len=4"
    );
    assert_eq!(
        descriptor(vec![custom(false), generic("x")], &request("http://a/")),
        None
    );
    assert!(descriptor(vec![custom(true), generic("x")], &request("http://a/")).is_some());
}
