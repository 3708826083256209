use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{
    HistogramSnapshot, StatusCounters,
    group::{Group, Kind, StatDef},
};

/// One stat at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its full name, dots between the parts.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// The value of a stat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Only grows.
    Counter(u64),
    /// Goes up and down.
    Gauge(u64),
    /// A distribution.
    Histogram(HistogramSnapshot),
    /// A word.
    Text(String),
}

type Computed = Arc<dyn Fn(&mut Vec<Stat>) + Send + Sync>;

#[derive(Default)]
struct Entries {
    groups: HashMap<(Arc<str>, usize), Weak<Group>>,
    statuses: HashMap<(Arc<str>, &'static str), Weak<StatusCounters>>,
    computed: HashMap<u64, Computed>,
    next: u64,
}

/// All stats of a process, by name. Cloning shares it.
///
/// It is bounded by what is registered, which is bounded by the config: names never come from traffic.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Entries>>);

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} lists)", self.lock().groups.len())
    }
}

impl Registry {
    /// Without stats.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A scope: `prefix` ends in a dot, or is empty.
    #[must_use]
    pub fn scope(&self, prefix: &str) -> Scope {
        Scope {
            registry: Some(self.clone()),
            prefix: prefix.into(),
        }
    }

    /// All stats, sorted by name.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Stat> {
        let mut out = Vec::new();
        // Outside the lock: what is computed may drop the last owner of other stats, or bring lists up to
        // date that are read below.
        let computed: Vec<Computed> = self.lock().computed.values().cloned().collect();
        computed.iter().for_each(|compute| compute(&mut out));
        let (groups, statuses): (Vec<_>, Vec<_>) = {
            let mut entries = self.lock();
            entries.groups.retain(|_, group| group.strong_count() > 0);
            entries
                .statuses
                .retain(|_, statuses| statuses.strong_count() > 0);
            (
                entries.groups.values().filter_map(Weak::upgrade).collect(),
                entries
                    .statuses
                    .iter()
                    .filter_map(|((prefix, _), s)| Some((prefix.clone(), s.upgrade()?)))
                    .collect(),
            )
        };
        groups
            .iter()
            .for_each(|group| export_group(group, &mut out));
        statuses
            .iter()
            .for_each(|(prefix, statuses)| statuses.export(prefix, &mut out));
        out.sort_by(|a, b| a.name.cmp(&b.name));
        out
    }

    /// Sets all counters and histograms back to zero; gauges stay.
    pub fn reset(&self) {
        let entries = self.lock();
        entries
            .groups
            .values()
            .filter_map(Weak::upgrade)
            .for_each(|group| group.reset());
        entries
            .statuses
            .values()
            .filter_map(Weak::upgrade)
            .for_each(|s| s.reset());
    }

    /// Ends an interval of all histograms and begins the next: snapshots show what was recorded in the last
    /// whole one beside the total. Whoever flushes stats calls it now and then.
    pub fn roll(&self) {
        let groups: Vec<_> = self.lock().groups.values().cloned().collect();
        let live = groups.iter().filter_map(Weak::upgrade);
        live.for_each(|group| group.roll());
    }

    /// Adds stats that are computed when somebody looks. They go with the returned guard.
    /// Called before lists are read, so that it may also bring these up to date.
    #[must_use]
    pub fn computed(&self, f: impl Fn(&mut Vec<Stat>) + Send + Sync + 'static) -> ComputedGuard {
        let mut entries = self.lock();
        let id = entries.next;
        entries.next += 1;
        entries.computed.insert(id, Arc::new(f));
        ComputedGuard {
            registry: self.clone(),
            id,
        }
    }
}

/// Keeps computed stats registered.
#[derive(Debug)]
pub struct ComputedGuard {
    registry: Registry,
    id: u64,
}

impl Drop for ComputedGuard {
    fn drop(&mut self) {
        self.registry.lock().computed.remove(&self.id);
    }
}

fn export_group(group: &Group, out: &mut Vec<Stat>) {
    for (index, def) in group.defs.iter().enumerate() {
        let value = match def.kind {
            Kind::Counter => Value::Counter(group.counter(index).value()),
            Kind::Gauge => Value::Gauge(group.gauge(index).value()),
            Kind::Histogram => Value::Histogram(
                group
                    .cells(index)
                    .map(super::histogram::Cells::snapshot)
                    .unwrap_or_default(),
            ),
        };
        out.push(Stat {
            name: format!("{}{}", group.prefix, def.name),
            value,
        });
    }
}

/// Where a list of stats is registered: a prefix in a registry.
#[derive(Debug, Clone)]
pub struct Scope {
    registry: Option<Registry>,
    prefix: Arc<str>,
}

impl Scope {
    /// Stats that count and are never exported.
    #[must_use]
    pub fn detached() -> Self {
        Self {
            registry: None,
            prefix: Arc::default(),
        }
    }

    /// A scope within this one; `prefix` ends in a dot.
    #[must_use]
    pub fn scope(&self, prefix: &str) -> Self {
        Self {
            registry: self.registry.clone(),
            prefix: format!("{}{prefix}", self.prefix).into(),
        }
    }

    /// The prefix of all names.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The registry, unless detached.
    #[must_use]
    pub fn registry(&self) -> Option<&Registry> {
        self.registry.as_ref()
    }

    /// The cells of a list; the same list under the same prefix is the same cells while anybody holds
    /// them, so that counters survive a config push.
    #[must_use]
    pub fn group(&self, defs: &'static [StatDef]) -> Arc<Group> {
        let Some(registry) = &self.registry else {
            return Arc::new(Group::new(&self.prefix, defs));
        };
        let key = (Arc::clone(&self.prefix), defs.as_ptr() as usize);
        let mut entries = registry.lock();
        if let Some(group) = entries.groups.get(&key).and_then(Weak::upgrade) {
            return group;
        }
        let group = Arc::new(Group::new(&self.prefix, defs));
        entries.groups.insert(key, Arc::downgrade(&group));
        group
    }

    /// Counters by status: `<prefix><stem>_503`, `_5xx`, `_completed`.
    #[must_use]
    pub fn statuses(&self, stem: &'static str) -> Arc<StatusCounters> {
        let Some(registry) = &self.registry else {
            return Arc::new(StatusCounters::new(stem));
        };
        let key = (Arc::clone(&self.prefix), stem);
        let mut entries = registry.lock();
        if let Some(statuses) = entries.statuses.get(&key).and_then(Weak::upgrade) {
            return statuses;
        }
        let statuses = Arc::new(StatusCounters::new(stem));
        entries.statuses.insert(key, Arc::downgrade(&statuses));
        statuses
    }
}

#[cfg(test)]
mod tests {
    use super::{Registry, Stat, Value};

    crate::stats! {
        struct Requests {
            /// total
            counter total,
            /// time
            histogram time,
        }
    }

    fn value(registry: &Registry, name: &str) -> Option<Value> {
        registry
            .snapshot()
            .into_iter()
            .find(|stat| stat.name == name)
            .map(|stat| stat.value)
    }

    #[test]
    fn the_same_scope_is_the_same_cells_until_nobody_holds_them() {
        let registry = Registry::new();
        let first = Requests::register(&registry.scope("cluster.a."));
        first.total().inc();
        let second = Requests::register(&registry.scope("cluster.").scope("a."));
        second.total().inc();
        assert_eq!(value(&registry, "cluster.a.total"), Some(Value::Counter(2)));
        drop((first, second));
        assert_eq!(value(&registry, "cluster.a.total"), None);
    }

    #[test]
    fn statuses_are_exported_as_code_class_and_sum() {
        let registry = Registry::new();
        let statuses = registry.scope("c.").statuses("upstream_rq");
        [200, 200, 503, 99, 600]
            .iter()
            .for_each(|&s| statuses.count(s));
        let names: Vec<_> = registry
            .snapshot()
            .into_iter()
            .map(|Stat { name, value }| match value {
                Value::Counter(n) => format!("{name}={n}"),
                _ => name,
            })
            .collect();
        assert_eq!(
            names,
            [
                "c.upstream_rq_200=2",
                "c.upstream_rq_2xx=2",
                "c.upstream_rq_503=1",
                "c.upstream_rq_5xx=1",
                "c.upstream_rq_completed=3"
            ]
        );
    }

    #[test]
    fn computed_stats_go_with_their_guard() {
        let registry = Registry::new();
        let guard = registry.computed(|out| {
            out.push(Stat {
                name: "live".to_owned(),
                value: Value::Gauge(1),
            });
        });
        assert_eq!(value(&registry, "live"), Some(Value::Gauge(1)));
        drop(guard);
        assert_eq!(value(&registry, "live"), None);
    }
}
