use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, OsStr},
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Whoever changes several files has so long from one to the next; they are then read once.
const SETTLE: Duration = Duration::from_millis(20);
/// A folder that never comes to rest is read after so many changes.
const CHANGES_MAX: usize = 50;

/// Notices when something changes in folders: files moved in or out, deleted, or closed after writing. A folder that
/// is replaced, or that is a link which is, goes on to be watched in its place.
#[derive(Debug)]
pub(super) struct Watch {
    events: AsyncFd<OwnedFd>,
    folders: BTreeMap<PathBuf, Watched>,
}

/// What the kernel calls a folder, and the one that it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watched {
    folder: Option<i32>,
    parent: Option<i32>,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags)?;
        #[expect(
            deprecated,
            reason = "its successor asks in unsafe code that the descriptor stays open, which an owned one does"
        )]
        let events = AsyncFd::new(watch)?;
        Ok(Self {
            events,
            folders: BTreeMap::new(),
        })
    }

    /// Watches one more folder; one that is watched already stays so.
    pub(super) fn add(&mut self, folder: &Path) -> io::Result<()> {
        let parent = parent(folder).and_then(|parent| self.watch(parent).ok());
        let own = self.watch(folder)?;
        let watched = Watched {
            folder: Some(own),
            parent,
        };
        self.folders.insert(folder.to_owned(), watched);
        Ok(())
    }

    /// A folder that is watched already keeps its descriptor.
    fn watch(&self, folder: &Path) -> io::Result<i32> {
        use inotify::WatchFlags as On;
        let events = On::MOVED_TO | On::MOVED_FROM | On::CLOSE_WRITE | On::DELETE | On::CREATE;
        Ok(inotify::add_watch(&self.events, folder, events)?)
    }

    /// Watches what now is where the folders were. A folder that is not there is heard of from the one that it lies
    /// in; where that one is read as well, whoever reads it adds the folder again.
    fn again(&mut self) {
        let paths: Vec<PathBuf> = self.folders.keys().cloned().collect();
        let before: BTreeSet<i32> = self.descriptors();
        for path in paths {
            let folder = self.watch(&path).ok();
            let read = parent(&path).is_some_and(|parent| self.folders.contains_key(parent));
            if folder.is_none() && read {
                self.folders.remove(&path);
                continue;
            }
            let parent = parent(&path).and_then(|parent| self.watch(parent).ok());
            self.folders.insert(path, Watched { folder, parent });
        }
        for gone in before.difference(&self.descriptors()) {
            // It may have gone by itself.
            let _ = inotify::remove_watch(&self.events, *gone);
        }
    }

    fn descriptors(&self) -> BTreeSet<i32> {
        let all = self.folders.values();
        all.flat_map(|one| [one.folder, one.parent])
            .flatten()
            .collect()
    }

    /// Waits a moment longer after a change, so that what changes together is seen together.
    pub(super) async fn settled(&mut self) -> io::Result<()> {
        for _ in 0..CHANGES_MAX {
            match tokio::time::timeout(SETTLE, self.changed()).await {
                Ok(event) => event?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Waits until something has changed.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            let seen = self.drain();
            if seen == Seen::Nothing {
                ready.clear_ready();
                continue;
            }
            drop(ready);
            if seen == Seen::Replaced {
                self.again();
            }
            return Ok(());
        }
    }

    /// Reads all events there are.
    fn drain(&self) -> Seen {
        use inotify::ReadFlags as Is;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.events, &mut buffer);
        let mut seen = Seen::Nothing;
        while let Ok(event) = reader.next() {
            let flags = event.events();
            let name = event.file_name().map(CStr::to_bytes);
            for (path, watched) in &self.folders {
                let own = path.file_name().map(OsStr::as_encoded_bytes);
                let is = |descriptor| descriptor == Some(event.wd());
                let gone =
                    flags.contains(Is::IGNORED) && (is(watched.folder) || is(watched.parent));
                if gone || (is(watched.parent) && own == name) {
                    seen = Seen::Replaced;
                } else if is(watched.folder)
                    // A new file has nothing in it until it is closed; a new folder may have files already.
                    && (!flags.contains(Is::CREATE) || flags.contains(Is::ISDIR))
                {
                    seen = seen.max(Seen::Changed);
                }
            }
            if flags.contains(Is::QUEUE_OVERFLOW) {
                seen = Seen::Replaced;
            }
        }
        seen
    }
}

/// What events say, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Nothing,
    Changed,
    Replaced,
}

/// The folder that it lies in, if it has a name there.
fn parent(folder: &Path) -> Option<&Path> {
    folder.file_name()?;
    let parent = folder.parent()?;
    Some(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
}
