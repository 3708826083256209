//! Documents that are somebody else's, with messages of Envoy's in them.

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use mesh_config::language::{Document, Language, Problems, Source};

fn document(text: &str) -> Document {
    let language = Language::reaching([
        "envoy.config.cluster.v3.Cluster",
        "envoy.extensions.filters.http.router.v3.Router",
    ]);
    Document::read(&Source::text("d.yaml", text), language).expect("yaml")
}

/// What is wrong with the message under `policy`.
fn refusal(text: &str) -> String {
    let document = document(text);
    let mut problems = Problems::new();
    let mut fields = document.root().fields(&mut problems).expect("a map");
    let part = fields.take("policy").expect("a policy");
    let name = "envoy.config.cluster.v3.OutlierDetection";
    let message: Option<OutlierDetection> = part.decode(name, &mut problems);
    assert!(message.is_none());
    document.check(problems).expect_err("a problem").to_string()
}

#[test]
fn a_part_is_read_as_envoys_message() {
    let document = document("list:\n- {consecutive_5xx: 3, interval: 2s}\n- {}\n");
    let mut problems = Problems::new();
    let mut fields = document.root().fields(&mut problems).expect("a map");
    let items = fields.take("list").expect("a list").items();
    let name = "envoy.config.cluster.v3.OutlierDetection";
    let first: OutlierDetection = items[0].decode(name, &mut problems).expect("a message");
    assert_eq!(first.consecutive_5xx.map(|n| n.value), Some(3));
    assert_eq!(first.interval.map(|d| d.seconds), Some(2));
    assert!(
        items[1]
            .decode::<OutlierDetection>(name, &mut problems)
            .is_some()
    );
    assert!(problems.is_empty());
    assert_eq!(items[1].path(), "list[1]");
}

#[test]
fn what_is_wrong_inside_of_a_part_has_its_own_line_and_path() {
    assert_eq!(
        refusal("policy:\n  consecutive_5x: 3\n"),
        "d.yaml:2:3: policy.consecutive_5x: envoy.config.cluster.v3.OutlierDetection has no such field, \
         did you mean \"consecutive_5xx\"?"
    );
    // A rule of the protos.
    let broken = refusal("policy:\n  consecutive_5xx: 3\n  interval: 0s\n");
    assert!(
        broken.starts_with("d.yaml:3:3: policy.interval: "),
        "{broken}"
    );
}

#[test]
fn fields_that_nobody_takes_are_not_known() {
    let document = document("a: 1\nendpoint: 2\nodd.key: {x: 1}\n");
    let mut problems = Problems::new();
    let mut fields = document.root().fields(&mut problems).expect("a map");
    assert_eq!(fields.take("a").and_then(|a| a.text()), Some("1"));
    assert!(fields.take("endpoints").is_none());
    fields.finish(&mut problems);
    let error = document
        .check(problems)
        .expect_err("two problems")
        .to_string();
    assert_eq!(
        error,
        "d.yaml:2:1: endpoint: there is no such field here, did you mean \"endpoints\"?\n\
         d.yaml:3:1: [\"odd.key\"]: there is no such field here; there are a, endpoints"
    );
}

#[test]
fn fields_of_a_message_stand_beside_others() {
    let document = document("mine: 1\nlb_policy: RANDOM\nconnect_timeout: 2s\n");
    let mut problems = Problems::new();
    let cluster: Option<Cluster> =
        document
            .root()
            .decode_fields("envoy.config.cluster.v3.Cluster", &["mine"], &mut problems);
    assert_eq!(
        cluster
            .expect("a cluster")
            .connect_timeout
            .map(|d| d.seconds),
        Some(2)
    );
    let wrong: Option<Cluster> =
        document
            .root()
            .decode_fields("envoy.config.cluster.v3.Cluster", &[], &mut problems);
    assert!(wrong.is_none());
    let error = document.check(problems).expect_err("mine").to_string();
    assert!(error.starts_with("d.yaml:1:1: mine: "), "{error}");
}

#[test]
fn a_part_may_name_its_type() {
    let text =
        "- {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a}\n- {name: b}\n";
    let document = document(text);
    let mut problems = Problems::new();
    let items = document.root().items();
    let any = items[0].any(&mut problems).expect("a cluster");
    assert_eq!(
        any.type_url,
        "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    );
    assert!(items[1].any(&mut problems).is_none());
    let error = document.check(problems).expect_err("no type").to_string();
    assert!(
        error.starts_with("d.yaml:2:3: [1]: \"@type\" is missing"),
        "{error}"
    );
}
