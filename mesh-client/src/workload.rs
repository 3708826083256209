//! The SPIFFE Workload API as a source of secrets.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures_core::Stream;
use mesh_core::BoxFuture;
use mesh_tls::{
    Crl, Identity, SecretError, SecretSource, SecretUpdate, SpiffeBundles, SpiffeId, Trust,
    TrustBundle, TrustDomain, ValidationConfig,
};
use mesh_xds::workload::{WorkloadClient, X509Context, X509Svid};

use crate::cluster::lock;

/// What the agent behind `client` gives: the default identity of this process, and the bundles of its own trust domain
/// and of those that are federated. `base` is what is asked of peers besides.
///
/// Feed it to a [`SecretKeeper`](mesh_tls::SecretKeeper) with
/// [`ChainPolicy::MustReachTrust`](mesh_tls::rotation::ChainPolicy): a broken identity never replaces a good one, and an
/// agent that goes away takes nothing with it.
#[must_use]
pub fn workload_source(client: WorkloadClient, base: ValidationConfig) -> SecretSource {
    let updates = Arc::<Mutex<VecDeque<SecretUpdate>>>::default();
    let (contexts, failures) = (Arc::clone(&updates), Arc::clone(&updates));
    let running = client.run(
        move |context| {
            let mut updates = lock(&contexts);
            // The newest holds all that counts.
            updates.clear();
            // The trust first: the identity has to reach it.
            updates.push_back(SecretUpdate::Validation(validation(&context, &base)));
            updates.push_back(SecretUpdate::Identity(identity(&context)));
            true
        },
        move |status| {
            let text = format!("the Workload API: {}", status.message());
            let mut updates = lock(&failures);
            if updates.is_empty() {
                updates.push_back(SecretUpdate::Identity(Err(SecretError::Source(text))));
            }
            true
        },
    );
    Box::pin(Workload {
        running: Box::pin(running),
        updates,
    })
}

struct Workload {
    running: BoxFuture<()>,
    updates: Arc<Mutex<VecDeque<SecretUpdate>>>,
}

impl Stream for Workload {
    type Item = SecretUpdate;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SecretUpdate>> {
        if let Some(update) = lock(&self.updates).pop_front() {
            return Poll::Ready(Some(update));
        }
        let ended = self.running.as_mut().poll(cx).is_ready();
        match lock(&self.updates).pop_front() {
            None if !ended => Poll::Pending,
            update => Poll::Ready(update),
        }
    }
}

/// The first identity is the default one.
fn default(context: &X509Context) -> Result<&X509Svid, SecretError> {
    let svid = context.svids.first();
    svid.ok_or_else(|| SecretError::Source("the agent gave no identity".to_owned()))
}

fn identity(context: &X509Context) -> Result<Identity, SecretError> {
    let svid = default(context)?;
    let identity = Identity::from_der(&svid.certificates, &svid.key)?;
    let own = identity.spiffe_id();
    if own.as_ref().map(SpiffeId::as_str) != Some(&*svid.spiffe_id) {
        let text = format!("the agent's certificate is not that of {}", svid.spiffe_id);
        return Err(SecretError::Source(text));
    }
    Ok(identity)
}

fn validation(
    context: &X509Context,
    base: &ValidationConfig,
) -> Result<ValidationConfig, SecretError> {
    let svid = default(context)?;
    let own = (svid.spiffe_id.as_str(), &svid.bundle);
    let others = context.federated_bundles.iter();
    let others = others.map(|(domain, bundle)| (domain.as_str(), bundle));
    let bundles = [own].into_iter().chain(others).map(|(id, bundle)| {
        let bundle = TrustBundle::from_der(bundle)?;
        Ok((trust_domain(id)?, bundle))
    });
    let bundles = bundles.collect::<Result<Vec<_>, SecretError>>()?;
    let lists = context.crl.iter().map(|der| Crl::from_der(der));
    let lists = lists.collect::<Result<Vec<_>, _>>()?;
    let validation = base
        .clone()
        .with_trust(Trust::Spiffe(SpiffeBundles::new(bundles)));
    let validation = validation.with_crls(lists);
    validation.map_err(|error| SecretError::Source(error.to_string()))
}

/// `spiffe://name`, `spiffe://name/path` or the name alone.
fn trust_domain(id: &str) -> Result<TrustDomain, SecretError> {
    let rest = id.strip_prefix("spiffe://").unwrap_or(id);
    let name = rest.split('/').next().unwrap_or_default();
    TrustDomain::new(name).map_err(|error| SecretError::Source(format!("{id:?}: {error}")))
}
