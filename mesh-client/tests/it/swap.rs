//! A config push swaps what changed, and keeps what was learnt.

use std::sync::Arc;

use mesh_config::model::Discovery;
use mesh_core::{HealthFlag, Priority, Resource};

use crate::support::{
    NameServer, Upstream, bootstrap, client, cluster, counter, dns_cluster, eventually, get,
};

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
        set.endpoints()
            .iter()
            .filter(|e| e.state.has(HealthFlag::FailedOutlier))
            .count()
    };
    assert_eq!(ejected(&client), 1);
    let changed = format!("{OUTLIER} connect_timeout: 2s,");
    client
        .mesh()
        .apply(&bootstrap(ROUTES, &clusters(&changed)))
        .unwrap();
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
    let total = stats
        .iter()
        .find(|stat| stat.name == "cluster.a.upstream_rq_total")
        .unwrap();
    assert_eq!(total.value, mesh_core::stats::Value::Counter(2));
}

#[tokio::test]
async fn an_unchanged_cluster_is_kept_as_it_is_when_its_file_is_read_again() {
    let upstream = Upstream::start(&[200]).await;
    let config = |more| {
        let clusters = format!("[{}]", cluster("a", &[upstream.port], more));
        bootstrap(ROUTES, &clusters)
    };
    let client = client(config(OUTLIER)).await.unwrap();
    let before = Arc::clone(&client.mesh().clusters().list()[0]);
    client.mesh().apply(&config(OUTLIER)).unwrap();
    assert!(Arc::ptr_eq(&before, &client.mesh().clusters().list()[0]));
    client.mesh().apply(&config("")).unwrap();
    assert!(!Arc::ptr_eq(&before, &client.mesh().clusters().list()[0]));
}

#[tokio::test]
async fn a_push_that_is_refused_changes_nothing() {
    let (old, new) = (Upstream::start(&[200]).await, Upstream::start(&[200]).await);
    let other = dns_cluster("b", "up.test", &[new.port], new.port, "");
    let config = |port, more: &str| {
        let clusters = format!("[{}, {other}]", cluster("a", &[port], more));
        bootstrap(ROUTES, &clusters)
    };
    let mut bad = config(
        new.port,
        "circuit_breakers: {thresholds: [{max_requests: 7}]},",
    );
    let client = client(bootstrap(
        ROUTES,
        &format!("[{}]", cluster("a", &[old.port], "")),
    ))
    .await
    .unwrap();
    let Discovery::Dns(dns) = &mut Arc::make_mut(&mut bad.clusters[1]).discovery else {
        unreachable!("its type is STRICT_DNS")
    };
    dns.resolver.resolvers = vec![([127, 0, 0, 1], 53).into(); 17];
    client.mesh().apply(&bad).unwrap_err();
    let clusters = client.mesh().clusters();
    assert_eq!(clusters.list().len(), 1);
    let resources = clusters.list()[0].resources(Priority::Default);
    assert_eq!(resources.limit(Resource::Requests), 1024);
    get(&client, "/").await.0.unwrap();
    assert_eq!((old.count(), new.count()), (1, 0));
}

#[tokio::test]
async fn ejections_count_what_happens_on_connections_older_than_the_push() {
    let upstream = Upstream::start(&[503]).await;
    let config = |more| {
        let clusters = format!("[{}]", cluster("a", &[upstream.port], more));
        bootstrap(ROUTES, &clusters)
    };
    let client = client(config("")).await.unwrap();
    get(&client, "/").await.0.unwrap();
    let outlier = OUTLIER.replace("50", "100");
    client.mesh().apply(&config(&outlier)).unwrap();
    for _ in 0..2 {
        get(&client, "/").await.0.unwrap();
    }
    let ejected = || {
        let set = client.mesh().clusters().list()[0].endpoints();
        set.endpoints()[0].state.has(HealthFlag::FailedOutlier)
    };
    assert!(ejected());
    assert_eq!(counter(&client, "cluster.a.upstream_cx_total"), 1);
    client.mesh().apply(&config("")).unwrap();
    assert!(!ejected(), "nobody is ejected where detection is off");
}

#[tokio::test]
async fn idle_connections_to_an_endpoint_that_left_are_closed() {
    let (old, new) = (Upstream::start(&[200]).await, Upstream::start(&[200]).await);
    let config = |port| bootstrap(ROUTES, &format!("[{}]", cluster("a", &[port], "")));
    let client = client(config(old.port)).await.unwrap();
    get(&client, "/").await.0.unwrap();
    client.mesh().apply(&config(new.port)).unwrap();
    get(&client, "/").await.0.unwrap();
    eventually(|| counter(&client, "cluster.a.upstream_cx_destroy") == 1).await;
}

#[tokio::test]
async fn a_push_leaves_a_named_cluster_its_endpoints_and_their_ejections() {
    let (bad, good) = (Upstream::start(&[503]).await, Upstream::start(&[200]).await);
    let (knows, silent) = (
        NameServer::start(true).await,
        NameServer::start(false).await,
    );
    let ports = [bad.port, good.port];
    let config = |port| {
        let clusters = format!("[{}]", dns_cluster("a", "up.test", &ports, port, OUTLIER));
        bootstrap(ROUTES, &clusters)
    };
    let client = client(config(knows.port)).await.unwrap();
    for _ in 0..6 {
        get(&client, "/").await.0.unwrap();
    }
    let before = bad.count();
    client.mesh().apply(&config(silent.port)).unwrap();
    for _ in 0..6 {
        assert_eq!(get(&client, "/").await.0.unwrap().0, 200);
    }
    assert_eq!(bad.count(), before, "it is still ejected");
}

#[tokio::test]
async fn new_names_take_over_when_they_have_resolved_and_not_before() {
    let (old, new) = (Upstream::start(&[200]).await, Upstream::start(&[200]).await);
    let server = NameServer::start(false).await;
    let client = client(bootstrap(
        ROUTES,
        &format!("[{}]", cluster("a", &[old.port], "")),
    ))
    .await
    .unwrap();
    let named = dns_cluster("a", "new.test", &[new.port], server.port, "");
    client
        .mesh()
        .apply(&bootstrap(ROUTES, &format!("[{named}]")))
        .unwrap();
    get(&client, "/").await.0.unwrap();
    assert_eq!((old.count(), new.count()), (1, 0));
    server.answers.send_replace(true);
    client.mesh().warmed().await;
    get(&client, "/").await.0.unwrap();
    assert_eq!((old.count(), new.count()), (1, 1));
}

#[tokio::test]
async fn a_cluster_that_was_replaced_does_no_more_work() {
    let upstream = Upstream::start(&[200]).await;
    let server = NameServer::start(true).await;
    let fixed = bootstrap(ROUTES, &format!("[{}]", cluster("a", &[upstream.port], "")));
    let client = client(fixed.clone()).await.unwrap();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    for more in [OUTLIER, "connect_timeout: 2s,"] {
        let more = format!("{OUTLIER}{}", more.replace(OUTLIER, ""));
        let named = dns_cluster("a", "up.test", &[upstream.port], server.port, &more);
        client
            .mesh()
            .apply(&bootstrap(ROUTES, &format!("[{named}]")))
            .unwrap();
        client.mesh().warmed().await;
    }
    let replaced = Arc::clone(&client.mesh().clusters().list()[0]);
    client.mesh().apply(&fixed).unwrap();
    eventually(|| tasks() <= before).await;
    replaced.warmed().await;
}

#[tokio::test]
async fn an_idle_client_lets_go_of_a_cluster_that_was_replaced() {
    let upstream = Upstream::start(&[200]).await;
    let config = |more| {
        let clusters = format!("[{}]", cluster("a", &[upstream.port], more));
        bootstrap(ROUTES, &clusters)
    };
    let client = client(config("")).await.unwrap();
    get(&client, "/").await.0.unwrap();
    let old = Arc::downgrade(&client.mesh().clusters().list()[0]);
    client
        .mesh()
        .apply(&config("connect_timeout: 2s,"))
        .unwrap();
    eventually(|| old.strong_count() == 0).await;
}
