//! Hears of files that are moved into folders.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use rustix::fs::inotify;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
};

/// Room for one event with the longest name, and then some.
const BUFFER: usize = 4096;

/// Watches folders for whoever shares it: one `inotify` instance, of which a user has 128 on most systems,
/// for all of them. Cloning shares it. It is of the runtime that it is used in first.
#[derive(Debug, Clone, Default)]
pub struct FolderWatcher(Arc<Mutex<Option<Arc<Folders>>>>);

#[derive(Debug)]
struct Folders {
    fd: AsyncFd<OwnedFd>,
    /// Who watches a folder, by the kernel's number for it. Grows with those who watch.
    watched: Mutex<HashMap<i32, Vec<Weak<Seen>>>>,
}

/// What has happened and was not told yet.
#[derive(Debug, Default)]
struct Seen {
    /// `false` when the folder is gone.
    there: Mutex<Option<bool>>,
    news: Notify,
}

/// A watch on one folder. Kubernetes moves a link named `..data` into it, people move files: both are seen;
/// files that are written in place are not, for they might be half written. Envoy does the same.
pub(super) struct FolderWatch {
    number: i32,
    folders: Arc<Folders>,
    seen: Arc<Seen>,
}

impl FolderWatcher {
    pub(super) fn watch(&self, folder: &Path) -> io::Result<FolderWatch> {
        let mut folders = lock(&self.0);
        let folders = match &*folders {
            Some(folders) => Arc::clone(folders),
            None => Arc::clone(folders.insert(Arc::new(Folders::new()?))),
        };
        let seen = Arc::<Seen>::default();
        let number = folders.add(folder, &seen)?;
        Ok(FolderWatch {
            number,
            folders,
            seen,
        })
    }
}

impl FolderWatch {
    /// Waits until something was moved; `false` when the folder is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost: events stay in the kernel, or with this watch, until they are told.
    pub(super) async fn moved(&self) -> io::Result<bool> {
        loop {
            if let Some(there) = lock(&self.seen.there).take() {
                return Ok(there);
            }
            // Whoever hears of an event first tells all whom it concerns.
            tokio::select! {
                () = self.seen.news.notified() => {}
                ready = self.folders.fd.readable() => {
                    let mut ready = ready?;
                    if !self.folders.dispatch()? {
                        ready.clear_ready();
                    }
                }
            }
        }
    }
}

impl Drop for FolderWatch {
    fn drop(&mut self) {
        self.folders.remove(self.number, &self.seen);
    }
}

impl Folders {
    #[expect(
        deprecated,
        reason = "an owned descriptor that nobody else has is what the unsafe successor asks for"
    )]
    fn new() -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        Ok(Self {
            fd: AsyncFd::with_interest(fd, Interest::READABLE)?,
            watched: Mutex::default(),
        })
    }

    fn add(&self, folder: &Path, seen: &Arc<Seen>) -> io::Result<i32> {
        // Nobody looks at events before it is known whom they concern.
        let mut watched = lock(&self.watched);
        let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ONLYDIR;
        let number = inotify::add_watch(self.fd.get_ref(), folder, events)?;
        watched
            .entry(number)
            .or_default()
            .push(Arc::downgrade(seen));
        Ok(number)
    }

    fn remove(&self, number: i32, seen: &Arc<Seen>) {
        let mut watched = lock(&self.watched);
        let Some(watching) = watched.get_mut(&number) else {
            return;
        };
        watching.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(seen)));
        if watching.is_empty() {
            watched.remove(&number);
            // It can only fail when the folder has gone, and the watch with it.
            let _ = inotify::remove_watch(self.fd.get_ref(), number);
        }
    }

    /// Takes all that waits in the kernel; whether anything did.
    fn dispatch(&self) -> io::Result<bool> {
        let mut watched = lock(&self.watched);
        let mut buffer = [std::mem::MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
        let mut any = false;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => return Ok(any),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            any = true;
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                // Nobody knows what was lost.
                watched.values().flatten().for_each(|one| tell(one, true));
            } else if event.events().contains(inotify::ReadFlags::IGNORED) {
                let gone = watched.remove(&event.wd()).unwrap_or_default();
                gone.iter().for_each(|one| tell(one, false));
            } else if let Some(watching) = watched.get(&event.wd()) {
                watching.iter().for_each(|one| tell(one, true));
            }
        }
    }
}

fn tell(one: &Weak<Seen>, there: bool) {
    if let Some(seen) = one.upgrade() {
        let mut known = lock(&seen.there);
        *known = Some(known.unwrap_or(true) && there);
        drop(known);
        seen.news.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    async fn soon(watch: &FolderWatch) -> bool {
        let moved = tokio::time::timeout(Duration::from_secs(10), watch.moved());
        moved.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn folders_share_one_instance_and_each_hears_its_own() {
        let root = std::env::temp_dir().join(format!("mesh-tls-watch-{}", std::process::id()));
        let watcher = FolderWatcher::default();
        let watched: Vec<_> = (0..200)
            .map(|n| {
                let folder = root.join(n.to_string());
                fs::create_dir_all(&folder).unwrap();
                (watcher.watch(&folder).unwrap(), folder)
            })
            .collect();
        let again = watcher.watch(&watched[7].1).unwrap();
        let first = &watched[0].0.folders;
        assert!(
            watched
                .iter()
                .all(|(one, _)| Arc::ptr_eq(&one.folders, first))
        );
        fs::write(root.join("file"), "").unwrap();
        fs::rename(root.join("file"), watched[7].1.join("file")).unwrap();
        // One that hears of nothing itself waits as well, and may be the one that takes the event.
        tokio::select! {
            biased;
            _ = watched[8].0.moved() => panic!("nothing was moved there"),
            there = soon(&watched[7].0) => assert!(there),
        }
        assert!(soon(&again).await);
        fs::remove_dir_all(&watched[9].1).unwrap();
        assert!(!soon(&watched[9].0).await);
        drop(again);
        drop(watched);
        assert!(lock(&watcher.watch(&root).unwrap().folders.watched).len() == 1);
        fs::remove_dir_all(root).unwrap();
    }
}
