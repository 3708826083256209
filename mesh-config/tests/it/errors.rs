//! What people read when a config is wrong.

use mesh_config::language::{ConfigError, Problem, ProblemKind, Problems, Source, load_bootstrap};

fn refused(text: &str) -> ConfigError {
    load_bootstrap(&Source::text("mesh.yaml", text))
        .map_or_else(|error| error, |_| panic!("was taken"))
}

fn only(text: &str) -> Problem {
    let error = refused(text);
    assert_eq!(error.problems().len(), 1, "{error}");
    error.problems()[0].clone()
}

const LISTENER: &str = "\
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
";

#[test]
fn an_unknown_field_is_named_with_file_line_column_path_and_what_was_meant() {
    let text = "static_resources:\n  clusters:\n  - name: c\n    conect_timeout: 1s\n";
    assert_eq!(
        refused(text).to_string(),
        "mesh.yaml:4:5: static_resources.clusters[0].conect_timeout: \
         envoy.config.cluster.v3.Cluster has no such field, did you mean \"connect_timeout\"?"
    );
}

#[test]
fn a_field_that_is_gone_is_called_gone() {
    let problem = only("static_resources: {clusters: [{name: c, hosts: []}]}");
    assert_eq!(problem.kind, ProblemKind::UnknownField);
    assert!(problem.reason.contains("no longer"), "{}", problem.reason);
}

#[test]
fn the_path_goes_on_inside_an_any_and_the_line_is_that_of_the_key() {
    let text = format!("{LISTENER}          route_config:\n            virtual_host: []\n");
    let problem = only(&text);
    assert_eq!(
        problem.path,
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_host"
    );
    assert_eq!(
        problem.position.map(|at| (at.line, at.column)),
        Some((12, 13))
    );
    assert!(
        problem.reason.contains("did you mean \"virtual_hosts\"?"),
        "{}",
        problem.reason
    );
}

#[test]
fn a_broken_rule_inside_an_any_has_a_line_too() {
    let text = format!(
        "{LISTENER}          route_config:\n            virtualHosts:\n            - domains: [a]\n"
    );
    let problem = only(&text);
    assert_eq!(problem.kind, ProblemKind::BrokenRule);
    assert!(
        problem
            .path
            .ends_with("typed_config.route_config.virtual_hosts[0].name"),
        "{}",
        problem.path
    );
    assert_eq!(problem.position.map(|at| at.line), Some(13));
    assert_eq!(problem.reason, "must be at least 1 characters long");
}

#[test]
fn a_rule_broken_inside_a_typed_struct_points_into_it() {
    let text = format!(
        "{LISTENER}          route_config: {{}}
          http_filters:
          - name: buffer
            typed_config:
              '@type': type.googleapis.com/xds.type.v3.TypedStruct
              type_url: type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
              value:
                max_request_bytes: 0
"
    );
    let problem = only(&text);
    assert!(
        problem
            .path
            .ends_with("http_filters[0].typed_config.max_request_bytes"),
        "{}",
        problem.path
    );
    assert_eq!(
        problem.position.map(|at| (at.line, at.column)),
        Some((18, 17))
    );
    assert_eq!(problem.reason, "must be more than 0");
}

#[test]
fn an_unknown_type_is_named_with_what_was_meant() {
    let text = LISTENER.replace("HttpConnectionManager\n", "HttpConectionManager\n");
    let problem = only(&text);
    assert_eq!(problem.kind, ProblemKind::UnknownType);
    assert_eq!(problem.position.map(|at| at.line), Some(9));
    assert!(
        problem.reason.contains("is not known, did you mean"),
        "{}",
        problem.reason
    );
    assert!(
        problem.reason.contains(".HttpConnectionManager\""),
        "{}",
        problem.reason
    );
}

#[test]
fn a_type_of_version_two_is_called_that() {
    let any = "{'@type': type.googleapis.com/envoy.config.filter.http.fault.v2.HTTPFault}";
    let problem = only(&format!(
        "bootstrap_extensions: [{{name: a, typed_config: {any}}}]"
    ));
    assert!(problem.reason.contains("version 2"), "{}", problem.reason);
}

#[test]
fn a_wrong_enum_lists_the_right_ones() {
    let problem = only("static_resources: {clusters: [{name: c, type: DNS}]}");
    assert_eq!(problem.kind, ProblemKind::WrongEnum);
    assert_eq!(
        problem.reason,
        "\"DNS\" is not one of STATIC, STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST"
    );
}

#[test]
fn a_wrong_type_says_what_is_wanted_and_what_is_there() {
    for (field, reason) in [
        ("name: 5", "expected text (put it in quotes), found 5"),
        (
            "connect_timeout: 5",
            "expected text such as \"0.25s\", found 5",
        ),
        (
            "connect_timeout: 5ms",
            "a duration must start with a whole number of seconds, as \"0.25s\" does",
        ),
        ("respect_dns_ttl: 3", "expected true or false, found 3"),
        (
            "metadata: []",
            "expected a map with the fields of envoy.config.core.v3.Metadata, found a list",
        ),
        (
            "per_connection_buffer_limit_bytes: -1",
            "expected an integer from 0 to 4294967295, found -1",
        ),
    ] {
        let error = refused(&format!(
            "static_resources: {{clusters: [{{name: c, {field}}}]}}"
        ));
        assert!(
            error.problems().iter().any(|p| p.reason == reason),
            "{field}: {error}"
        );
    }
}

#[test]
fn two_members_of_a_oneof_are_named() {
    let address = "{socket_address: {address: a, port_value: 1, named_port: b}}";
    let problem = only(&format!("admin: {{address: {address}}}"));
    assert_eq!(problem.kind, ProblemKind::OneofTwice);
    assert_eq!(
        problem.reason,
        "only one of port_value and named_port may be set (oneof port_specifier)"
    );
}

#[test]
fn a_required_choice_names_its_members() {
    let problem = only("admin: {address: {}}");
    assert_eq!(problem.path, "admin.address");
    assert!(
        problem.reason.starts_with("one of socket_address, pipe, "),
        "{}",
        problem.reason
    );
}

#[test]
fn broken_yaml_has_a_line() {
    let error = refused("static_resources:\n  clusters: [{name: c\nadmin: {}\n");
    assert_eq!(error.problems()[0].kind, ProblemKind::Syntax);
    assert!(
        error.problems()[0].position.is_some_and(|at| at.line >= 2),
        "{error}"
    );
    assert!(error.to_string().contains("not YAML"), "{error}");
}

#[test]
fn an_empty_document_is_refused_and_a_scalar_too() {
    assert!(refused("").to_string().contains("empty"));
    assert!(refused("hello").to_string().contains("expected a map"));
}

#[test]
fn several_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text =
        "static_resources:\n  clusters:\n  - nme: c\n  - name: d\n    type: X\n    bogus: 1\n";
    let error = refused(text);
    let lines: Vec<_> = error
        .problems()
        .iter()
        .filter_map(|p| p.position)
        .map(|at| at.line)
        .collect();
    assert_eq!(lines, [3, 5, 6]);
    assert_eq!(error.to_string().lines().count(), 3);
}

#[test]
fn a_secret_never_appears_in_an_error() {
    let certificate = "{private_key: {inline_strin: hunter2, inline_string: hunter2, filename: hunter2}, \
                       password: hunter2, ocsp_staple: {inline_bytes: hunter2!}}";
    let context = format!(
        "{{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
         common_tls_context: {{tls_certificates: [{certificate}]}}}}"
    );
    let text = format!(
        "static_resources: {{clusters: [{{name: c, transport_socket: {{name: t, typed_config: {context}}}}}]}}"
    );
    let error = refused(&text);
    assert!(error.problems().len() >= 3, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn problems_of_a_conversion_get_their_lines() {
    let text = "static_resources:\n  clusters:\n  - name: c\n    connectTimeout: 1s\n";
    let loaded = load_bootstrap(&Source::text("mesh.yaml", text)).expect("taken");
    let mut problems = Problems::new();
    problems.invalid(
        "static_resources.clusters[0].connect_timeout",
        "is too short",
    );
    problems.invalid(
        "static_resources.clusters[0].load_assignment.endpoints",
        "must be set",
    );
    let error = loaded.check(problems).expect_err("problems");
    assert_eq!(
        error.to_string(),
        "mesh.yaml:4:5: static_resources.clusters[0].connect_timeout: is too short\n\
         mesh.yaml:3:5: static_resources.clusters[0].load_assignment.endpoints: must be set"
    );
}
