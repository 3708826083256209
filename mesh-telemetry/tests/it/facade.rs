use std::sync::{Arc, Mutex};

use mesh_core::stats::{Registry, Stat, Value};
use mesh_telemetry::MetricsBridge;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Named(String, Log);

impl Named {
    fn say(&self, what: impl std::fmt::Display) {
        self.1.0.lock().unwrap().push(format!("{} {what}", self.0));
    }
}

impl CounterFn for Named {
    fn increment(&self, _: u64) {
        unreachable!("totals are absolute");
    }

    fn absolute(&self, value: u64) {
        self.say(value);
    }
}

impl GaugeFn for Named {
    fn increment(&self, _: f64) {
        unreachable!("values are set");
    }

    fn decrement(&self, _: f64) {
        unreachable!("values are set");
    }

    fn set(&self, value: f64) {
        self.say(value);
    }
}

impl HistogramFn for Named {
    fn record(&self, value: f64) {
        self.say(value);
    }
}

impl Log {
    fn named(&self, key: &Key) -> Arc<Named> {
        let labels: Vec<_> = key
            .labels()
            .map(|l| format!("{}={}", l.key(), l.value()))
            .collect();
        Arc::new(Named(format!("{}{labels:?}", key.name()), self.clone()))
    }
}

impl Recorder for Log {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.named(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.named(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.named(key))
    }
}

mesh_core::stats! {
    struct Some {
        /// Requests.
        counter rq_total,
        /// Requests running.
        gauge rq_active,
        /// Milliseconds.
        histogram rq_time,
    }
}

#[test]
fn a_recorder_hears_totals_values_and_what_is_new_in_histograms() {
    let (registry, log) = (Registry::new(), Log::default());
    let stats = Some::register(&registry.scope("cluster.a."));
    let text = registry.computed(|out| {
        out.push(Stat {
            name: "word".to_owned(),
            value: Value::Text("ignored".to_owned()),
        });
    });
    let mut bridge = MetricsBridge::default();
    let mut publish = || {
        bridge.publish(&registry.snapshot(), &log);
        std::mem::take(&mut *log.0.lock().unwrap())
    };
    stats.rq_total().add(3);
    stats.rq_active().inc();
    stats.rq_time().record(5);
    stats.rq_time().record(5);
    let named = |stat: &str, n: u32| format!("cluster_{stat}[\"envoy_cluster_name=a\"] {n}");
    assert_eq!(
        publish(),
        [
            named("rq_active", 1),
            named("rq_time", 5),
            named("rq_time", 5),
            named("rq_total", 3)
        ]
    );
    stats.rq_time().record(7);
    assert_eq!(
        publish(),
        [
            named("rq_active", 1),
            named("rq_time", 7),
            named("rq_total", 3)
        ]
    );
    drop((stats, text));
    assert_eq!(publish(), Vec::<String>::new());
}
