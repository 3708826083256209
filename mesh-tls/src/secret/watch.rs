//! Hears of files that are moved into a folder.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::inotify;
use tokio::io::{Interest, unix::AsyncFd};

/// Room for one event with the longest name, and then some.
const BUFFER: usize = 4096;

/// A watch on one folder. Kubernetes moves a link named `..data` into it, people move files: both are seen;
/// files that are written in place are not, for they might be half written. Envoy does the same.
pub(super) struct FolderWatch {
    fd: AsyncFd<OwnedFd>,
}

impl FolderWatch {
    #[expect(
        deprecated,
        reason = "an owned descriptor that nobody else has is what the unsafe successor asks for"
    )]
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, folder, events)?;
        Ok(Self {
            fd: AsyncFd::with_interest(fd, Interest::READABLE)?,
        })
    }

    /// Waits until something was moved; `false` when the folder is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost: events stay in the kernel until they are read.
    pub(super) async fn moved(&self) -> io::Result<bool> {
        loop {
            let mut ready = self.fd.readable().await?;
            match drain(self.fd.get_ref()) {
                Ok(Some(there)) => return Ok(there),
                Ok(None) => ready.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }
}

/// All that waits in the kernel: `None` when nothing does.
fn drain(fd: &OwnedFd) -> io::Result<Option<bool>> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); BUFFER];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    let mut seen = None;
    loop {
        match reader.next() {
            Ok(event) => {
                let gone = event.events().contains(inotify::ReadFlags::IGNORED);
                seen = Some(seen.unwrap_or(true) && !gone);
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(seen),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
