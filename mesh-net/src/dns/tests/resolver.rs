use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use mesh_core::{
    Rng, clock,
    stats::{Registry, Value},
};

use super::server::{A, AAAA, NXDOMAIN, Reply, SERVFAIL, Server};
use crate::dns::{
    ADDRESSES_MAX, Answer, DnsError, DnsLookupFamily, DnsStats, DnsWatch, RefreshConfig, Resolver,
    ResolverConfig, Update,
};

use DnsLookupFamily::{All, Auto, V4Only, V4Preferred, V6Only};

fn config(server: &Server) -> ResolverConfig {
    ResolverConfig {
        resolvers: vec![server.address],
        no_default_search_domain: true,
        hosts_path: None,
        ..ResolverConfig::default()
    }
}

fn resolver(server: &Server) -> Resolver {
    Resolver::new(&config(server)).unwrap()
}

fn texts(answer: &Answer) -> Vec<String> {
    answer.addresses.iter().map(ToString::to_string).collect()
}

async fn found(resolver: &Resolver, family: DnsLookupFamily) -> Result<Vec<String>, DnsError> {
    let answer = resolver.resolve("name.test", family).await?;
    Ok(texts(&answer))
}

#[tokio::test]
async fn each_family_finds_the_addresses_it_wants() {
    let server = Server::start(Reply::addresses(60, &["10.0.0.1", "fd00::1"])).await;
    let resolver = resolver(&server);
    let (v4, v6) = (["10.0.0.1"], ["fd00::1"]);
    assert_eq!(found(&resolver, V4Only).await.unwrap(), v4);
    assert_eq!(server.asked(), [A]);
    assert_eq!(found(&resolver, V6Only).await.unwrap(), v6);
    assert_eq!(server.asked(), [AAAA]);
    assert_eq!(found(&resolver, Auto).await.unwrap(), v6);
    assert_eq!(server.asked(), [AAAA]);
    assert_eq!(found(&resolver, V4Preferred).await.unwrap(), v4);
    assert_eq!(server.asked(), [A]);
    assert_eq!(
        found(&resolver, All).await.unwrap(),
        ["fd00::1", "10.0.0.1"]
    );

    server.now_replies(Reply::addresses(60, &["10.0.0.1"]));
    for family in [Auto, V4Preferred, V4Only, All] {
        assert_eq!(found(&resolver, family).await.unwrap(), v4, "{family:?}");
    }
    assert_eq!(found(&resolver, V6Only).await, Err(DnsError::NoRecords));

    server.now_replies(Reply::addresses(60, &["fd00::1"]));
    for family in [Auto, V4Preferred, V6Only, All] {
        assert_eq!(found(&resolver, family).await.unwrap(), v6, "{family:?}");
    }
    assert_eq!(found(&resolver, V4Only).await, Err(DnsError::NoRecords));
}

#[tokio::test]
async fn a_thousand_addresses_arrive_and_more_than_the_bound_do_not() {
    let many = |n: u32| Reply::Records {
        cname_ttl: None,
        addresses: (0..n)
            .map(|i| (IpAddr::from(Ipv4Addr::from(0x0a00_0000 + i)), 60))
            .collect(),
    };
    let server = Server::start(many(1000)).await;
    let resolver = resolver(&server);
    let answer = resolver.resolve("name.test", V4Only).await.unwrap();
    assert_eq!(answer.addresses.len(), 1000);
    assert_eq!(answer.addresses[999], IpAddr::from([10, 0, 3, 231]));
    server.now_replies(many(3000));
    let answer = resolver.resolve("name.test", All).await.unwrap();
    assert_eq!(answer.addresses.len(), ADDRESSES_MAX);
}

#[tokio::test]
async fn the_ttl_is_the_shortest_of_all_records() {
    let records = |cname_ttl, ttls: [u32; 2]| Reply::Records {
        cname_ttl,
        addresses: vec![
            (IpAddr::from([10, 0, 0, 1]), ttls[0]),
            (IpAddr::from([10, 0, 0, 2]), ttls[1]),
        ],
    };
    let server = Server::start(records(None, [30, 20])).await;
    let resolver = resolver(&server);
    for (reply, seconds) in [
        (records(None, [30, 20]), 20),
        (records(Some(10), [30, 20]), 10),
        (records(None, [0, 20]), 0),
    ] {
        server.now_replies(reply);
        let answer = resolver.resolve("name.test", V4Only).await.unwrap();
        assert_eq!(answer.ttl, Duration::from_secs(seconds));
        assert_eq!(texts(&answer), ["10.0.0.1", "10.0.0.2"]);
    }
}

#[tokio::test]
async fn nothing_is_kept_between_two_questions() {
    let server = Server::start(Reply::addresses(3600, &["10.0.0.1"])).await;
    let resolver = resolver(&server);
    assert_eq!(found(&resolver, V4Only).await.unwrap(), ["10.0.0.1"]);
    server.now_replies(Reply::addresses(3600, &["10.0.0.2"]));
    assert_eq!(found(&resolver, V4Only).await.unwrap(), ["10.0.0.2"]);
    server.now_replies(NXDOMAIN);
    assert_eq!(found(&resolver, V4Only).await, Err(DnsError::NotFound));
    server.now_replies(Reply::addresses(3600, &["10.0.0.3"]));
    assert_eq!(found(&resolver, V4Only).await.unwrap(), ["10.0.0.3"]);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let server = Server::start(NXDOMAIN).await;
    let resolver = resolver(&server);
    for family in [V4Only, V6Only, Auto, V4Preferred, All] {
        assert_eq!(found(&resolver, family).await, Err(DnsError::NotFound));
    }
    server.now_replies(SERVFAIL);
    let error = found(&resolver, All).await.unwrap_err();
    assert!(matches!(error, DnsError::ServerFailure(_)), "{error:?}");
    assert!(!error.is_definite());
    server.now_replies(Reply::addresses(1, &[]));
    assert_eq!(found(&resolver, Auto).await, Err(DnsError::NoRecords));
    let error = resolver.resolve("a..b", Auto).await.unwrap_err();
    assert!(matches!(error, DnsError::InvalidName(_)), "{error:?}");
    let long = "x".repeat(64);
    assert!(resolver.resolve(&long, Auto).await.is_err());
}

#[test]
fn a_failure_of_one_family_outweighs_the_absence_of_the_other() {
    let failed = || DnsError::ServerFailure("x".to_owned());
    for absent in [DnsError::NotFound, DnsError::NoRecords] {
        assert_eq!(absent.clone().or(failed()), failed());
        assert_eq!(failed().or(absent), failed());
    }
    assert_eq!(
        DnsError::NotFound.or(DnsError::NoRecords),
        DnsError::NoRecords
    );
    assert_eq!(
        DnsError::NotFound.or(DnsError::NotFound),
        DnsError::NotFound
    );
    assert_eq!(DnsError::Timeout.or(failed()), DnsError::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_in_time() {
    let server = Server::start(Reply::Silence).await;
    let resolver = Resolver::new(&ResolverConfig {
        timeout: Duration::from_secs(7),
        ..config(&server)
    })
    .unwrap();
    let start = clock::now();
    assert_eq!(found(&resolver, All).await, Err(DnsError::Timeout));
    let waited = clock::now() - start;
    assert!(waited <= Duration::from_secs(7), "{waited:?}");
    assert!(waited >= Duration::from_secs(5), "{waited:?}");
}

#[tokio::test]
async fn a_dead_server_is_a_failure_and_not_an_absence() {
    let server = Server::start(Reply::Silence).await;
    let mut config = config(&server);
    config.query_timeout = Duration::from_millis(50);
    config.query_tries = 1;
    drop(server);
    tokio::task::yield_now().await;
    let resolver = Resolver::new(&config).unwrap();
    let error = found(&resolver, V4Only).await.unwrap_err();
    assert!(!error.is_definite(), "{error:?}");
}

#[tokio::test]
async fn names_can_be_asked_for_by_tcp_alone() {
    let server = Server::start(Reply::addresses(60, &["10.0.0.1"])).await;
    assert_eq!(
        found(&resolver(&server), V4Only).await.unwrap(),
        ["10.0.0.1"]
    );
    assert_eq!(server.tcp_connections(), 0);
    let resolver = Resolver::new(&ResolverConfig {
        use_tcp_for_dns_lookups: true,
        ..config(&server)
    })
    .unwrap();
    assert_eq!(found(&resolver, V4Only).await.unwrap(), ["10.0.0.1"]);
    assert_eq!(server.tcp_connections(), 1);
}

#[tokio::test]
async fn addresses_and_the_hosts_file_need_no_server() {
    let server = Server::start(Reply::Silence).await;
    let path = std::env::temp_dir().join(format!("mesh-net-hosts-{}", std::process::id()));
    let resolver = Resolver::new(&ResolverConfig {
        hosts_path: Some(path.clone()),
        ..config(&server)
    })
    .unwrap();
    let answer = resolver.resolve("fd00::7", V4Only).await.unwrap();
    assert_eq!(
        (texts(&answer), answer.ttl),
        (vec!["fd00::7".to_owned()], Duration::ZERO)
    );

    std::fs::write(
        &path,
        "10.0.0.8 name.test other\nfd00::8 both.test\n10.0.0.9 both.test\n",
    )
    .unwrap();
    for family in [Auto, V4Only, V4Preferred, All] {
        assert_eq!(
            found(&resolver, family).await.unwrap(),
            ["10.0.0.8"],
            "{family:?}"
        );
    }
    for (family, expected) in [
        (Auto, vec!["fd00::8"]),
        (V6Only, vec!["fd00::8"]),
        (V4Preferred, vec!["10.0.0.9"]),
        (All, vec!["fd00::8", "10.0.0.9"]),
    ] {
        let answer = resolver.resolve("Both.Test", family).await.unwrap();
        assert_eq!(texts(&answer), expected, "{family:?}");
    }
    std::fs::write(&path, "10.0.0.10 name.test\n").unwrap();
    assert_eq!(found(&resolver, V4Only).await.unwrap(), ["10.0.0.10"]);
    assert!(server.asked().is_empty());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn too_many_name_servers_are_refused() {
    let mut config = ResolverConfig {
        resolvers: vec!["127.0.0.1:53".parse().unwrap(); 16],
        ..ResolverConfig::default()
    };
    // Outside of any runtime, as when a config is read.
    assert!(Resolver::new(&config).is_ok());
    config.resolvers.push("127.0.0.1:53".parse().unwrap());
    let error = Resolver::new(&config).unwrap_err().to_string();
    assert!(error.contains("at most 16"), "{error}");
}

#[tokio::test]
async fn a_watch_keeps_what_it_knows_while_the_name_does_not_resolve() {
    let server = Server::start(Reply::addresses(60, &["10.0.0.2", "10.0.0.1"])).await;
    let registry = Registry::new();
    let mut watch = DnsWatch::new(
        resolver(&server),
        "name.test",
        V4Only,
        RefreshConfig {
            dns_refresh_rate: Duration::from_millis(1),
            ..RefreshConfig::default()
        },
        Rng::seeded(1),
        DnsStats::register(&registry.scope("cluster.a.")),
    );
    assert!(!watch.is_settled());
    assert_eq!(watch.next().await, Update::Changed);
    let known: Vec<IpAddr> = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
    assert_eq!(watch.addresses().to_vec(), known);
    for (reply, error) in [
        (NXDOMAIN, Some(DnsError::NotFound)),
        (Reply::addresses(60, &[]), Some(DnsError::NoRecords)),
        (SERVFAIL, None),
    ] {
        server.now_replies(reply);
        assert_eq!(watch.next().await, Update::Failed);
        assert_eq!(watch.addresses().to_vec(), known);
        assert!(error.is_none_or(|error| watch.last_error() == Some(&error)));
    }
    server.now_replies(Reply::addresses(60, &["10.0.0.1", "10.0.0.2"]));
    assert_eq!(watch.next().await, Update::Unchanged);
    server.now_replies(Reply::addresses(60, &["10.0.0.3"]));
    assert_eq!(watch.next().await, Update::Changed);
    assert!(watch.is_settled() && watch.last_error().is_none());

    let stats: Vec<String> = registry
        .snapshot()
        .into_iter()
        .map(|stat| match stat.value {
            Value::Counter(n) => format!("{}={n}", stat.name),
            _ => stat.name,
        })
        .collect();
    assert_eq!(
        stats,
        [
            "cluster.a.update_attempt=6",
            "cluster.a.update_empty=2",
            "cluster.a.update_failure=3",
            "cluster.a.update_no_rebuild=1",
            "cluster.a.update_success=3",
        ]
    );
}

#[tokio::test]
async fn a_watch_that_is_cancelled_asks_again() {
    let server = Server::start(Reply::Silence).await;
    let mut watch = DnsWatch::new(
        resolver(&server),
        "name.test",
        V4Only,
        RefreshConfig::default(),
        Rng::seeded(1),
        DnsStats::detached(),
    );
    tokio::select! {
        biased;
        _ = watch.next() => panic!("nobody answers"),
        () = async { while server.asked().is_empty() { tokio::task::yield_now().await; } } => {}
    }
    server.now_replies(Reply::addresses(60, &["10.0.0.1"]));
    assert_eq!(watch.next().await, Update::Changed);
}
