use std::{
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use mesh_core::clock;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use crate::{
    ResourceType, Subscriber, version_of,
    wire::{DiscoveryResponse, Response},
};

use super::{
    Commands, Handler,
    client::{settle, sleep_until, take},
    commands::{Inbox, inbox},
};

/// The largest file that is read. What is larger is refused, and the config before it stays.
const FILE_BYTES_MAX: u64 = super::MESSAGE_BYTES_MAX as u64;

/// A file with a `DiscoveryResponse`.
///
/// # Envoy
/// `PathConfigSource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathConfigSource {
    /// The file.
    pub path: PathBuf,
    /// When set, anything moved into this directory makes the file be read again, instead of only the
    /// file itself: for files behind a symbolic link that is swapped.
    pub watched_directory: Option<PathBuf>,
}

/// Watches a [`PathConfigSource`]. Only moves count: a file that is written in place would be read half
/// written.
#[derive(Debug)]
pub struct FileSource {
    config: PathConfigSource,
    watch: AsyncFd<OwnedFd>,
    read_once: bool,
}

impl FileSource {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub fn new(config: PathConfigSource) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags)?;
        let directory = match &config.watched_directory {
            Some(directory) => directory.as_path(),
            None => match config.path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            },
        };
        inotify::add_watch(&watch, directory, inotify::WatchFlags::MOVED_TO)?;
        #[expect(
            deprecated,
            reason = "its successor asks in unsafe code that the descriptor stays open, which an owned one does"
        )]
        let watch = AsyncFd::new(watch)?;
        Ok(Self {
            config,
            watch,
            read_once: false,
        })
    }

    /// The file's content: at once for the first time, then whenever it was replaced.
    ///
    /// # Errors
    /// When it cannot be read, which may be otherwise the next time.
    ///
    /// # Cancel safety
    /// A replacement that was seen by a cancelled call is not told again before the next one.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        self.replaced().await?;
        self.content().await
    }

    /// Waits for a replacement; the first time, there is one.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn replaced(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.read_once, true) {
            self.moved().await?;
        }
        Ok(())
    }

    async fn content(&self) -> io::Result<Vec<u8>> {
        let size = tokio::fs::metadata(&self.config.path).await?.len();
        if size > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{size} bytes are more than the {FILE_BYTES_MAX} that are read"
            )));
        }
        tokio::fs::read(&self.config.path).await
    }

    /// Waits for something to be moved in.
    async fn moved(&self) -> io::Result<()> {
        loop {
            let mut ready = self.watch.readable().await?;
            if self.drain() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Reads all events there are; whether one was about the file.
    fn drain(&self) -> bool {
        let name = self.config.path.file_name();
        let any = self.config.watched_directory.is_some();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.watch, &mut buffer);
        let mut hit = false;
        while let Ok(event) = reader.next() {
            use std::os::unix::ffi::OsStrExt as _;
            let lost = event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
            let ours = event.file_name().map(|n| n.to_bytes()) == name.map(|n| n.as_bytes());
            hit |= lost || any || ours;
        }
        hit
    }
}

/// Feeds a subscriber from a file, as a [`Driver`](super::Driver) does from a stream.
#[derive(Debug)]
pub struct FileDriver<H> {
    source: FileSource,
    ty: ResourceType,
    subscriber: Subscriber,
    handler: H,
    inbox: Inbox,
}

impl<H: Handler> FileDriver<H> {
    /// A driver of `subscriber`, which is state-of-the-world, for what the file has of `ty`.
    pub fn new(
        source: FileSource,
        ty: ResourceType,
        subscriber: Subscriber,
        handler: H,
    ) -> (Self, Commands) {
        let (inbox, commands) = inbox();
        let driver = Self {
            source,
            ty,
            subscriber,
            handler,
            inbox,
        };
        (driver, commands)
    }

    /// Takes the file whenever it is replaced, until all [`Commands`] are dropped. `parse` reads what it holds:
    /// YAML, JSON or protobuf is for the caller to know. A file that cannot be read or parsed is reported, and
    /// what was there stays.
    pub async fn run(
        mut self,
        parse: impl Fn(&Path, &[u8]) -> Result<DiscoveryResponse, String>,
        mut failed: impl FnMut(&str),
    ) {
        self.subscriber.on_connected();
        let mut last: Option<DiscoveryResponse> = None;
        loop {
            let due = self.subscriber.next_deadline();
            tokio::select! {
                replaced = self.source.replaced() => {
                    let content = match replaced {
                        Ok(()) => self.source.content().await,
                        Err(error) => Err(error),
                    };
                    let content = content.map_err(|error| error.to_string());
                    let path = &self.source.config.path;
                    match content.and_then(|bytes| read(self.ty, path, &bytes, &parse)) {
                        Ok(response) => {
                            self.deliver(response.clone());
                            last = Some(response);
                        }
                        Err(reason) => failed(&format!("{}: {reason}", path.display())),
                    }
                }
                command = self.inbox.recv() => {
                    let Some(command) = command else { return };
                    self.inbox.obey(command, &mut self.subscriber, &mut self.handler);
                    // What is wanted now may have been in the file all the time.
                    if let Some(last) = &last {
                        self.deliver(last.clone());
                    }
                }
                () = sleep_until(due) => {
                    let now = clock::now();
                    let events = self.subscriber.on_timer(now);
                    settle(now, &mut self.subscriber, &mut self.handler, events);
                }
            }
        }
    }

    fn deliver(&mut self, response: DiscoveryResponse) {
        let now = clock::now();
        let response = Response::Sotw(response);
        take(now, &mut self.subscriber, &mut self.handler, response);
        // Nobody listens to what we would ask for.
        while self.subscriber.poll_request(now).is_some() {}
    }
}

fn read(
    ty: ResourceType,
    path: &Path,
    bytes: &[u8],
    parse: impl Fn(&Path, &[u8]) -> Result<DiscoveryResponse, String>,
) -> Result<DiscoveryResponse, String> {
    let mut response = parse(path, bytes)?;
    if response.type_url.is_empty() {
        ty.type_url().clone_into(&mut response.type_url);
    }
    if response.version_info.is_empty() {
        response.version_info = version_of(bytes);
    }
    Ok(response)
}
