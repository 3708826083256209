//! Files that appear whole.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::Path,
};

use super::DevCaError;

/// The link that is moved, as Kubernetes calls it.
const DATA: &str = "..data";

fn failed(path: &Path) -> impl Fn(io::Error) -> DevCaError {
    let path = path.display().to_string();
    move |error| DevCaError::File {
        path: path.clone(),
        error,
    }
}

/// Moves a whole file into its place.
pub(super) fn place(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DevCaError> {
    let failed = failed(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(&failed)?;
    }
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(&new).map_err(&failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(&failed)?;
    fs::rename(&new, path).map_err(&failed)
}

/// Puts several files (name, bytes, mode) into `folder` in one step, `version` telling them from those before.
pub(super) fn place_together(
    folder: &Path,
    version: &str,
    files: &[(&str, &[u8], u32)],
) -> Result<(), DevCaError> {
    let failed = failed(folder);
    let version = format!("..{version}");
    for (name, bytes, mode) in files {
        place(&folder.join(&version).join(name), bytes, *mode)?;
    }
    let before = fs::read_link(folder.join(DATA)).ok();
    link(Path::new(&version), folder, DATA).map_err(&failed)?;
    for (name, ..) in files {
        let target = Path::new(DATA).join(name);
        if fs::read_link(folder.join(name)).is_ok_and(|known| known == target) {
            continue;
        }
        link(&target, folder, name).map_err(&failed)?;
    }
    if let Some(before) = before.filter(|before| before != Path::new(&version)) {
        fs::remove_dir_all(folder.join(before)).map_err(&failed)?;
    }
    Ok(())
}

/// Moves a link into its place.
fn link(target: &Path, folder: &Path, name: &str) -> io::Result<()> {
    let new = folder.join("new-link");
    let _ = fs::remove_file(&new);
    symlink(target, &new)?;
    fs::rename(&new, folder.join(name))
}
