//! A worker: one thread, one runtime, its own stacks and connections.

use std::{
    cell::Cell,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use mesh_client::Worker;
use mesh_core::{Timer, clock, stats};
use mesh_net::{BoundSocket, DetachedStream, Listener};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::listener::{self, Accept, Accepted};

/// What the control thread tells a worker.
enum Command {
    /// Accept from this socket from now on; answers whether that worked.
    Listen(Box<Listen>),
    /// End, and what is still served too.
    Quit,
}

struct Listen {
    socket: BoundSocket,
    accept: Accept,
    done: oneshot::Sender<io::Result<()>>,
}

/// The way to a worker.
#[derive(Clone)]
pub(crate) struct Commands {
    commands: mpsc::UnboundedSender<Command>,
    door: Door,
}

/// How many connections may be on their way from other workers; one more stays where it was accepted.
const HANDED_MAX: usize = 1024;

/// Where a worker takes connections in that others have accepted.
#[derive(Clone)]
pub(crate) struct Door(mpsc::Sender<Accepted<DetachedStream>>);

impl Door {
    /// Hands a connection in, or gives it back when too many are on their way, or the worker has ended.
    pub(crate) fn knock(
        &self,
        accepted: Accepted<DetachedStream>,
    ) -> Result<(), Accepted<DetachedStream>> {
        self.0.try_send(accepted).map_err(|error| match error {
            TrySendError::Full(back) | TrySendError::Closed(back) => back,
        })
    }
}

impl Commands {
    /// Where the worker takes connections in.
    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Lets the worker accept from `socket`.
    ///
    /// # Errors
    /// When its runtime cannot take the socket, or it has ended.
    pub(crate) async fn listen(&self, socket: BoundSocket, accept: Accept) -> io::Result<()> {
        let ended = || io::Error::other("the worker has ended");
        let (done, result) = oneshot::channel();
        let listen = Listen {
            socket,
            accept,
            done,
        };
        let command = Command::Listen(Box::new(listen));
        self.commands.send(command).map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }
}

/// A running worker thread. Dropping the handle ends it, and what it still serves.
pub(crate) struct Handle {
    commands: Commands,
    thread: Option<thread::JoinHandle<()>>,
}

impl Handle {
    pub(crate) fn commands(&self) -> Commands {
        self.commands.clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // It cannot be told when it has ended already.
        let _ = self.commands.commands.send(Command::Quit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

mesh_core::stats! {
    /// How busy a worker is, as `listener_manager.worker_<number>.dispatcher.<stat>`.
    pub(crate) struct DispatcherStats {
        /// How long it went on without looking for events, in microseconds.
        histogram loop_duration_us,
    }
}

/// Starts worker number `index`; it tells `stats` how busy it is, if there are any.
pub(crate) fn start(
    index: usize,
    worker: Arc<Worker>,
    stats: Option<DispatcherStats>,
) -> io::Result<Handle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let (door, handed) = mpsc::channel(HANDED_MAX);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all();
    if let Some(stats) = stats {
        time(&mut builder, stats);
    }
    let runtime = builder.build()?;
    let thread = thread::Builder::new()
        .name(format!("wrk:{index}"))
        .spawn(move || {
            // Stripe 0 belongs to the control thread.
            stats::set_thread_stripe(index + 1);
            Timer::keep_sleeps();
            runtime.block_on(run(worker, receiver, handed));
            // What is left of the connections ends with the runtime.
            runtime.shutdown_background();
        })?;
    Ok(Handle {
        commands: Commands {
            commands,
            door: Door(door),
        },
        thread: Some(thread),
    })
}

/// Times what happens between two looks for events.
fn time(builder: &mut tokio::runtime::Builder, stats: DispatcherStats) {
    thread_local! {
        static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    builder.on_thread_unpark(|| SINCE.set(Some(clock::now())));
    builder.on_thread_park(move || {
        if let Some(since) = SINCE.take() {
            let took = clock::now().saturating_duration_since(since).as_micros();
            let took = u64::try_from(took).unwrap_or(u64::MAX);
            stats.loop_duration_us().record(took);
        }
    });
}

async fn run(
    worker: Arc<Worker>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut handed: mpsc::Receiver<Accepted<DetachedStream>>,
) {
    let sweep = tokio::spawn(sweep(worker));
    tokio::spawn(async move {
        while let Some(accepted) = handed.recv().await {
            listener::attach(accepted);
        }
    });
    while let Some(Command::Listen(listen)) = commands.recv().await {
        let Listen {
            socket,
            accept,
            done,
        } = *listen;
        let result = Listener::from_std(socket).map(|listener| {
            tokio::spawn(listener::run(listener, accept));
        });
        // Nobody waits any more when the start was given up.
        let _ = done.send(result);
    }
    sweep.abort();
}

async fn sweep(worker: Arc<Worker>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        worker.sweep(clock::now()).await;
    }
}
