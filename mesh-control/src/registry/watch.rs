use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Whoever changes several files has so long from one to the next; they are then read once.
const SETTLE: Duration = Duration::from_millis(20);
/// A folder that never comes to rest is read after so many changes.
const CHANGES_MAX: usize = 50;

/// Notices when something changes in folders: files moved in or out, deleted, or closed after writing.
#[derive(Debug)]
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags)?;
        #[expect(
            deprecated,
            reason = "its successor asks in unsafe code that the descriptor stays open, which an owned one does"
        )]
        Ok(Self(AsyncFd::new(watch)?))
    }

    /// Watches one more folder; one that is watched already stays so.
    pub(super) fn add(&self, folder: &Path) -> io::Result<()> {
        use inotify::WatchFlags as On;
        let events = On::MOVED_TO | On::MOVED_FROM | On::CLOSE_WRITE | On::DELETE | On::CREATE;
        inotify::add_watch(&self.0, folder, events)?;
        Ok(())
    }

    /// Waits a moment longer after a change, so that what changes together is seen together.
    pub(super) async fn settled(&self) -> io::Result<()> {
        for _ in 0..CHANGES_MAX {
            match tokio::time::timeout(SETTLE, self.changed()).await {
                Ok(event) => event?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Waits until something has changed.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            if self.drain() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Reads all events there are; whether there was one that matters.
    fn drain(&self) -> bool {
        use inotify::ReadFlags as Is;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut hit = false;
        while let Ok(event) = reader.next() {
            let flags = event.events();
            // A new file has nothing in it until it is closed; a new folder may have files already.
            hit |= !flags.contains(Is::CREATE) || flags.contains(Is::ISDIR);
        }
        hit
    }
}
