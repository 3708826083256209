use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;

use super::{
    Identity, SecretError, SecretSource, SecretUpdate, read_file, warn_if_readable_by_others,
    watch::{FolderWatch, FolderWatcher},
};
use crate::{Crl, Trust, TrustBundle, ValidationConfig};

/// Files are read again until two readings agree, so often at most; then the reading is refused.
const READINGS_MAX: usize = 5;
/// How long a folder that went is left alone before it is looked for again.
const RETRY: Duration = Duration::from_secs(5);

/// One secret that lives in files.
#[derive(Debug, Clone, PartialEq)]
pub enum FileSecret {
    /// A chain and its key.
    Identity {
        /// The chain, leaf first.
        chain: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// Anchors, and revocation lists if there is a file of them; what else is asked stays as it is.
    Validation {
        /// The anchors.
        trusted_ca: PathBuf,
        /// The revocation lists.
        crl: Option<PathBuf>,
        /// Everything else: its anchors and revocation lists do not count.
        base: Box<ValidationConfig>,
    },
}

/// Secrets in files, read again when something is moved into the watched folder.
///
/// # Envoy
/// `watched_directory`; without one, the files are read once.
#[derive(Debug, Clone)]
pub struct FilesSource {
    secrets: Vec<FileSecret>,
    watched_directory: Option<PathBuf>,
    watcher: FolderWatcher,
}

impl FilesSource {
    /// Reads `secrets` once.
    #[must_use]
    pub fn new(secrets: Vec<FileSecret>) -> Self {
        Self {
            secrets,
            watched_directory: None,
            watcher: FolderWatcher::default(),
        }
    }

    /// And again whenever something is moved into `folder`.
    #[must_use]
    pub fn watched_directory(mut self, folder: impl Into<PathBuf>) -> Self {
        self.watched_directory = Some(folder.into());
        self
    }

    /// With a watcher that others use as well; its own by default.
    #[must_use]
    pub fn watcher(mut self, watcher: &FolderWatcher) -> Self {
        self.watcher = watcher.clone();
        self
    }

    /// The stream of what they say. Needs a tokio runtime when it is polled.
    #[must_use]
    pub fn into_source(self) -> SecretSource {
        Box::pin(Files {
            seen: vec![None; self.secrets.len()],
            source: self,
            ready: VecDeque::new(),
            next: None,
            started: false,
        })
    }
}

type NextMove = Pin<Box<dyn Future<Output = FolderWatch> + Send>>;

struct Files {
    source: FilesSource,
    /// What each secret's files held when they were read last.
    seen: Vec<Option<Vec<Vec<u8>>>>,
    ready: VecDeque<SecretUpdate>,
    next: Option<NextMove>,
    started: bool,
}

impl Files {
    /// Begins to watch, then reads: what is moved in between is read twice, never missed.
    fn start(&mut self) {
        self.started = true;
        if let Some(folder) = self.source.watched_directory.clone() {
            let watcher = self.source.watcher.clone();
            let watch = open(&watcher, &folder);
            self.next = Some(Box::pin(next_move(watcher, folder, watch)));
        }
        self.read();
    }

    fn read(&mut self) {
        for (secret, seen) in self.source.secrets.iter().zip(&mut self.seen) {
            let contents = match stable(secret) {
                Ok(contents) => contents,
                Err(error) => {
                    *seen = None;
                    self.ready.push_back(failed(secret, error));
                    continue;
                }
            };
            if seen.as_ref() != Some(&contents) {
                self.ready.push_back(parse(secret, &contents));
                *seen = Some(contents);
            }
        }
    }
}

impl Stream for Files {
    type Item = SecretUpdate;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SecretUpdate>> {
        if !self.started {
            self.start();
        }
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Poll::Ready(Some(update));
            }
            let Some(next) = &mut self.next else {
                return Poll::Ready(None);
            };
            let watch = std::task::ready!(next.as_mut().poll(cx));
            let folder = self.source.watched_directory.clone().unwrap_or_default();
            let watcher = self.source.watcher.clone();
            self.next = Some(Box::pin(next_move(watcher, folder, Some(watch))));
            self.read();
        }
    }
}

fn open(watcher: &FolderWatcher, folder: &Path) -> Option<FolderWatch> {
    match watcher.watch(folder) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "a folder of secrets cannot be watched");
            None
        }
    }
}

/// Waits for a move; a folder that is not there is looked for until it is, and that counts as a move.
async fn next_move(
    watcher: FolderWatcher,
    folder: PathBuf,
    watch: Option<FolderWatch>,
) -> FolderWatch {
    if let Some(watch) = watch
        && watch.moved().await.unwrap_or(false)
    {
        return watch;
    }
    loop {
        tokio::time::sleep(RETRY).await;
        if let Ok(watch) = watcher.watch(&folder) {
            return watch;
        }
    }
}

/// The files of a secret, as they were together.
fn stable(secret: &FileSecret) -> Result<Vec<Vec<u8>>, SecretError> {
    let paths: Vec<&Path> = match secret {
        FileSecret::Identity { chain, key } => vec![chain, key],
        FileSecret::Validation {
            trusted_ca, crl, ..
        } => [Some(trusted_ca), crl.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect(),
    };
    let read = || {
        paths
            .iter()
            .map(|path| read_file(path))
            .collect::<Result<Vec<_>, _>>()
    };
    let mut before = read()?;
    for _ in 1..READINGS_MAX {
        let now = read()?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    Err(SecretError::Unstable)
}

fn failed(secret: &FileSecret, error: SecretError) -> SecretUpdate {
    match secret {
        FileSecret::Identity { .. } => SecretUpdate::Identity(Err(error)),
        FileSecret::Validation { .. } => SecretUpdate::Validation(Err(error)),
    }
}

fn parse(secret: &FileSecret, contents: &[Vec<u8>]) -> SecretUpdate {
    match secret {
        FileSecret::Identity { chain, key } => {
            warn_if_readable_by_others(key);
            let identity = Identity::from_pem(&contents[0], &contents[1]);
            SecretUpdate::Identity(identity.map(|identity| identity.read_from(chain)))
        }
        FileSecret::Validation {
            base, trusted_ca, ..
        } => {
            let bundle = TrustBundle::from_pem(&contents[0]);
            let config = bundle.and_then(|bundle| {
                let bundle = bundle.read_from(trusted_ca);
                let config = ValidationConfig::clone(base).with_trust(Trust::Bundle(bundle));
                match contents.get(1) {
                    None => Ok(config),
                    Some(lists) => config
                        .with_crls(Crl::from_pem(lists)?)
                        .map_err(|error| SecretError::Source(error.to_string())),
                }
            });
            SecretUpdate::Validation(config)
        }
    }
}
