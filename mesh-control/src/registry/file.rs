use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_config::language::{ConfigError, Source};

use super::{Fault, Knowledge, Next, Registry, watch::Watch};
use crate::mesh::Mesh;

/// A mesh file, read again whenever it changes.
#[derive(Debug)]
pub struct MeshFile {
    path: PathBuf,
    name: String,
    watch: Watch,
    /// What was read last: its text, or why there was none.
    seen: Option<Result<String, String>>,
    /// Something has changed that was not read yet.
    dirty: bool,
}

impl MeshFile {
    /// Begins to watch. The folder of the file must be there, the file need not.
    ///
    /// # Errors
    /// When the folder cannot be watched.
    pub fn new(path: impl Into<PathBuf>) -> std::io::Result<Self> {
        let path = path.into();
        let mut watch = Watch::new()?;
        watch.add(match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        })?;
        Ok(Self {
            name: format!("file {}", path.display()),
            path,
            watch,
            seen: None,
            dirty: true,
        })
    }

    /// Reads it; nothing when it is as it was.
    fn read(&mut self) -> Option<Result<Knowledge, Fault>> {
        let source = Source::file(&self.path);
        let text = match &source {
            Ok(source) => Ok(source.content().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        if self.seen.as_ref() == Some(&text) {
            return None;
        }
        self.seen = Some(text);
        let mesh = source.and_then(|source| Mesh::read(&source));
        Some(known(mesh))
    }
}

fn known(mesh: Result<Mesh, ConfigError>) -> Result<Knowledge, Fault> {
    Ok(Knowledge::Mesh(Arc::new(mesh?)))
}

impl Registry for MeshFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn next(&mut self) -> Next<'_> {
        Box::pin(async move {
            loop {
                if !self.dirty {
                    let unreadable = |error: std::io::Error| Fault::Unreachable(error.to_string());
                    self.watch.changed().await.map_err(unreadable)?;
                    // From here on a cancelled call leaves something to do.
                    self.dirty = true;
                    self.watch.settled().await.map_err(unreadable)?;
                }
                self.dirty = false;
                if let Some(news) = self.read() {
                    return news;
                }
            }
        })
    }
}
