//! Secrets that a control plane sends, by name.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_core::Stream;
use mesh_config::model;
use mesh_tls::{FolderWatcher, SecretError, SecretSource, SecretUpdate, ValidationDefaults};
use tokio::sync::watch;
use tokio_stream::{StreamExt as _, wrappers::WatchStream};

/// The newest secret of a name, once it has come.
type Slot = watch::Sender<Option<Arc<model::Secret>>>;

/// The secrets of a process. Cloning shares them.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Those of the newest config, and those that somebody has or waits for.
    slots: Arc<Mutex<HashMap<Arc<str>, Slot>>>,
    /// For those that are in files.
    folders: FolderWatcher,
}

impl Secrets {
    fn slots(&self) -> MutexGuard<'_, HashMap<Arc<str>, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are the secrets from now on. One that is gone is kept by those who have it: a peer with the last
    /// good certificate is better than none.
    pub(crate) fn publish(&self, secrets: &BTreeMap<Arc<str>, Arc<model::Secret>>) {
        let mut slots = self.slots();
        slots.retain(|name, slot| slot.receiver_count() > 0 || secrets.contains_key(name));
        for (name, secret) in secrets {
            let slot = slots.entry(Arc::clone(name)).or_default();
            slot.send_if_modified(|known| {
                let news = known
                    .as_ref()
                    .is_none_or(|known| !Arc::ptr_eq(known, secret));
                if news {
                    *known = Some(Arc::clone(secret));
                }
                news
            });
        }
    }

    /// What watches the folders of secrets.
    pub(crate) const fn folders(&self) -> &FolderWatcher {
        &self.folders
    }

    fn stream(&self, name: &str) -> impl Stream<Item = Arc<model::Secret>> + Send + use<> {
        let receiver = self.slots().entry(name.into()).or_default().subscribe();
        WatchStream::new(receiver).filter_map(|secret| secret)
    }

    /// The certificates of that name, as they come.
    pub(crate) fn certificate(&self, name: &str) -> SecretSource {
        boxed(self.stream(name).map(|secret| {
            SecretUpdate::Identity(match &*secret {
                model::Secret::Certificate(identity) => Ok((**identity).clone()),
                model::Secret::Validation(_) => Err(other_kind()),
            })
        }))
    }

    /// What is asked of peers under that name, with what is asked besides, as it comes.
    pub(crate) fn validation(&self, name: &str, defaults: ValidationDefaults) -> SecretSource {
        boxed(self.stream(name).map(move |secret| {
            SecretUpdate::Validation(match &*secret {
                model::Secret::Validation(config) => defaults
                    .merge((**config).clone())
                    .map_err(|error| SecretError::Source(error.to_string())),
                model::Secret::Certificate(_) => Err(other_kind()),
            })
        }))
    }
}

fn other_kind() -> SecretError {
    SecretError::Source("the secret is of another kind".to_owned())
}

fn boxed(stream: impl Stream<Item = SecretUpdate> + Send + 'static) -> SecretSource {
    let boxed: Pin<Box<dyn Stream<Item = SecretUpdate> + Send>> = Box::pin(stream);
    boxed
}
