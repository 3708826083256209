//! Endpoints by the hash of a request.

use crate::support::{Upstream, bootstrap, client, cluster, counter, get};

const ROUTES: &str =
    "[{match: {prefix: /}, route: {cluster: a, hash_policy: [{header: {header_name: ':path'}}]}}]";

#[tokio::test]
async fn a_path_stays_with_its_endpoint_until_that_is_ejected() {
    let (one, two) = (Upstream::start(&[503]).await, Upstream::start(&[503]).await);
    let more = "lb_policy: MAGLEV, outlier_detection: {consecutive_5xx: 3, max_ejection_percent: 50, base_ejection_time: 600s, interval: 600s},";
    let clusters = format!("[{}]", cluster("a", &[one.port, two.port], more));
    let client = client(bootstrap(ROUTES, &clusters)).await.unwrap();
    for _ in 0..3 {
        get(&client, "/same").await.0.unwrap();
    }
    let (home, other) = if one.count() > 0 {
        (&one, &two)
    } else {
        (&two, &one)
    };
    assert_eq!((home.count(), other.count()), (3, 0));
    // The tables are made again in the background; until then, the old one is asked.
    while other.count() == 0 {
        get(&client, "/same").await.0.unwrap();
        tokio::task::yield_now().await;
    }
    let before = home.count();
    for number in 0..20 {
        get(&client, &format!("/{number}")).await.0.unwrap();
    }
    assert_eq!(home.count(), before, "it is on nobody's way any more");
}

#[tokio::test]
async fn a_push_that_adds_an_endpoint_moves_some_paths_and_not_all() {
    let upstreams = [
        Upstream::start(&[200]).await,
        Upstream::start(&[200]).await,
        Upstream::start(&[200]).await,
    ];
    let ports: Vec<u16> = upstreams.iter().map(|upstream| upstream.port).collect();
    let config = |ports: &[u16]| {
        let cluster = cluster("a", ports, "lb_policy: RING_HASH,");
        bootstrap(ROUTES, &format!("[{cluster}]"))
    };
    let client = client(config(&ports[..2])).await.unwrap();
    let mut moved = 0;
    let mut homes = Vec::new();
    for push in [&ports[..2], &ports[..]] {
        client.mesh().apply(&config(push)).unwrap();
        for path in 0..60 {
            let before: Vec<usize> = upstreams.iter().map(Upstream::count).collect();
            get(&client, &format!("/{path}")).await.0.unwrap();
            let home = (0..3).find(|n| upstreams[*n].count() > before[*n]).unwrap();
            match homes.get(path) {
                None => homes.push(home),
                Some(first) if *first == home => {}
                Some(_) => moved += 1,
            }
        }
    }
    assert!((5..40).contains(&moved), "{moved}");
    assert_eq!(counter(&client, "cluster.a.lb_healthy_panic"), 0);
    assert_eq!(
        crate::support::gauge(&client, "cluster.a.ring_hash_lb.size"),
        1026
    );
}
