//! The one listener of a client in this process.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_config::{
    dynamic::Assembly,
    model::{Config, Listener},
};
use mesh_net::Connect;
use tokio::sync::watch;

use super::{Applying, CacheConfig, FollowOptions, Follower, Listen, Unserved};
use crate::{ClientError, Manager, Mesh, Worker};

/// The manager of a listener, once it has come; it follows every change.
pub(crate) async fn follow(
    mesh: &Mesh,
    config: &Arc<Config>,
    assembly: Assembly,
    (name, cache): (Option<String>, Option<CacheConfig>),
    connector: Arc<dyn Connect>,
) -> Result<(Arc<Worker>, Manager, Follower), ClientError> {
    let worker = Worker::new(mesh.clone(), connector);
    let (settled, mut is_settled) = watch::channel(false);
    let listen = Arc::new(One {
        worker: Arc::clone(&worker),
        name: name.clone(),
        manager: Mutex::default(),
        settled,
    });
    let options = FollowOptions {
        listener: name.clone(),
        cache,
    };
    // One of the bootstrap's own is there from the start.
    if let Err(reason) = listen.update(config) {
        return Err(io::Error::other(reason).into());
    }
    let follower = Follower::start(mesh, config, assembly, listen.clone(), &options)?;
    // It can only fail when the follower has gone, and that is here.
    let _ = is_settled.wait_for(|settled| *settled).await;
    let manager = listen.current();
    match manager {
        Some(manager) => Ok((worker, manager, follower)),
        None => Err(ClientError::NoListener(name.unwrap_or_default())),
    }
}

struct One {
    worker: Arc<Worker>,
    /// The first that has a connection manager, unless it is known by name.
    name: Option<String>,
    manager: Mutex<Option<Manager>>,
    settled: watch::Sender<bool>,
}

impl One {
    fn current(&self) -> Option<Manager> {
        let manager = self.manager.lock().unwrap_or_else(PoisonError::into_inner);
        manager.clone()
    }

    fn is_it(&self, listener: &Listener) -> bool {
        let name = self.name.as_ref();
        name.is_none_or(|name| *listener.name == **name) && listener.manager().is_some()
    }

    fn update(&self, config: &Config) -> Result<(), String> {
        let listener = config
            .listeners
            .iter()
            .find(|listener| self.is_it(listener));
        // One that is gone answers as it did: there is nowhere else to go.
        let Some(next) = listener.and_then(|listener| listener.manager()) else {
            return Ok(());
        };
        let mut manager = self.manager.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: io::Error| error.to_string();
        match &mut *manager {
            None => {
                let new = Manager::new(&self.worker, next, &config.version).map_err(failed)?;
                *manager = Some(new);
            }
            Some(manager) => {
                manager.refresh();
                if !Arc::ptr_eq(manager.config(), next) {
                    let next = manager.next(next, &config.version).map_err(failed)?;
                    manager.replace(next);
                }
            }
        }
        Ok(())
    }
}

impl Listen for One {
    fn prepare(&self, listener: &Arc<Listener>) -> Result<(), String> {
        match &self.name {
            Some(name) if *listener.name == **name && listener.manager().is_none() => {
                Err("it has no HTTP connection manager".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn release(&self, _: &str) {}

    fn apply<'a>(&'a self, config: &'a Config) -> Applying<'a> {
        let unserved = self.update(config).err().map(|reason| Unserved {
            listener: self.name.as_deref().unwrap_or_default().into(),
            reason,
        });
        Box::pin(std::future::ready(unserved.into_iter().collect()))
    }

    fn settled(&self) {
        self.settled.send_replace(true);
    }
}
