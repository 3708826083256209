//! Identities and trust, how they are read, and how they change.

mod bundle;
mod error;
mod files;
mod identity;
mod keeper;
pub mod rotation;
mod source;
mod watch;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
};

pub(crate) use bundle::Anchor;
pub use bundle::{Crl, SpiffeBundles, TrustBundle};
pub use error::SecretError;
pub use files::{FileSecret, FilesSource};
pub use identity::Identity;
pub(crate) use identity::provider;
pub use keeper::{KeeperStats, Secret, SecretKeeper};
pub use source::{SecretSource, SecretUpdate, inline};
pub use watch::FolderWatcher;

/// The longest secret file, in bytes; a longer one is refused.
pub const FILE_MAX: u64 = 4 << 20;

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |error: io::Error| SecretError::File {
        path: path.to_owned(),
        error: Arc::new(error),
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(SecretError::FileTooLong(path.to_owned()));
    }
    Ok(bytes)
}

/// The permissions of a key file that others than its owner can read; `None` when only the owner can.
#[must_use]
pub fn readable_by_others(path: &Path) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o044 != 0).then_some(mode)
}

/// Says in the log when others than its owner can read a key file.
pub fn warn_if_readable_by_others(path: &Path) {
    if let Some(mode) = readable_by_others(path) {
        tracing::warn!(
            path = %path.display(),
            mode = format!("{mode:o}"),
            "others can read this private key: chmod 600 it"
        );
    }
}
