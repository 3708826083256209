//! Config from a control plane: what arrives is checked, warmed, put together and applied.
//!
//! The driver's task checks resources and says when they may be used; a second task applies the newest
//! whole config, so that a burst of changes is applied once. What the control plane has rejected, or
//! cannot be reached to say, changes nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh_config::{
    dynamic::{Assembly, Kind, Needs},
    model::{Cluster, Config, ControlPlane},
};
use mesh_core::clock;
use mesh_xds::{
    Accept, Event, Reconnect, Rejection, ResourceType, Subscriber, SubscriberConfig, Variant,
    transport::{Driver, Handler, Interest, Stream},
    warming::{Key, Step, Warming},
};
use tokio::sync::{Notify, watch};

use crate::process::Process;

/// A first fetch is given up after this time, unless the config says otherwise.
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// What was removed stays for at most so long if something in use still refers to it.
const RETIRE_AFTER: Duration = Duration::from_secs(15);

/// The newest config, and whether the first of everything has come.
#[derive(Clone, Default)]
struct Latest {
    config: Option<Arc<Config>>,
    settled: bool,
}

/// What the driver feeds.
struct Receiver {
    assembly: Assembly,
    warming: Warming<Vec<u8>>,
    /// What each accepted resource needs; entered when it is checked.
    needs: BTreeMap<Key, Needs>,
    checked: BTreeMap<Key, Needs>,
    /// Types whose first answer is awaited.
    awaited: Vec<ResourceType>,
    timeout: Option<Duration>,
    latest: watch::Sender<Latest>,
}

#[derive(Clone)]
struct Shared {
    receiver: Arc<Mutex<Receiver>>,
    /// Something may have a deadline now.
    changed: Arc<Notify>,
}

/// Starts to follow the control plane. The process becomes ready once the first config was applied.
pub(crate) fn start(
    process: &Arc<Process>,
    control: &ControlPlane,
    assembly: Assembly,
) -> anyhow::Result<()> {
    let variant = if control.delta {
        Variant::Delta
    } else {
        Variant::StateOfTheWorld
    };
    let timeout = match control.initial_fetch_timeout {
        None => Some(INITIAL_FETCH_TIMEOUT),
        Some(Duration::ZERO) => None,
        Some(timeout) => Some(timeout),
    };
    let now = clock::now();
    let mut settings = SubscriberConfig::new(assembly.node(), variant);
    settings.set_node_on_first_message_only = control.set_node_on_first_message_only;
    settings.initial_fetch_timeout = timeout;
    let mut subscriber = Subscriber::new(settings);
    let mut awaited = Vec::new();
    for (wanted, ty) in [
        (control.clusters, ResourceType::Cluster),
        (control.listeners, ResourceType::Listener),
    ] {
        if wanted {
            subscriber.subscribe_all(now, ty);
            awaited.push(ty);
        }
    }
    let mut warming = Warming::new();
    for cluster in &process.config.clusters {
        let key = (ResourceType::Cluster, cluster.name.to_string());
        warming.update(now, key, Vec::new(), [], None);
    }
    let (latest, applied) = watch::channel(Latest::default());
    let shared = Shared {
        receiver: Arc::new(Mutex::new(Receiver {
            assembly,
            warming,
            needs: BTreeMap::new(),
            checked: BTreeMap::new(),
            awaited,
            timeout,
            latest,
        })),
        changed: Arc::default(),
    };
    let stream = Stream::aggregated(variant, control.servers.iter().map(String::as_str))?;
    let reconnect = Reconnect::new(stream.servers.len())?;
    let rng = process.mesh.rng().clone();
    let (driver, commands) = Driver::new(subscriber, shared.clone(), stream, reconnect, rng);
    tokio::spawn(async move {
        driver.run().await;
    });
    tokio::spawn(keep_time(shared));
    let process = Arc::clone(process);
    tokio::spawn(async move {
        apply_all(&process, applied).await;
        // As long as somebody applies, the driver goes on.
        drop(commands);
    });
    Ok(())
}

/// Ends what has warmed long enough.
async fn keep_time(shared: Shared) {
    loop {
        let deadline = shared.lock().warming.next_deadline();
        tokio::select! {
            () = sleep_until(deadline) => {
                let mut receiver = shared.lock();
                let steps = receiver.warming.on_deadline(clock::now());
                receiver.take(steps);
            }
            () = shared.changed.notified() => {}
        }
    }
}

/// Applies the newest config, whenever there is a newer one.
async fn apply_all(process: &Process, mut latest: watch::Receiver<Latest>) {
    let mut current = Arc::clone(&process.config);
    let mut leaving = Leaving::default();
    loop {
        tokio::select! {
            changed = latest.changed() => if changed.is_err() {
                return;
            },
            () = sleep_until(leaving.next()) => {}
        }
        let Latest { config, settled } = latest.borrow_and_update().clone();
        let next = config.unwrap_or_else(|| Arc::clone(&current));
        let now = clock::now();
        leaving.update(now, &current, &next);
        match apply(process, &next, &leaving).await {
            Ok(()) => {
                current = next;
                if settled {
                    process.become_ready();
                }
            }
            Err(error) => {
                tracing::error!("the control plane's config was not applied: {error:#}");
            }
        }
    }
}

/// Clusters that are gone, and that connections which began before may still send requests to: the routes
/// of a connection are those that it began with.
#[derive(Default)]
struct Leaving(Vec<(Arc<Cluster>, Instant)>);

impl Leaving {
    fn update(&mut self, now: Instant, before: &Config, after: &Config) {
        let is_there = |name: &str| after.clusters.iter().any(|cluster| *cluster.name == *name);
        self.0
            .retain(|(cluster, until)| *until > now && !is_there(&cluster.name));
        for cluster in before
            .clusters
            .iter()
            .filter(|cluster| !is_there(&cluster.name))
        {
            if !self.0.iter().any(|(known, _)| known.name == cluster.name) {
                self.0.push((Arc::clone(cluster), now + RETIRE_AFTER));
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(_, until)| *until).min()
    }
}

async fn apply(process: &Process, config: &Config, leaving: &Leaving) -> anyhow::Result<()> {
    let mut config = config.clone();
    config
        .clusters
        .extend(leaving.0.iter().map(|(cluster, _)| Arc::clone(cluster)));
    // Addresses are taken first, and clusters change all the same: a listener that cannot be opened must not
    // keep endpoints that are gone.
    let plan = process.listeners.plan(&config.listeners, &config.version);
    process.mesh.apply(&config)?;
    process.listeners.commit(plan?).await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accept for Shared {
    fn accept(
        &mut self,
        ty: ResourceType,
        name: &str,
        body: &bytes::Bytes,
    ) -> Result<(), Rejection> {
        let Some(kind) = kind(ty) else {
            return Err(Rejection::new("resources of this type are not supported"));
        };
        let mut receiver = self.lock();
        match receiver.assembly.check(kind, name, body) {
            Ok(needs) => {
                receiver.checked.insert((ty, name.to_owned()), needs);
                Ok(())
            }
            Err(refusal) => {
                tracing::warn!(
                    "{ty} {name:?} rejected: {}: {}",
                    refusal.field,
                    refusal.reason
                );
                Err(Rejection::at(refusal.field, refusal.reason))
            }
        }
    }
}

impl Handler for Shared {
    fn on_events(&mut self, now: Instant, events: Vec<Event>, interest: &mut Interest) {
        let mut receiver = self.lock();
        let mut steps = Vec::new();
        for event in events {
            steps.extend(receiver.on_event(now, event, interest));
        }
        receiver.take(steps);
        self.changed.notify_one();
    }

    fn on_connection(&mut self, connected: bool, reason: &str) {
        if connected {
            tracing::info!("connected to the control plane");
        } else {
            tracing::warn!("no control plane: {reason}");
        }
    }
}

impl Receiver {
    fn on_event(
        &mut self,
        now: Instant,
        event: Event,
        interest: &mut Interest,
    ) -> Vec<Step<Vec<u8>>> {
        match event {
            Event::Updated { ty, resource } => {
                let key = (ty, resource.name);
                let before = self.needs.get(&key).cloned().unwrap_or_default();
                let needs = self.checked.remove(&key).unwrap_or_else(|| before.clone());
                let gone: Needs = before.difference(&needs).cloned().collect();
                let mut steps = self.let_go(now, &gone, &key, interest);
                follow(&needs, interest);
                let deadline = self.timeout.map(|timeout| now + timeout);
                let keys: Vec<Key> = needs.iter().map(key_of).collect();
                self.needs.insert(key.clone(), needs);
                steps.extend(
                    self.warming
                        .update(now, key, resource.body.to_vec(), keys, deadline),
                );
                steps
            }
            Event::Removed { ty, name, .. } => {
                let key = (ty, name);
                let needs = self.needs.remove(&key).unwrap_or_default();
                let mut steps = self.warming.remove(now, &key, Some(now + RETIRE_AFTER));
                steps.extend(self.let_go(now, &needs, &key, interest));
                steps
            }
            Event::Missing { ty, name }
            | Event::TimedOut {
                ty,
                name: Some(name),
            } => self.warming.on_absent(now, (ty, name)),
            // What came before stays; if nothing did, nobody waits for it any longer.
            Event::Rejected { ty, name, .. } if !name.is_empty() => {
                self.warming.on_absent(now, (ty, name))
            }
            Event::Rejected { .. } => Vec::new(),
            Event::Complete { ty } | Event::TimedOut { ty, name: None } => {
                self.awaited.retain(|awaited| *awaited != ty);
                Vec::new()
            }
        }
    }

    /// `key` does not need these any more: what nobody else needs is not subscribed to any longer.
    fn let_go(
        &mut self,
        now: Instant,
        needs: &Needs,
        key: &Key,
        interest: &mut Interest,
    ) -> Vec<Step<Vec<u8>>> {
        let mut steps = Vec::new();
        for need in needs.iter().filter(|need| need.0 != Kind::Cluster) {
            let others = self.needs.iter().filter(|(other, _)| *other != key);
            if others.clone().any(|(_, needs)| needs.contains(need)) {
                continue;
            }
            let gone = key_of(need);
            interest.unsubscribe(gone.0, gone.1.clone());
            steps.extend(self.warming.remove(now, &gone, Some(now + RETIRE_AFTER)));
            if let Some(needs) = self.needs.remove(&gone) {
                steps.extend(self.let_go(now, &needs, &gone, interest));
            }
        }
        steps
    }

    /// Does what warming says, and publishes the outcome.
    fn take(&mut self, steps: Vec<Step<Vec<u8>>>) {
        let changed = !steps.is_empty();
        for step in steps {
            match step {
                Step::Activate {
                    key,
                    value,
                    without,
                } => {
                    if !without.is_empty() {
                        tracing::warn!("{} {:?} is used without {without:?}", key.0, key.1);
                    }
                    if let Some(kind) = kind(key.0) {
                        self.assembly.put(kind, &key.1, &value);
                    }
                }
                Step::Retire { key } => {
                    if let Some(kind) = kind(key.0) {
                        self.assembly.remove(kind, &key.1);
                    }
                }
            }
        }
        let config = changed.then(|| self.assembly.config());
        let config = config.and_then(|config| {
            let refused = |error| tracing::error!("the parts do not fit together: {error}");
            config.map_err(refused).ok().map(Arc::new)
        });
        let starting = |key: &Key| key.0 == ResourceType::Listener;
        let waiting = self.warming.waiting();
        let warm = !waiting.iter().any(|w| starting(&w.key) && !w.has_active);
        let settled = self.awaited.is_empty() && warm;
        self.latest.send_if_modified(|latest| {
            let news = config.is_some() || settled != latest.settled;
            // A config that nobody has taken yet is superseded, not lost.
            latest.config = config.or_else(|| latest.config.take());
            latest.settled |= settled;
            news
        });
    }
}

/// Subscribes to what is needed by name. Clusters come by themselves.
fn follow(needs: &Needs, interest: &mut Interest) {
    for need in needs.iter().filter(|need| need.0 != Kind::Cluster) {
        let (ty, name) = key_of(need);
        interest.subscribe(ty, name);
    }
}

fn kind(ty: ResourceType) -> Option<Kind> {
    match ty {
        ResourceType::Cluster => Some(Kind::Cluster),
        ResourceType::Endpoints => Some(Kind::Endpoints),
        ResourceType::Listener => Some(Kind::Listener),
        ResourceType::RouteConfiguration => Some(Kind::Routes),
        _ => None,
    }
}

fn key_of((kind, name): &(Kind, String)) -> Key {
    let ty = match kind {
        Kind::Cluster => ResourceType::Cluster,
        Kind::Endpoints => ResourceType::Endpoints,
        Kind::Listener => ResourceType::Listener,
        Kind::Routes => ResourceType::RouteConfiguration,
    };
    (ty, name.clone())
}
