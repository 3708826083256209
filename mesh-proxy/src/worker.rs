//! A worker: one thread, one runtime, its own stacks and connections.

use std::{io, sync::Arc, thread, time::Duration};

use mesh_client::{Manager, Worker};
use mesh_config::model;
use mesh_core::{clock, stats};
use mesh_net::{BoundSocket, Listener};
use tokio::sync::{mpsc, oneshot};

use crate::listener::{self, Accepting, ListenerStats};

/// What the control thread tells a worker.
pub(crate) enum Command {
    /// Serve this listener from now on; answers whether that worked.
    Listen(Box<Listen>),
}

pub(crate) struct Listen {
    pub(crate) config: Arc<model::Listener>,
    pub(crate) version: Arc<str>,
    pub(crate) socket: BoundSocket,
    pub(crate) stats: ListenerStats,
    pub(crate) phase: tokio::sync::watch::Receiver<crate::drain::Phase>,
    pub(crate) open: Arc<std::sync::atomic::AtomicUsize>,
    pub(crate) done: oneshot::Sender<io::Result<()>>,
}

/// A running worker thread. Dropping the handle ends it, and what it still serves.
pub(crate) struct Handle {
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Handle {
    pub(crate) fn send(&self, command: Command) -> bool {
        self.commands
            .as_ref()
            .is_some_and(|commands| commands.send(command).is_ok())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts worker number `index`.
pub(crate) fn start(index: usize, worker: Arc<Worker>) -> io::Result<Handle> {
    let (commands, mut receiver) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = thread::Builder::new()
        .name(format!("wrk:{index}"))
        .spawn(move || {
            // Stripe 0 belongs to the control thread.
            stats::set_thread_stripe(index + 1);
            runtime.block_on(async {
                let sweep = tokio::spawn(sweep(Arc::clone(&worker)));
                while let Some(command) = receiver.recv().await {
                    match command {
                        Command::Listen(listen) => begin(&worker, *listen),
                    }
                }
                sweep.abort();
            });
            // What is left of the connections ends with the runtime.
            runtime.shutdown_background();
        })?;
    Ok(Handle {
        commands: Some(commands),
        thread: Some(thread),
    })
}

fn begin(worker: &Arc<Worker>, listen: Listen) {
    let started = Manager::new(worker, &listen.config.manager, &listen.version)
        .and_then(|manager| Ok((manager, Listener::from_std(listen.socket)?)));
    let result = started.map(|(manager, listener)| {
        let accepting = Accepting {
            name: Arc::clone(&listen.config.name),
            manager,
            stats: listen.stats,
            phase: listen.phase,
            open: listen.open,
        };
        tokio::spawn(listener::run(Arc::new(listener), accepting));
    });
    // Nobody waits any more when the start was given up.
    let _ = listen.done.send(result);
}

async fn sweep(worker: Arc<Worker>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        worker.sweep(clock::now());
    }
}
