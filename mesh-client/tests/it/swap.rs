//! A config push swaps what changed, and keeps what was learnt.

use std::sync::Arc;

use mesh_core::HealthFlag;

use crate::support::{Upstream, bootstrap, client, cluster, get};

const ROUTES: &str = "[{match: {prefix: /}, route: {cluster: a}}]";
const OUTLIER: &str = "outlier_detection: {consecutive_5xx: 2, max_ejection_percent: 50, base_ejection_time: 600s, interval: 600s},";

#[tokio::test]
async fn an_ejection_outlives_a_push_that_changes_the_cluster() {
    let (bad, good) = (Upstream::start(&[503]).await, Upstream::start(&[200]).await);
    let clusters = |more: &str| format!("[{}]", cluster("a", &[bad.port, good.port], more));
    let client = client(bootstrap(ROUTES, &clusters(OUTLIER))).await.unwrap();
    for _ in 0..6 {
        get(&client, "/").await.0.unwrap();
    }
    let ejected = |client: &mesh_client::MeshClient| {
        let set = client.mesh().clusters().list()[0].endpoints();
        set.endpoints().iter().filter(|e| e.state.has(HealthFlag::FailedOutlier)).count()
    };
    assert_eq!(ejected(&client), 1);
    let changed = format!("{OUTLIER} connect_timeout: 2s,");
    client.mesh().apply(&bootstrap(ROUTES, &clusters(&changed))).unwrap();
    assert_eq!(ejected(&client), 1);
    let before = bad.count();
    for _ in 0..6 {
        assert_eq!(get(&client, "/").await.0.unwrap().0, 200);
    }
    assert_eq!(bad.count(), before);
}

#[tokio::test]
async fn requests_follow_a_push_to_other_endpoints_and_counters_go_on() {
    let (old, new) = (Upstream::start(&[200]).await, Upstream::start(&[200]).await);
    let config = |port| bootstrap(ROUTES, &format!("[{}]", cluster("a", &[port], "")));
    let client = client(config(old.port)).await.unwrap();
    get(&client, "/").await.0.unwrap();
    client.mesh().apply(&config(new.port)).unwrap();
    get(&client, "/").await.0.unwrap();
    assert_eq!((old.count(), new.count()), (1, 1));
    let stats = client.mesh().registry().snapshot();
    let total = stats.iter().find(|stat| stat.name == "cluster.a.upstream_rq_total").unwrap();
    assert_eq!(total.value, mesh_core::stats::Value::Counter(2));
}

#[tokio::test]
async fn an_unchanged_cluster_is_kept_as_it_is() {
    let upstream = Upstream::start(&[200]).await;
    let config = bootstrap(ROUTES, &format!("[{}]", cluster("a", &[upstream.port], "")));
    let client = client(config.clone()).await.unwrap();
    let before = Arc::clone(&client.mesh().clusters().list()[0]);
    client.mesh().apply(&config).unwrap();
    assert!(Arc::ptr_eq(&before, &client.mesh().clusters().list()[0]));
}
