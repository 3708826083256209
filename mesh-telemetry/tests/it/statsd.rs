use mesh_core::stats::{Registry, Stat, Value};
use mesh_telemetry::{Dialect, ExportConfig, NameTest, Statsd, StatsdConfig};

mesh_core::stats! {
    struct Few {
        /// a
        counter upstream_rq_total,
        /// b
        gauge upstream_rq_active,
        /// c
        histogram upstream_rq_time,
    }
}

struct Rig {
    registry: Registry,
    stats: Few,
    statsd: Statsd,
    export: ExportConfig,
}

fn rig(config: StatsdConfig) -> Rig {
    let registry = Registry::new();
    Rig {
        stats: Few::register(&registry.scope("cluster.a.")),
        registry,
        statsd: Statsd::new(config).unwrap(),
        export: ExportConfig::default(),
    }
}

impl Rig {
    fn flush(&mut self) -> Vec<String> {
        self.registry.roll();
        self.statsd.flush(&self.registry.snapshot(), &self.export)
    }
}

#[test]
fn a_flush_says_what_is_new() {
    let mut rig = rig(StatsdConfig::default());
    assert_eq!(rig.flush(), Vec::<String>::new());
    rig.stats.upstream_rq_total().add(3);
    rig.stats.upstream_rq_active().set(2);
    rig.stats.upstream_rq_time().record(7);
    (0..4).for_each(|_| rig.stats.upstream_rq_time().record(30));
    let first = "envoy.cluster.a.upstream_rq_active:2|g\nenvoy.cluster.a.upstream_rq_time:7|ms\n\
        envoy.cluster.a.upstream_rq_time:30|ms|@0.25\nenvoy.cluster.a.upstream_rq_total:3|c\n";
    assert_eq!(rig.flush(), [first]);
    rig.stats.upstream_rq_total().inc();
    rig.stats.upstream_rq_active().set(0);
    let second = "envoy.cluster.a.upstream_rq_active:0|g\nenvoy.cluster.a.upstream_rq_total:1|c\n";
    assert_eq!(rig.flush(), [second]);
    assert_eq!(rig.flush(), Vec::<String>::new());
    rig.registry.reset();
    rig.stats.upstream_rq_total().add(2);
    assert_eq!(rig.flush(), ["envoy.cluster.a.upstream_rq_total:2|c\n"]);
}

#[test]
fn datagrams_hold_whole_lines_and_no_more_than_they_may() {
    let mut rig = rig(StatsdConfig {
        prefix: "p".to_owned(),
        datagram_bytes_max: 64,
        ..StatsdConfig::default()
    });
    let stats: Vec<Stat> = (0..20)
        .map(|n| Stat {
            name: "x".repeat(3 * n + 1),
            value: Value::Counter(1),
        })
        .collect();
    let datagrams = rig.statsd.flush(&stats, &rig.export);
    assert!(datagrams.iter().all(|d| d.len() <= 64 && d.ends_with('\n')));
    let lines = datagrams.iter().flat_map(|d| d.lines()).count();
    // A line is seven bytes longer than the name.
    assert_eq!((lines, rig.statsd.too_long()), (19, 1));
    assert!(datagrams.len() < lines);
}

#[test]
fn what_would_break_a_line_is_replaced() {
    let mut rig = rig(StatsdConfig::default());
    let stats = [Stat {
        name: "cluster.a|b:c\nd.x".to_owned(),
        value: Value::Counter(1),
    }];
    let sent = rig.statsd.flush(&stats, &rig.export);
    assert_eq!(sent, ["envoy.cluster.a_b_c_d.x:1|c\n"]);
}

#[test]
fn dog_statsd_has_tags() {
    let mut rig = rig(StatsdConfig {
        dialect: Dialect::DogStatsd,
        ..StatsdConfig::default()
    });
    rig.stats.upstream_rq_total().inc();
    let wanted = "envoy.cluster.upstream_rq_total:1|c|#envoy.cluster_name:a\n";
    assert_eq!(rig.flush(), [wanted]);
    rig.export.only = Some(NameTest::new(|_| false));
    rig.stats.upstream_rq_total().inc();
    assert_eq!(rig.flush(), Vec::<String>::new());
}

#[test]
fn a_datagram_has_a_size() {
    for bytes in [0, 65_508] {
        let config = StatsdConfig {
            datagram_bytes_max: bytes,
            ..StatsdConfig::default()
        };
        assert!(Statsd::new(config).is_err());
    }
}
