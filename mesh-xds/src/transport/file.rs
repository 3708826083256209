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

use super::{Handler, client::take};

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
        if std::mem::replace(&mut self.read_once, true) {
            self.moved().await?;
        }
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

    /// Feeds `subscriber` from the file, for ever. The subscriber is state-of-the-world and subscribed to
    /// what is wanted of `ty`. `parse` reads what the file holds: YAML, JSON or protobuf is for the
    /// caller to know. A file that cannot be read or parsed is reported, and what was there stays.
    pub async fn run<H: Handler>(
        mut self,
        ty: ResourceType,
        mut subscriber: Subscriber,
        mut handler: H,
        parse: impl Fn(&Path, &[u8]) -> Result<DiscoveryResponse, String>,
        mut failed: impl FnMut(&str),
    ) {
        subscriber.on_connected();
        loop {
            let content = self.next().await.map_err(|error| error.to_string());
            match content.and_then(|bytes| read(ty, &self.config.path, &bytes, &parse)) {
                Ok(response) => deliver(&mut subscriber, &mut handler, response),
                Err(reason) => failed(&format!("{}: {reason}", self.config.path.display())),
            }
        }
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

fn deliver<H: Handler>(subscriber: &mut Subscriber, handler: &mut H, response: DiscoveryResponse) {
    take(clock::now(), subscriber, handler, Response::Sotw(response));
    let now = clock::now();
    // Nobody listens to what we would ask for.
    while subscriber.poll_request(now).is_some() {}
}
