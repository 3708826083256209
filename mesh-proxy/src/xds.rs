//! Listeners from a control plane.

use std::sync::Arc;

use mesh_client::xds::{Applying, FollowOptions, Follower, Listen, Unserved};
use mesh_config::{
    dynamic::Assembly,
    model::{Config, Listener},
};

use crate::process::Process;

/// Follows the control plane. The process becomes ready once the first config was applied.
pub(crate) fn start(process: &Arc<Process>, assembly: Assembly) -> Follower {
    let listen = Arc::new(Sockets(Arc::clone(process)));
    let options = FollowOptions::default();
    Follower::start(&process.mesh, &process.config, assembly, listen, &options)
}

/// The process's listeners.
struct Sockets(Arc<Process>);

impl Listen for Sockets {
    fn prepare(&self, listener: &Arc<Listener>) -> Result<(), String> {
        let reserved = self.0.listeners.reserve(listener);
        reserved.map_err(|error| format!("{error:#}"))
    }

    fn release(&self, name: &str) {
        self.0.listeners.release(name);
    }

    fn apply<'a>(&'a self, config: &'a Config) -> Applying<'a> {
        Box::pin(async {
            let listeners = &self.0.listeners;
            let mut plan = listeners.plan(&config.listeners, &config.version);
            let failed = std::mem::take(&mut plan.failed);
            let mut unserved: Vec<Unserved> = failed
                .into_iter()
                .map(|(listener, error)| Unserved {
                    listener,
                    reason: format!("{error:#}"),
                })
                .collect();
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
        self.0.become_ready();
    }
}
