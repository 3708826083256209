//! How a driver is talked to from elsewhere.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_core::clock;
use tokio::sync::{mpsc, oneshot};

use crate::{Resource, ResourceStatus, ResourceType, Subscriber};

use super::{
    Interest,
    client::{Handler, settle},
};

/// How many commands wait for the driver; who gives more waits.
const COMMANDS_MAX: usize = 64;

pub(super) enum Command {
    /// Something is in the mailbox.
    Change,
    Restore(ResourceType, Vec<Resource>),
    Dump(oneshot::Sender<Vec<ResourceStatus>>),
    Held(ResourceType, oneshot::Sender<(String, Vec<Resource>)>),
    IsConnected(oneshot::Sender<bool>),
}

/// Changes of what is wanted that the driver has not seen yet. All that are there at once are taken at once, so
/// that it is bounded by what can be wanted.
type Mailbox = Arc<Mutex<Interest>>;

/// Talks to a [`Driver`](super::Driver) from elsewhere. The driver ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub struct Commands {
    sender: mpsc::Sender<Command>,
    mailbox: Mailbox,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Change => "Change",
            Self::Restore(..) => "Restore",
            Self::Dump(_) => "Dump",
            Self::Held(..) => "Held",
            Self::IsConnected(_) => "IsConnected",
        })
    }
}

/// The driver's end of [`Commands`].
#[derive(Debug)]
pub(super) struct Inbox {
    commands: mpsc::Receiver<Command>,
    mailbox: Mailbox,
}

pub(super) fn inbox() -> (Inbox, Commands) {
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let mailbox = Mailbox::default();
    let inbox = Inbox {
        commands,
        mailbox: Arc::clone(&mailbox),
    };
    (inbox, Commands { sender, mailbox })
}

impl Inbox {
    /// The next command; none when nobody can give one any more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn recv(&mut self) -> Option<Command> {
        self.commands.recv().await
    }

    /// Does as it is told, and what follows from it.
    pub(super) fn obey<H: Handler>(
        &self,
        command: Command,
        subscriber: &mut Subscriber,
        handler: &mut H,
    ) {
        let now = clock::now();
        let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        let interest = std::mem::take(&mut *mailbox);
        drop(mailbox);
        let events = interest.apply(now, subscriber);
        settle(now, subscriber, handler, events);
        match command {
            Command::Change => {}
            Command::Restore(ty, resources) => {
                let events = subscriber.restore(now, ty, resources, handler);
                settle(now, subscriber, handler, events);
            }
            // Whoever asked may have gone; then nobody misses the answer.
            Command::IsConnected(answer) => drop(answer.send(subscriber.is_connected())),
            Command::Held(ty, answer) => {
                let version = subscriber.version(ty).to_owned();
                drop(answer.send((version, subscriber.all_held(ty))));
            }
            Command::Dump(answer) => drop(answer.send(subscriber.statuses())),
        }
    }
}

impl Commands {
    /// Changes what is wanted. When the driver is gone, nobody hears it.
    pub fn change(&self, interest: Interest) {
        let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        mailbox.extend(interest);
        drop(mailbox);
        // When there is no room, the driver has commands to read, and looks into the mailbox with each.
        let _ = self.sender.try_send(Command::Change);
    }

    /// Gives the driver what a cache had kept; false when the driver is gone.
    pub async fn restore(&self, ty: ResourceType, resources: Vec<Resource>) -> bool {
        self.sender
            .send(Command::Restore(ty, resources))
            .await
            .is_ok()
    }

    /// Where each resource stands; nothing when the driver is gone.
    pub async fn statuses(&self) -> Vec<ResourceStatus> {
        let (answer, statuses) = oneshot::channel();
        if self.sender.send(Command::Dump(answer)).await.is_err() {
            return Vec::new();
        }
        statuses.await.unwrap_or_default()
    }

    /// Whether there is a stream; false when the driver is gone.
    pub async fn is_connected(&self) -> bool {
        let (answer, connected) = oneshot::channel();
        let sent = self.sender.send(Command::IsConnected(answer)).await;
        sent.is_ok() && connected.await.unwrap_or(false)
    }

    /// Everything that is held of a type, with the version of the whole as far as there is one; nothing when the
    /// driver is gone.
    pub async fn held(&self, ty: ResourceType) -> Option<(String, Vec<Resource>)> {
        let (answer, held) = oneshot::channel();
        self.sender.send(Command::Held(ty, answer)).await.ok()?;
        held.await.ok()
    }
}
