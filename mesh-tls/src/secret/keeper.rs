use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{
    Identity, SecretError, SecretSource, SecretUpdate, TrustBundle,
    rotation::{ChainPolicy, Change, Held, Rotation, Standing},
};
use crate::{Certificate, Trust, Usage, ValidationConfig, Validator, Validity, WallClock};

/// How often the gauges and the choice are looked at when nothing happens: it bounds what a jump of the
/// wall clock can do.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

mesh_core::stats! {
    /// What becomes of secrets. Envoy: `sds.<name>.`, the gauges aside.
    pub struct KeeperStats {
        /// Secrets that were taken.
        counter update_success,
        /// Secrets that were refused.
        counter update_rejected,
        /// Secrets that came but are not served; the one before is.
        counter key_rotation_failed,
        /// Seconds until the served certificate ends.
        gauge leaf_seconds_to_expiry,
        /// Seconds until the first of its intermediates ends.
        gauge issuer_seconds_to_expiry,
        /// Seconds until the last of the trusted certificates ends.
        gauge bundle_seconds_to_expiry,
        /// 1 while what is served has ended or does not reach the trust, and nothing better is there.
        gauge degraded,
    }
}

/// A value that changes: the newest good secret. Clones see the same.
#[derive(Debug, Clone)]
pub struct Secret<T>(watch::Receiver<Option<Arc<T>>>);

impl<T> Secret<T> {
    /// One that never changes.
    #[must_use]
    pub fn fixed(value: T) -> Self {
        Self(watch::channel(Some(Arc::new(value))).1)
    }

    /// The newest good one; `None` when none came yet.
    #[must_use]
    pub fn current(&self) -> Option<Arc<T>> {
        self.0.borrow().clone()
    }

    /// Waits for the first good one; `None` when none can come any more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ready(&mut self) -> Option<Arc<T>> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Waits for another one than was there when this, or [`current`](Self::current), was called last; `false`
    /// when none can come any more.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Takes what a source sends, serves what is good, and says what is not.
///
/// Connections that run keep what they began with; new ones get the new.
pub struct SecretKeeper {
    name: Arc<str>,
    rotation: Rotation<Identity>,
    /// Numbers what the source sends.
    sequence: u64,
    stats: KeeperStats,
    clock: WallClock,
    identity: watch::Sender<Option<Arc<Identity>>>,
    validation: watch::Sender<Option<Arc<ValidationConfig>>>,
}

impl SecretKeeper {
    /// A keeper of secrets that logs call `name`.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, policy: ChainPolicy, stats: KeeperStats) -> Self {
        Self {
            name: name.into(),
            rotation: Rotation::new(policy),
            sequence: 0,
            stats,
            clock: Arc::new(mesh_core::clock::wall),
            identity: watch::channel(None).0,
            validation: watch::channel(None).0,
        }
    }

    /// With another clock than the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: WallClock) -> Self {
        self.clock = clock;
        self
    }

    /// The identity to serve.
    #[must_use]
    pub fn identity(&self) -> Secret<Identity> {
        Secret(self.identity.subscribe())
    }

    /// What peers have to be.
    #[must_use]
    pub fn validation(&self) -> Secret<ValidationConfig> {
        Secret(self.validation.subscribe())
    }

    /// Listens to `source`, for ever: spawn it, and abort it when the secret has no user left.
    ///
    /// # Cancel safety
    /// What was taken stays served.
    pub async fn run(mut self, mut source: SecretSource) {
        let mut open = true;
        loop {
            let now = (self.clock)();
            let deadline = self.rotation.next_deadline(now);
            let until = deadline.and_then(|deadline| deadline.duration_since(now).ok());
            let wait = until.unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL);
            tokio::select! {
                update = poll_fn(|cx| source.as_mut().poll_next(cx)), if open => match update {
                    Some(update) => self.on_update(update),
                    None => open = false,
                },
                () = tokio::time::sleep(wait) => {
                    let change = self.rotation.on_time((self.clock)());
                    self.apply(change);
                }
            }
        }
    }

    /// Takes one update; [`run`](Self::run) does it for each of a stream. The same again is no news.
    pub fn on_update(&mut self, update: SecretUpdate) {
        let is_known = match &update {
            SecretUpdate::Identity(Ok(identity)) => self.rotation.newest() == Some(identity),
            SecretUpdate::Validation(Ok(validation)) => self.rotation.trust() == Some(validation),
            _ => false,
        };
        if is_known {
            return;
        }
        self.sequence += 1;
        let now = (self.clock)();
        let change = match update {
            SecretUpdate::Identity(Ok(identity)) => {
                self.rotation.on_identity(now, self.sequence, identity)
            }
            SecretUpdate::Validation(Ok(validation)) => {
                self.rotation.on_trust(now, self.sequence, validation)
            }
            SecretUpdate::Identity(Err(error)) | SecretUpdate::Validation(Err(error)) => {
                self.stats.update_rejected().inc();
                self.refuse(&error);
                return;
            }
        };
        match &change.refused {
            Some(error) => {
                let unsuitable = matches!(error, SecretError::BundleExpired { .. });
                if unsuitable && !change.trust {
                    self.stats.update_rejected().inc();
                }
                self.refuse(error);
            }
            None => self.stats.update_success().inc(),
        }
        self.apply(change);
    }

    fn refuse(&self, error: &SecretError) {
        self.stats.key_rotation_failed().inc();
        let kept = self.rotation.serving().is_some();
        tracing::warn!(secret = %self.name, %error, kept, "a secret is not taken");
    }

    fn apply(&mut self, change: Change) {
        if change.identity {
            let serving = self.rotation.serving().cloned().map(Arc::new);
            if let Some(identity) = &serving {
                tracing::info!(
                    secret = %self.name,
                    subject = identity.leaf().subject(),
                    serial = identity.leaf().serial(),
                    "another certificate is served"
                );
            }
            self.identity.send_replace(serving);
        }
        if change.trust {
            let trust = self.rotation.trust().cloned().map(Arc::new);
            if trust.as_ref().is_some_and(|trust| trust.is_dangerous()) {
                tracing::warn!(secret = %self.name, "any certificate of a peer is accepted");
            }
            self.validation.send_replace(trust);
        }
        self.gauge();
    }

    fn gauge(&self) {
        let now = (self.clock)();
        let left = |end: SystemTime| end.duration_since(now).unwrap_or_default().as_secs();
        if let Some(identity) = self.rotation.serving() {
            let leaf = identity.validity().not_after;
            self.stats.leaf_seconds_to_expiry().set(left(leaf));
            if let Some(issuer) = identity.issuer_not_after() {
                self.stats.issuer_seconds_to_expiry().set(left(issuer));
            }
        }
        if let Some(end) = self.rotation.trust().and_then(trust_end) {
            self.stats.bundle_seconds_to_expiry().set(left(end));
        }
        let bad = [Standing::LastResort, Standing::Untrusted].contains(&self.rotation.standing());
        self.stats.degraded().set(u64::from(bad));
    }
}

/// When the last anchor ends; with several trust domains, when the first of them is left without.
fn trust_end(validation: &ValidationConfig) -> Option<SystemTime> {
    match validation.trust() {
        Trust::DangerousAnyone => None,
        Trust::Bundle(bundle) => Some(bundle.not_after()),
        Trust::Spiffe(bundles) => bundles
            .iter()
            .map(|(_, one)| TrustBundle::not_after(one))
            .min(),
    }
}

impl Held for Identity {
    type Trust = ValidationConfig;

    fn validity(&self) -> Validity {
        // The chain is of use while all of it is.
        let all = || self.chain().iter().map(|one| one.validity());
        let leaf = self.leaf().validity();
        Validity {
            not_before: all()
                .map(|one| one.not_before)
                .max()
                .unwrap_or(leaf.not_before),
            not_after: all()
                .map(|one| one.not_after)
                .min()
                .unwrap_or(leaf.not_after),
        }
    }

    fn subject(&self) -> String {
        describe(self.leaf())
    }

    fn reaches(&self, trust: &ValidationConfig, now: SystemTime) -> Result<(), String> {
        // Only who vouches for it counts; the names are asked of peers.
        let validator = Validator::new(ValidationConfig::new(trust.trust().clone()));
        let chain: Vec<_> = self
            .chain()
            .iter()
            .map(|one| one.shared_der().clone())
            .collect();
        let as_server = validator.verify(&chain, Usage::Server, None, now);
        let either = as_server.or_else(|_| validator.verify(&chain, Usage::Client, None, now));
        either.map_err(|why| why.to_string())
    }

    fn check_trust(trust: &ValidationConfig, now: SystemTime) -> Result<(), SecretError> {
        match trust_end(trust) {
            Some(not_after) if not_after < now => Err(SecretError::BundleExpired { not_after }),
            _ => Ok(()),
        }
    }
}

/// The name by which people know a certificate.
fn describe(leaf: &Certificate) -> String {
    let id = leaf.spiffe_id().map(|id| id.to_string());
    id.unwrap_or_else(|| leaf.subject().to_owned())
}
