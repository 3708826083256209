//! Whatever the document, the answer comes soon, costs little, and is never a panic.

use std::fmt::Write as _;

use mesh_config::language::{
    ConfigError, DEPTH_MAX, DOCUMENT_BYTES_MAX, ProblemKind, Source, load_bootstrap,
};
use proptest::prelude::*;

fn refused(text: impl Into<String>) -> ConfigError {
    load_bootstrap(&Source::text("f", text)).map_or_else(|error| error, |_| panic!("was taken"))
}

fn kind_of(text: impl Into<String>) -> ProblemKind {
    refused(text).problems()[0].kind
}

#[test]
fn aliases_that_double_are_refused() {
    let mut text = String::from("a0: &a0 [[], []]\n");
    for level in 1..40 {
        let before = level - 1;
        writeln!(text, "a{level}: &a{level} [*a{before}, *a{before}]").expect("text");
    }
    let error = refused(text);
    assert_eq!(error.problems()[0].kind, ProblemKind::TooLarge);
    assert!(
        error.to_string().contains("values, aliases followed"),
        "{error}"
    );
}

#[test]
fn a_long_text_repeated_by_aliases_is_refused() {
    let mut text = format!("a: &a {}\nb: [", "x".repeat(1 << 20));
    text.push_str(&"*a, ".repeat(50));
    text.push(']');
    assert_eq!(kind_of(text), ProblemKind::TooLarge);
}

#[test]
fn an_alias_of_what_contains_it_is_refused() {
    assert_eq!(kind_of("node: &a {metadata: {x: *a}}"), ProblemKind::Syntax);
    assert_eq!(kind_of("node: &a [*a]"), ProblemKind::Syntax);
    assert_eq!(kind_of("*a : &a b"), ProblemKind::Syntax);
}

#[test]
fn nesting_by_aliases_counts_as_nesting() {
    let mut text = String::from("a0: &a0 [x]\n");
    for level in 1..=DEPTH_MAX {
        writeln!(text, "a{level}: &a{level} [*a{}]", level - 1).expect("text");
    }
    assert_eq!(kind_of(text), ProblemKind::TooLarge);
}

#[test]
fn deep_nesting_is_refused_in_any_style() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        (0..2_000)
            .map(|level| format!("{}a:\n", " ".repeat(level)))
            .collect(),
        format!(
            "node: {{metadata: {{a: {}{}}}}}",
            "[".repeat(DEPTH_MAX),
            "]".repeat(DEPTH_MAX)
        ),
    ] {
        let kind = kind_of(text.as_str());
        assert!(
            matches!(kind, ProblemKind::Syntax | ProblemKind::TooLarge),
            "{kind:?}"
        );
    }
}

#[test]
fn what_protobuf_cannot_hold_is_refused_and_not_lost() {
    // Shallow enough to read, too deep for its messages: three of them to a map.
    let text = format!(
        "node: {{metadata: {}1{}}}",
        "{a: ".repeat(60),
        "}".repeat(60)
    );
    assert_eq!(kind_of(text), ProblemKind::TooLarge);
}

#[test]
fn a_document_of_too_many_bytes_is_refused_unread() {
    assert_eq!(
        kind_of(" ".repeat(DOCUMENT_BYTES_MAX + 1)),
        ProblemKind::TooLarge
    );
}

#[test]
fn a_document_of_too_many_values_is_refused() {
    let text = format!("node: {{metadata: {{a: [{}]}}}}", "1,".repeat(400_000));
    assert_eq!(kind_of(text), ProblemKind::TooLarge);
}

#[test]
fn a_document_whose_messages_would_fill_memory_is_refused() {
    // Small in the file, large in memory: every cluster has room for all its fields.
    let clusters = "{name: a},".repeat(60_000);
    let error = refused(format!("static_resources: {{clusters: [{clusters}]}}"));
    assert_eq!(error.problems()[0].kind, ProblemKind::TooLarge);
    assert!(error.to_string().contains("MiB of messages"), "{error}");
}

#[test]
fn five_thousand_routes_are_not_too_many() {
    let route = "{match: {path: /some/where}, route: {cluster: c, timeout: 1s}},";
    let text = format!(
        "static_resources: {{listeners: [{{filter_chains: [{{filters: [{{name: hcm, typed_config: {{
            '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
            stat_prefix: s, route_config: {{virtual_hosts: [{{name: v, domains: '*', routes: [{}]}}]}}}}}}]}}]}}]}}",
        route.repeat(5_000)
    );
    load_bootstrap(&Source::text("f", text)).expect("taken");
}

#[test]
fn many_unknown_types_do_not_cost_a_comparison_each() {
    let one = "{typed_config: {'@type': a/envoy.extensions.filters.http.router.v3.Routr}},";
    let error = refused(format!("bootstrap_extensions: [{}]", one.repeat(20_000)));
    assert!(error.left_out() > 19_000);
}

#[test]
fn a_file_without_end_is_refused() {
    let error = Source::file("/dev/zero").expect_err("endless");
    assert_eq!(error.problems()[0].kind, ProblemKind::TooLarge);
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_refused() {
    let error = Source::file("/nowhere/at/all.yaml").expect_err("missing");
    assert_eq!(error.problems()[0].kind, ProblemKind::Unreadable);
    assert!(
        error.to_string().starts_with("/nowhere/at/all.yaml: "),
        "{error}"
    );

    let path = std::env::temp_dir().join(format!("not-utf-8-{}.yaml", std::process::id()));
    std::fs::write(&path, b"node:\n  id: \xff\n").expect("written");
    let error = Source::file(&path).expect_err("not text");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(error.problems()[0].position.map(|at| at.line), Some(2));
}

/// Pieces that make something near a config more often than mere letters do.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "static_resources:",
            "clusters:",
            "- name: a",
            "node: {",
            "metadata:",
            "}",
            "[",
            "]",
            ",",
            "\n",
            "\n  ",
            "\n    ",
            " ",
            "&a ",
            "*a",
            "'",
            "\"",
            "|\n",
            ">-\n",
            "!x ",
            "? ",
            ": ",
            "- ",
            "@type",
            "type.googleapis.com/google.protobuf.Struct",
            "null",
            "~",
            "010",
            "0x1",
            "1.5",
            "connect_timeout: 1s",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
            "<<: ",
            "\u{feff}",
            "\t",
            "\0",
            "é",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gets_an_answer(pieces in proptest::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        if let Err(error) = load_bootstrap(&Source::text("f", text)) {
            prop_assert!(!error.problems().is_empty());
            for problem in error.problems() {
                prop_assert!(!problem.reason.is_empty());
                prop_assert!(problem.reason.len() < 4_000);
            }
        }
    }

    #[test]
    fn any_value_in_any_place_gets_an_answer(
        field in proptest::sample::select(vec![
            "name", "type", "connect_timeout", "metadata", "load_assignment", "circuit_breakers",
            "typed_extension_protocol_options", "lb_policy", "health_checks", "transport_socket", "<<",
        ]),
        value in piece(),
    ) {
        let text = format!("static_resources:\n  clusters:\n  - {field}: {value}\n");
        if let Ok(loaded) = load_bootstrap(&Source::text("f", text)) {
            prop_assert!(loaded.to_json().is_object());
        }
    }
}
