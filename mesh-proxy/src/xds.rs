//! Listeners from a control plane.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::Context as _;
use mesh_client::xds::{Applying, CacheConfig, FollowOptions, Follower, Listen, Unserved};
use mesh_config::{
    dynamic::Assembly,
    model::{Config, Listener},
};

use tokio::sync::Notify;

use crate::{listener::Listeners, memory, process::Process};

/// So long nothing new may have come before memory is given back.
const QUIET: Duration = Duration::from_millis(200);

/// Follows the control plane. The process becomes ready once the first config was applied.
pub(crate) fn start(process: &Arc<Process>, assembly: Assembly) -> anyhow::Result<Follower> {
    let applied = Arc::<Notify>::default();
    tokio::spawn(give_back(Arc::clone(&applied)));
    let listen = Arc::new(Sockets {
        listeners: process.listeners.clone(),
        process: Arc::downgrade(process),
        applied,
    });
    let flags = &process.flags;
    let mut options = FollowOptions::default();
    options.cache = flags.config_cache.as_ref().map(|directory| CacheConfig {
        max_age: Duration::from_secs(flags.config_cache_max_age_s),
        secrets: flags.config_cache_secrets,
        ..CacheConfig::new(directory)
    });
    let follower = Follower::start(&process.mesh, &process.config, assembly, listen, &options);
    follower.context("the config cache cannot be used")
}

/// Gives memory back to the system once new config has been applied and no more comes: to read it takes
/// several times what it needs.
async fn give_back(applied: Arc<Notify>) {
    loop {
        applied.notified().await;
        while tokio::time::timeout(QUIET, applied.notified())
            .await
            .is_ok()
        {}
        memory::collect();
    }
}

/// The process's listeners.
struct Sockets {
    listeners: Listeners,
    /// It has the follower, which has this.
    process: Weak<Process>,
    /// Another whole config is in use.
    applied: Arc<Notify>,
}

impl Listen for Sockets {
    fn prepare(&self, listener: &Arc<Listener>) -> Result<(), String> {
        let reserved = self.listeners.reserve(listener);
        reserved.map_err(|error| format!("{error:#}"))
    }

    fn release(&self, name: &str) {
        self.listeners.release(name);
    }

    fn apply<'a>(&'a self, config: &'a Config) -> Applying<'a> {
        Box::pin(async {
            let listeners = &self.listeners;
            let mut plan = listeners.plan(&config.listeners, &config.version);
            let failed = std::mem::take(&mut plan.failed);
            let mut unserved: Vec<Unserved> = failed
                .into_iter()
                .map(|(listener, error)| Unserved {
                    listener,
                    reason: format!("{error:#}"),
                })
                .collect();
            self.applied.notify_one();
            if let Err(error) = listeners.commit(plan).await {
                // A worker that has ended: the process is about to.
                unserved.push(Unserved {
                    listener: "".into(),
                    reason: format!("{error:#}"),
                });
            }
            unserved
        })
    }

    fn settled(&self) {
        if let Some(process) = self.process.upgrade() {
            process.become_ready();
        }
    }
}
