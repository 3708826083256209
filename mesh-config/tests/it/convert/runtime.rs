use mesh_config::{LoadOptions, language::Source, load};
use mesh_core::runtime::{Runtime, RuntimeValue};

use super::{config, paths, refusal};

fn value(runtime: &Runtime, key: &str) -> Option<String> {
    let snapshot = runtime.snapshot();
    let values = snapshot.entries.get(key)?;
    mesh_core::runtime::Snapshot::final_value(values).map(str::to_owned)
}

#[test]
fn maps_are_flattened_and_fractions_are_values() {
    let config = config(
        "layered_runtime: {layers: [\
         {name: base, static_layer: {a: {b: 1, c: {d: text}}, e: {numerator: 5, denominator: MILLION}, f: true, g: '7'}},\
         {name: top, static_layer: {a: {b: 2.5}}}, {name: people, admin_layer: {}}]}",
    );
    let shown = |key: &str| value(&config.runtime, key);
    assert_eq!(shown("a.b").as_deref(), Some("2.5"));
    assert_eq!(shown("a.c.d").as_deref(), Some("text"));
    assert_eq!(shown("f").as_deref(), Some("true"));
    assert_eq!(
        shown("e"),
        Some(RuntimeValue::text("{numerator: 5, denominator: MILLION}").to_string())
    );
    assert_eq!(config.runtime.key("g").integer(), Some(7));
    assert_eq!(config.runtime.snapshot().layers.len(), 3);
    assert!(config.runtime.modify(&[("x".into(), "1".into())]).is_ok());
}

#[test]
fn layers_that_make_no_sense_are_refused() {
    let layers = |layers: &str| refusal(&format!("layered_runtime: {{layers: [{layers}]}}"));
    let twice = layers("{name: a, static_layer: {}}, {name: a, static_layer: {}}");
    assert!(
        twice.contains("layers[1].name: there is another layer named \"a\""),
        "{twice}"
    );
    let admins = layers("{name: a, admin_layer: {}}, {name: b, admin_layer: {}}");
    assert!(admins.contains("layers[1].admin_layer: "), "{admins}");
    let list = layers("{name: a, static_layer: {b: [1]}}");
    assert!(
        list.contains("static_layer[\"b\"]: a runtime value is"),
        "{list}"
    );
    let fraction = layers("{name: a, static_layer: {b: {numerator: 1, denominator: TEN}}}");
    assert!(
        fraction.contains("this is no fractional percent"),
        "{fraction}"
    );
}

#[test]
fn a_bootstrap_that_is_refused_changes_no_runtime() {
    let options = LoadOptions::default();
    let text = "layered_runtime: {layers: [{name: a, static_layer: {k: 1}}]}";
    let bad = format!(
        "{text}\nstatic_resources: {{clusters: [{{name: a, lb_policy: MAGLEV}}, {{name: a}}]}}"
    );
    assert!(load(&Source::text("f", &bad), &options).is_err());
    assert_eq!(options.runtime.key("k").integer(), None);
    load(&Source::text("f", text), &options).unwrap();
    assert_eq!(options.runtime.key("k").integer(), Some(1));
}

#[test]
fn layers_from_elsewhere_are_reported() {
    let layers = "layered_runtime: {layers: [{name: d, disk_layer: {symlink_root: /srv}}]}";
    assert_eq!(paths(layers), ["layered_runtime.layers[0].disk_layer"]);
}

#[test]
fn a_key_that_is_not_read_is_reported_where_a_layer_has_it() {
    let cluster = "static_resources: {clusters: [{name: a, lb_policy: LEAST_REQUEST, \
        least_request_lb_config: {active_request_bias: {default_value: 1, runtime_key: bias}}}]}";
    assert_eq!(paths(cluster), Vec::<String>::new());
    let with =
        format!("layered_runtime: {{layers: [{{name: a, static_layer: {{bias: 2}}}}]}}\n{cluster}");
    assert_eq!(
        paths(&with),
        ["static_resources.clusters[0].least_request_lb_config.active_request_bias.runtime_key"]
    );
}
