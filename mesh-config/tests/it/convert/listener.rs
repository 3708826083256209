//! Listeners and filter chains.

use std::{path::PathBuf, sync::Arc};

use mesh_config::model::{ListenerFilter, TlsInspectorConfig};
use mesh_core::{Address, ConnectionInfo};
use mesh_net::{BindOptions, SocketOption, proxy_protocol::ProxyVersion};

use super::{
    ADDRESS, assert_refused, bare_manager_text, config, listener_text, manager_text, paths, report,
};

const HCM: &str = "{name: hcm, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
    stat_prefix: i, route_config: {name: r}, \
    http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}";

fn with(fields: &str) -> String {
    listener_text(&format!(
        "{ADDRESS}\nfilter_chains: [{{filters: [{HCM}]}}]\n{fields}"
    ))
}

#[test]
fn everything_that_a_listener_says_is_kept() {
    let config = config(&listener_text(&format!(
        "name: front\naddress: {{pipe: {{path: /run/front, mode: 384}}}}\nstat_prefix: edge\nenable_reuse_port: false\n\
         default_filter_chain: {{filters: [{HCM}]}}"
    )));
    let listener = &config.listeners[0];
    assert_eq!(&*listener.name, "front");
    assert_eq!(
        listener.addresses[0].address,
        Address::Unix(PathBuf::from("/run/front"))
    );
    assert_eq!(listener.stat_prefix.as_deref(), Some("edge"));
    assert!(!listener.reuse_port);
    assert_eq!(listener.addresses[0].bind.mode, Some(384));
    assert!(config.report.is_empty(), "{:?}", config.report);
}

#[test]
fn defaults_are_envoys() {
    let config = config(&with(""));
    let listener = &config.listeners[0];
    assert_eq!(
        (&*listener.name, listener.stat_prefix.as_deref()),
        ("127.0.0.1:0", None)
    );
    assert!(listener.reuse_port);
}

#[test]
fn sockets_are_made_as_asked_for() {
    let config = config(&listener_text(&format!(
        "address: {{socket_address: {{address: '::', port_value: 0, ipv4_compat: true}}}}\ntcp_backlog_size: 7\n\
         freebind: true\ntransparent: true\nfilter_chains: [{{filters: [{HCM}]}}]"
    )));
    let bind = &config.listeners[0].addresses[0].bind;
    assert_eq!(
        *bind,
        BindOptions {
            backlog: 7,
            ipv4_compat: true,
            freebind: true,
            transparent: true,
            mode: None,
            options: Vec::new(),
        }
    );
    assert!(config.report.is_empty(), "{:?}", config.report);
}

#[test]
fn listeners_without_names_get_different_ones() {
    let one = format!("{{{ADDRESS}, filter_chains: [{{filters: [{HCM}]}}]}}");
    let config = config(&format!("static_resources: {{listeners: [{one}, {one}]}}"));
    let names: Vec<&str> = config
        .listeners
        .iter()
        .map(|listener| &*listener.name)
        .collect();
    assert_eq!(names, ["127.0.0.1:0", "127.0.0.1:0#2"]);
}

#[test]
fn names_and_addresses_belong_to_one_listener() {
    let two = |first: &str, second: &str| {
        let chain = format!("filter_chains: [{{filters: [{HCM}]}}]");
        format!(
            "static_resources:\n  listeners:\n  - {{{first}, {chain}}}\n  - {{{second}, {chain}}}\n"
        )
    };
    let address =
        |port| format!("address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}");
    assert_refused(
        &two(
            &format!("name: a, {}", address(1)),
            &format!("name: a, {}", address(2)),
        ),
        "port_value: 2",
        "static_resources.listeners[1].name",
        "there is another listener named \"a\"",
    );
    assert_refused(
        &two(
            &format!("name: a, {}", address(1)),
            &format!("name: b, {}", address(1)),
        ),
        "name: b",
        "static_resources.listeners[1].address",
        "the listener \"a\" has the same address, 127.0.0.1:1",
    );
}

#[test]
fn what_nobody_could_connect_to_is_refused() {
    let refused = |fields: &str, needle, path: &str, reason| {
        let path = format!("static_resources.listeners[0]{path}");
        assert_refused(&listener_text(fields), needle, &path, reason);
    };
    let nowhere = "there is no filter chain: connections would go nowhere";
    refused(ADDRESS, "address: {", "", nowhere);
    refused("name: a", "name: a", "", "address is missing");
    refused(
        &format!("{ADDRESS}\nfilter_chains: [{{}}]"),
        "filter_chains",
        ".filter_chains[0].filters",
        "there is no network filter: connections would go nowhere",
    );
    refused(
        &format!("{ADDRESS}\nfilter_chains:\n- filters:\n  - {{name: a}}"),
        "{name: a}",
        ".filter_chains[0].filters[0]",
        "typed_config is missing",
    );
    refused(
        "address: {socket_address: {address: 127.0.0.1, named_port: http}}",
        "named_port",
        ".address.socket_address.named_port",
        "named ports are not supported: write port_value",
    );
    refused(
        "address: {socket_address: {protocol: UDP, address: 127.0.0.1, port_value: 1}}",
        "UDP",
        ".address.socket_address.protocol",
        "UDP is not supported",
    );
    refused(
        &format!(
            "address: {{pipe: {{path: '@a', mode: 384}}}}\nfilter_chains: [{{filters: [{HCM}]}}]"
        ),
        "pipe",
        ".address.pipe.mode",
        "an abstract socket has no mode",
    );
    refused(
        &format!("{ADDRESS}\napi_listener: {{}}"),
        "api_listener",
        ".api_listener",
        "listeners other than TCP and Unix sockets are not supported",
    );
}

#[test]
fn a_listener_has_several_chains_and_says_which_takes_whom() {
    let chain = |name: &str, matches: &str| {
        format!("- {{name: {name}, filter_chain_match: {{{matches}}}, filters: [{HCM}]}}")
    };
    let text = format!(
        "{ADDRESS}\nfilter_chains:\n{}\n{}\n{}\ndefault_filter_chain: {{name: rest, filters: [{HCM}]}}",
        chain(
            "port",
            "destination_port: 80, transport_protocol: raw_buffer"
        ),
        chain(
            "near",
            "source_type: SAME_IP_OR_LOOPBACK, source_ports: [7], direct_source_prefix_ranges: [{address_prefix: '::1', prefix_len: 128}]"
        ),
        chain(
            "net",
            "source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], prefix_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]"
        ),
    );
    let config = config(&listener_text(&text));
    assert!(config.report.is_empty(), "{:?}", config.report);
    let listener = &config.listeners[0];
    let found = |local: &str, peer: &str| {
        let connection = ConnectionInfo::new(1, local.parse().ok(), peer.parse().ok());
        let number = listener
            .matcher
            .find(&connection)
            .or(listener.default_chain);
        listener.chains[number.unwrap()].name.to_string()
    };
    assert_eq!(found("127.0.0.1:80", "127.0.0.1:7"), "port");
    assert_eq!(found("[::1]:81", "[::1]:7"), "near");
    assert_eq!(found("[::1]:81", "[::1]:8"), "rest");
    assert_eq!(found("192.0.2.1:81", "10.1.2.3:7"), "net");
    let [port, near, ..] = &listener.chains[..] else {
        panic!()
    };
    assert_ne!(port.fingerprint, near.fingerprint);
}

#[test]
fn a_match_that_makes_no_sense_is_refused() {
    for (matches, path, reason) in [
        (
            "server_names: ['a*']",
            ".server_names[0]",
            "\"a*\" is not a server name: a wildcard must be the whole first label, as in *.example.com",
        ),
        (
            "prefix_ranges: [{address_prefix: a}]",
            ".prefix_ranges[0].address_prefix",
            "\"a\" is not an IP address",
        ),
    ] {
        let text = format!(
            "{ADDRESS}\nfilter_chains: [{{filter_chain_match: {{{matches}}}, filters: [{HCM}]}}]"
        );
        let path =
            format!("static_resources.listeners[0].filter_chains[0].filter_chain_match{path}");
        assert_refused(&listener_text(&text), "filter_chain_match", &path, reason);
    }
}

#[test]
fn equal_filter_chains_are_refused() {
    assert_refused(
        &listener_text(&format!(
            "{ADDRESS}\nfilter_chains:\n- filters: [{HCM}]\n- filters: [{HCM}]\n  name: second"
        )),
        // The chain stands where its first field does.
        "- filters",
        "static_resources.listeners[0].filter_chains[1]",
        "takes connections that filter_chains[0] takes",
    );
}

#[test]
fn what_guards_a_listener_is_about_security() {
    let filters = report(&with(
        "listener_filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}]",
    ));
    let mut found = filters
        .iter()
        .filter(|(path, ..)| path.contains("listener_filters[0]"));
    assert!(found.any(|(.., security)| *security), "{filters:?}");
    for (chain, path) in [
        (
            "filter_chain_match: {address_suffix: a}",
            "filter_chain_match.address_suffix",
        ),
        ("use_proxy_proto: true", "use_proxy_proto"),
        (
            "transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.alts.v3.Alts, handshaker_service: a}}",
            "transport_socket.typed_config",
        ),
    ] {
        let text = listener_text(&format!(
            "{ADDRESS}\nfilter_chains: [{{filters: [{HCM}], {chain}}}]"
        ));
        let path = format!("static_resources.listeners[0].filter_chains[0].{path}");
        assert_eq!(report(&text), [(path, None, true)]);
    }
}

#[test]
fn an_empty_match_and_a_plain_socket_guard_nothing() {
    let text = listener_text(&format!(
        "{ADDRESS}\nfilter_chains: [{{filters: [{HCM}], filter_chain_match: {{}}, transport_socket: {{name: raw, \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}}}]"
    ));
    assert_eq!(paths(&text), Vec::<String>::new());
}

#[test]
fn a_network_filter_that_is_not_there_keeps_the_listener_shut() {
    let echo = "{name: echo, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}";
    let text = listener_text(&format!(
        "{ADDRESS}\nfilter_chains: [{{filters: [{echo}]}}]"
    ));
    assert!(config(&text).listeners.is_empty());
    let path = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config".to_owned();
    assert_eq!(report(&text), [(path, None, true)]);
}

#[test]
fn mistakes_in_a_further_filter_chain_are_told_too() {
    let text = with("default_filter_chain: {filters: [{name: a}]}");
    assert_refused(
        &text,
        "default_filter_chain",
        "static_resources.listeners[0].default_filter_chain.filters[0]",
        "typed_config is missing",
    );
}

#[test]
fn a_second_connection_manager_is_never_reached() {
    let text = listener_text(&format!(
        "{ADDRESS}\nfilter_chains:\n- filters:\n  - {HCM}\n  - {HCM}"
    ));
    assert_refused(
        &text,
        HCM,
        "static_resources.listeners[0].filter_chains[0].filters[1].typed_config",
        "the filter before it ends the chain: nothing would get here",
    );
}

#[test]
fn buffer_limits_of_a_listener_are_those_of_its_retries() {
    let text = manager_text("").replace(
        "name: l\n",
        "name: l\n    per_connection_buffer_limit_bytes: 77\n",
    );
    let config = config(&text);
    let routes = &config.listeners[0].manager().unwrap().routes;
    let retry = routes
        .routes()
        .next()
        .unwrap()
        .policy()
        .retry
        .clone()
        .unwrap();
    assert_eq!(retry.request_body_buffer_limit, 77);
    let refused = bare_manager_text("stat_prefix: i\nhttp_filters: []\nroute_config: {}");
    assert_refused(
        &refused,
        "typed_config",
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config",
        "the last filter must be the router, envoy.filters.http.router",
    );
}

#[test]
fn listener_filters_that_are_known_are_kept_in_order() {
    let typed = |name: &str, fields: &str| {
        format!(
            "{{name: f, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.{name}{fields}}}}}"
        )
    };
    let filters = [
        typed(
            "proxy_protocol.v3.ProxyProtocol",
            ", allow_requests_without_proxy_protocol: true, disallowed_versions: [V2], stat_prefix: p",
        ),
        typed("original_dst.v3.OriginalDst", ""),
        typed(
            "tls_inspector.v3.TlsInspector",
            ", max_client_hello_size: 1000, enable_ja4_fingerprinting: true, close_connection_on_client_hello_parsing_errors: true",
        ),
    ];
    let fields = format!(
        "listener_filters: [{}]\nlistener_filters_timeout: 0s\ncontinue_on_listener_filters_timeout: true",
        filters.join(", ")
    );
    let config = config(&with(&fields));
    assert!(config.report.is_empty(), "{:?}", config.report);
    let listener = &config.listeners[0];
    let [
        ListenerFilter::ProxyProtocol(proxy),
        ListenerFilter::OriginalDst,
        ListenerFilter::TlsInspector(tls),
    ] = listener.listener_filters.as_slice()
    else {
        panic!("{listener:?}")
    };
    assert!(proxy.allow_requests_without_proxy_protocol);
    assert_eq!(proxy.disallowed_versions, [ProxyVersion::V2]);
    assert_eq!(&*proxy.stat_prefix, "p");
    let expected = TlsInspectorConfig {
        first_look: 1000,
        close_on_parsing_errors: true,
        client_hello_max: 1000,
        ja3: false,
        ja4: true,
    };
    assert_eq!(*tls, expected);
    assert_eq!(listener.listener_filters_timeout, None);
    assert!(listener.continue_on_listener_filters_timeout);
    let default = self::config(&with(""));
    let timeout = default.listeners[0].listener_filters_timeout;
    assert_eq!(timeout, Some(std::time::Duration::from_secs(15)));
}

#[test]
fn options_are_for_the_sockets_that_they_name() {
    let text = with(
        "socket_options: [{description: d, level: 1, name: 2, int_value: 3, state: STATE_BOUND, ip_version: SOCKET_IP_VERSION_IPV6}, \
         {level: 4, name: 5, buf_value: YWI=}, {level: 6, name: 7, int_value: 8, type: {datagram: {}}}]\n\
         tcp_fast_open_queue_length: 9\ntcp_keepalive: {keepalive_time: 10}\n\
         additional_addresses:\n- address: {socket_address: {address: 127.0.0.2, port_value: 0}}\n\
         - {address: {pipe: {path: /x}}, socket_options: {}}\n\
         - {address: {socket_address: {address: 127.0.0.3, port_value: 0}}, socket_options: {socket_options: [{level: 1, name: 1, int_value: 1}]}, tcp_keepalive: {keepalive_probes: 0}}",
    );
    let config = config(&text);
    assert!(config.report.is_empty(), "{:?}", config.report);
    let listener = &config.listeners[0];
    let texts: Vec<Vec<String>> = listener
        .addresses
        .iter()
        .map(|address| {
            let options = address.bind.options.iter();
            options
                .map(|option| {
                    let SocketOption {
                        level,
                        name,
                        value,
                        state,
                        family,
                        ..
                    } = option;
                    format!("{level}/{name} {value:?} {state:?} {family:?}")
                })
                .collect()
        })
        .collect();
    let own = [
        "1/2 Int(3) Bound Some(V6)",
        "4/5 Bytes([97, 98]) Prebind None",
        "1/9 Int(1) Prebind None",
        "6/4 Int(10) Prebind None",
        "6/23 Int(9) Listening None",
    ];
    assert_eq!(texts[0], own);
    assert_eq!(texts[1], own, "inherited");
    assert!(texts[2].is_empty(), "replaced by nothing");
    assert_eq!(
        texts[3],
        ["1/1 Int(1) Prebind None", "6/23 Int(9) Listening None"],
        "replaced, and no probes"
    );
}

#[test]
fn what_a_listener_does_with_connections_is_read() {
    let read = |fields: &str| Arc::clone(&config(&with(fields)).listeners[0]);
    let plain = read("");
    assert!(plain.bind_to_port && !plain.use_original_dst && !plain.exact_balance);
    assert!(plain.access_log.is_empty());
    assert!(!read("bind_to_port: false").bind_to_port);
    assert!(read("use_original_dst: true").use_original_dst);
    assert!(read("connection_balance_config: {exact_balance: {}}").exact_balance);
    let log = read(
        "access_log: [{name: f, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}]",
    );
    assert_eq!(log.access_log.len(), 1);
    let odd = paths(&with(
        "connection_balance_config: {cpu_locality_balance: {}}",
    ));
    assert_eq!(
        odd,
        ["static_resources.listeners[0].connection_balance_config.cpu_locality_balance"]
    );
}

#[test]
fn additional_addresses_belong_to_one_listener() {
    let address = |port| format!("{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}");
    let text = listener_text(&format!(
        "address: {}\nfilter_chains: [{{filters: [{HCM}]}}]\nadditional_addresses: [{{address: {}}}, {{address: {}}}]",
        address(0),
        address(0),
        address(7)
    ));
    assert_eq!(config(&text).listeners[0].addresses.len(), 3);
    let chain = format!("filter_chains: [{{filters: [{HCM}]}}]");
    let two = format!(
        "static_resources:\n  listeners:\n  - {{name: a, address: {}, {chain}}}\n  - {{name: b, address: {}, {chain}, additional_addresses: [{{address: {}}}]}}",
        address(5),
        address(6),
        address(5)
    );
    assert_refused(
        &two,
        "name: b",
        "static_resources.listeners[1].address",
        "the listener \"a\" has the same address, 127.0.0.1:5",
    );
    assert_refused(
        &with("socket_options: [{level: 1, name: 2}]"),
        "socket_options",
        "static_resources.listeners[0].socket_options[0]",
        "one of int_value, buf_value must be set (value)",
    );
}
