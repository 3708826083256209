use std::{
    collections::BTreeSet,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, PoisonError, Weak},
    task::Poll,
    time::{Duration, Instant},
};

use mesh_core::{
    Address, EndpointState, Rng, Timer, clock,
    sync::{Mutex, MutexGuard},
};

use crate::{
    Event, Monitor, OutlierConfig, OutlierStats,
    state::{Change, Counters, Detection, Limits, Report, Tracker},
};

type OnEvent = Box<dyn Fn(&Event) + Send + Sync>;

/// Watches the endpoints of one cluster and ejects the bad ones.
///
/// There is one per cluster, for as long as the cluster lives: a config push [updates](Self::update) it
/// and changes the [endpoints](Self::set_endpoints), and whoever is ejected stays ejected. An ejection is
/// [`HealthFlag::FailedOutlier`](mesh_core::HealthFlag::FailedOutlier) on the [`EndpointState`], which a
/// balancer reads; when the detector is dropped, all ejections end.
///
/// Rows of failures are noticed while they happen; everything else at the end of each interval, when
/// [`run`](Self::run) or its owner calls [`on_interval`](Self::on_interval).
pub struct Detector {
    cluster: Arc<str>,
    tracker: Mutex<Tracker>,
    limits: Arc<Limits>,
    stats: OutlierStats,
    rng: Rng,
    on_event: Option<OnEvent>,
}

/// Collects what a [`Detector`] needs.
pub struct DetectorBuilder {
    cluster: Arc<str>,
    config: OutlierConfig,
    stats: OutlierStats,
    rng: Rng,
    on_event: Option<OnEvent>,
}

impl DetectorBuilder {
    /// Where to count; by default the counts are not exported.
    #[must_use]
    pub fn stats(mut self, stats: OutlierStats) -> Self {
        self.stats = stats;
        self
    }

    /// The generator for `enforcing_*` and jitter; by default seeded by the system.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Who hears of every detection and of every end of an ejection, for the event log. It is called on
    /// the data path, by whoever noticed: it must be quick.
    #[must_use]
    pub fn on_event(mut self, on_event: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Box::new(on_event));
        self
    }

    /// The detector, with no endpoints yet.
    #[must_use]
    pub fn build(self) -> Arc<Detector> {
        let limits = Arc::new(Limits::default());
        limits.update(&self.config);
        Arc::new(Detector {
            cluster: self.cluster,
            tracker: Mutex::new(Tracker::new(self.config)),
            limits,
            stats: self.stats,
            rng: self.rng,
            on_event: self.on_event,
        })
    }
}

impl fmt::Debug for DetectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetectorBuilder")
            .field("cluster", &self.cluster)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Detector {
    /// Starts a detector for `cluster`.
    #[must_use]
    pub fn builder(cluster: impl Into<Arc<str>>, config: OutlierConfig) -> DetectorBuilder {
        DetectorBuilder {
            cluster: cluster.into(),
            config,
            stats: OutlierStats::detached(),
            rng: Rng::default(),
            on_event: None,
        }
    }

    /// A detector with nothing but a config.
    #[must_use]
    pub fn new(cluster: impl Into<Arc<str>>, config: OutlierConfig) -> Arc<Self> {
        Self::builder(cluster, config).build()
    }

    /// Changes the rules; ejections stay.
    pub fn update(&self, config: OutlierConfig) {
        self.lock().update(config, &self.limits);
    }

    /// How long an interval is.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.lock().config().interval()
    }

    /// The endpoints of the cluster are these and no others. Who stays keeps its history.
    pub fn set_endpoints<'a>(&self, endpoints: impl IntoIterator<Item = &'a Arc<EndpointState>>) {
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        let members: BTreeSet<_> = endpoints.iter().map(|e| e.address()).collect();
        self.with(|tracker| {
            // Those who leave first, so that the bound counts only those who stay.
            tracker.retain(|address| members.contains(address));
            for endpoint in &endpoints {
                tracker.join(endpoint);
            }
        });
    }

    /// The monitor of one endpoint, which joins the cluster if it was not in it. Beyond
    /// [`ENDPOINTS_MAX`](crate::state::ENDPOINTS_MAX) the monitor counts for nobody.
    #[must_use]
    pub fn monitor(self: &Arc<Self>, endpoint: &Arc<EndpointState>) -> Monitor {
        let counters = self.lock().join(endpoint).cloned().unwrap_or_default();
        Monitor::new(
            Arc::downgrade(self),
            Arc::clone(&self.limits),
            counters,
            endpoint.address().clone(),
        )
    }

    /// An endpoint left the cluster.
    pub fn remove(&self, address: &Address) {
        self.with(|tracker| tracker.leave(address));
    }

    /// An interval is over. Returns what happened; the event log has heard of it already.
    pub fn on_interval(&self, now: Instant) -> Vec<Event> {
        self.with(|tracker| tracker.on_interval(now, &self.rng))
            .into_iter()
            .map(|change| self.announce(change))
            .collect()
    }

    /// An active health check passed: ends an ejection, unless
    /// `successful_active_health_check_uneject_host` is false.
    pub fn on_health_check_passed(&self, now: Instant, address: &Address) -> Option<Event> {
        self.with(|tracker| tracker.on_health_check_passed(now, address, &self.rng))
            .map(|change| self.announce(change))
    }

    pub(crate) fn on_consecutive(
        &self,
        now: Instant,
        address: &Address,
        counters: &Arc<Counters>,
        detection: Detection,
    ) {
        let change = self
            .with(|tracker| tracker.on_consecutive(now, address, counters, detection, &self.rng));
        if let Some(change) = change {
            self.announce(change);
        }
    }

    /// What `/clusters` shows.
    #[must_use]
    pub fn report(&self) -> Report {
        self.lock().report()
    }

    /// What it counts.
    #[must_use]
    pub const fn stats(&self) -> &OutlierStats {
        &self.stats
    }

    /// Calls [`on_interval`](Self::on_interval) after every interval, until `shutdown` ends or the
    /// detector is dropped. Whoever owns the detector spawns this, on a runtime with a timer.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing: ejections then stay until something calls `on_interval` again.
    pub fn run<F>(self: &Arc<Self>, shutdown: F) -> impl Future<Output = ()> + use<F>
    where
        F: Future<Output = ()>,
    {
        let detector = Arc::downgrade(self);
        async move {
            let mut shutdown = pin!(shutdown);
            let mut timer = Timer::new();
            while let Some(interval) = detector.upgrade().map(|detector| detector.interval()) {
                timer.arm(clock::now() + interval);
                let over = poll_fn(|cx| {
                    if shutdown.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(true);
                    }
                    timer.poll(cx).map(|()| false)
                })
                .await;
                if over {
                    return;
                }
                sweep(&detector);
            }
        }
    }

    fn announce(&self, change: Change) -> Event {
        self.stats.count(&change);
        let event = Event {
            cluster: Arc::clone(&self.cluster),
            at: clock::wall(),
            change,
        };
        if let Some(on_event) = &self.on_event {
            on_event(&event);
        }
        event
    }

    /// Changes the tracker, and the gauge by as much: others may count in the same cells.
    fn with<T>(&self, change: impl FnOnce(&mut Tracker) -> T) -> T {
        let mut tracker = self.lock();
        let before = tracker.ejected();
        let result = change(&mut tracker);
        let after = tracker.ejected();
        drop(tracker);
        let gauge = self.stats.ejections_active();
        (before..after).for_each(|_| gauge.inc());
        (after..before).for_each(|_| gauge.dec());
        result
    }

    fn lock(&self) -> MutexGuard<'_, Tracker> {
        // A panic while it was held left a decision half done, at worst one gauge off by one.
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sweep(detector: &Weak<Detector>) {
    if let Some(detector) = detector.upgrade() {
        detector.on_interval(clock::now());
    }
}

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detector")
            .field("cluster", &self.cluster)
            .field("ejected", &self.lock().ejected())
            .finish_non_exhaustive()
    }
}

/// The ejections end with it.
impl Drop for Detector {
    fn drop(&mut self) {
        self.with(|tracker| tracker.retain(|_| false));
    }
}
