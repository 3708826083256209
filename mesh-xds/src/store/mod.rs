//! The last-known-good store: what was accepted, on disk, so that a proxy can start without its control
//! plane.
//!
//! Each type is one file. It is written whole, beside the old one, flushed, and renamed over it, so at any
//! moment there is one complete file; and it says whose it is, how old it is, and what its checksum is, so
//! that one which is broken, or somebody else's, is refused by name instead of being believed.

mod file;
mod plan;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{Resource, ResourceType};

pub use file::Refusal;
pub use plan::SavePlan;

/// Whose config it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `node.id`.
    pub node_id: String,
    /// `node.cluster`.
    pub node_cluster: String,
}

/// What a store holds of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// The version of the whole, as state-of-the-world has it; may be empty.
    pub version: String,
    /// When it was saved.
    pub saved_at: SystemTime,
    /// The resources.
    pub resources: Vec<Resource>,
}

/// A directory with the last accepted config.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    identity: Identity,
    max_age: Duration,
    secrets: bool,
}

impl Store {
    /// Opens `directory`, and makes it (0700) when it is not there. What is older than `max_age` will be
    /// refused.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(directory: &Path, identity: Identity, max_age: Duration) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            identity,
            max_age,
            secrets: false,
        })
    }

    /// Keeps secrets as well. Every file is readable by its owner only; this one is refused otherwise.
    #[must_use]
    pub const fn with_secrets(mut self) -> Self {
        self.secrets = true;
        self
    }

    /// Whether this type is kept.
    #[must_use]
    pub fn keeps(&self, ty: ResourceType) -> bool {
        self.secrets || ty != ResourceType::Secret
    }

    /// Saves all resources of a type in place of those saved before. A type that is not kept is not saved.
    ///
    /// # Errors
    /// When the disk does not take it; then what was saved before is still there.
    pub fn save(
        &self,
        ty: ResourceType,
        version: &str,
        resources: &[Resource],
        now: SystemTime,
    ) -> io::Result<()> {
        if !self.keeps(ty) {
            return Ok(());
        }
        let content = file::encode(ty, &self.identity, version, resources, now)?;
        let target = self.path(ty);
        let temporary = target.with_extension("new");
        let written = write_and_flush(&temporary, &content)
            .and_then(|()| fs::rename(&temporary, &target))
            .and_then(|()| fs::File::open(&self.directory)?.sync_all());
        if written.is_err() {
            // It may not even exist; the error that counts is the first.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// What was saved of a type.
    ///
    /// # Errors
    /// Why it cannot be used. [`Refusal::Absent`] when nothing was saved.
    pub fn load(&self, ty: ResourceType, now: SystemTime) -> Result<Cached, Refusal> {
        if !self.keeps(ty) {
            return Err(Refusal::Absent);
        }
        let content = read(&self.path(ty), ty == ResourceType::Secret)?;
        let cached = file::decode(&content, ty, &self.identity)?;
        // A clock that went back a little is no reason to start without config.
        let age = now.duration_since(cached.saved_at).unwrap_or_default();
        if age > self.max_age {
            let max = self.max_age;
            return Err(Refusal::Stale { age, max });
        }
        Ok(cached)
    }

    /// Where a type is kept.
    #[must_use]
    pub fn path(&self, ty: ResourceType) -> PathBuf {
        self.directory.join(format!("{}.mesh-xds", ty.short()))
    }
}

fn write_and_flush(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    // A leftover of a crash may have been made with another mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn read(path: &Path, private: bool) -> Result<Vec<u8>, Refusal> {
    use std::{io::Read as _, os::unix::fs::PermissionsExt as _};
    let mut file = fs::File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Refusal::Absent,
        _ => Refusal::Unreadable(error),
    })?;
    let metadata = file.metadata().map_err(Refusal::Unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    if private && mode & 0o077 != 0 {
        return Err(Refusal::Exposed { mode });
    }
    if metadata.len() > file::FILE_BYTES_MAX {
        return Err(Refusal::TooLarge(metadata.len()));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)
        .map_err(Refusal::Unreadable)?;
    Ok(content)
}
