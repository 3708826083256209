use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_config::language::{ConfigError, Document, Language, Part, Problems, Source};
use mesh_xds::{ResourceType, name_of, server::Entry};

use super::{EVERYBODY, Fault, Knowledge, Next, Registry, watch::Watch};
use crate::build::{Built, Groups, Origin};

/// The most files of a directory; more are refused.
const FILES_MAX: usize = 10_000;

/// A directory of Envoy's own resources, read again whenever something changes in it.
///
/// Each `.yaml`, `.yml` or `.json` file holds a resource with its `@type`, a list of them, or a map with such a
/// list under `resources`, as Envoy's own file sources have it. What lies in the directory itself is for all
/// nodes; what lies in a folder of it is for the group of that name: the cluster or the id of the node.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    name: String,
    watch: Watch,
    seen: Option<Vec<(String, String, String)>>,
    language: Language,
    dirty: bool,
}

impl Directory {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let mut watch = Watch::new()?;
        watch.add(&path)?;
        Ok(Self {
            name: format!("directory {}", path.display()),
            path,
            watch,
            seen: None,
            language: Language::full(),
            dirty: true,
        })
    }

    /// All files: group, path and text. Folders are watched before they are read, so nothing is missed.
    fn files(&mut self) -> io::Result<Vec<(String, String, String)>> {
        let mut files = Vec::new();
        for (group, path) in listing(&self.path)? {
            match group {
                None => self.take(EVERYBODY, &path, &mut files)?,
                Some(group) => {
                    self.watch.add(&path)?;
                    for (_, path) in listing(&path)? {
                        self.take(&group, &path, &mut files)?;
                    }
                }
            }
        }
        Ok(files)
    }

    fn take(
        &self,
        group: &str,
        path: &Path,
        files: &mut Vec<(String, String, String)>,
    ) -> io::Result<()> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if !matches!(extension, Some("yaml" | "yml" | "json")) || path.is_dir() {
            return Ok(());
        }
        if files.len() == FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} files")));
        }
        let source = Source::file(path).map_err(|error| io::Error::other(error.to_string()))?;
        let text = source.content().to_owned();
        files.push((group.to_owned(), path.display().to_string(), text));
        Ok(())
    }

    fn read(&mut self) -> Option<Result<Knowledge, Fault>> {
        let files = match self.files() {
            Ok(files) => files,
            Err(error) => {
                self.seen = None;
                let reason = format!("{}: {error}", self.path.display());
                return Some(Err(Fault::Unreachable(reason)));
            }
        };
        if self.seen.as_ref() == Some(&files) {
            return None;
        }
        let mut groups = Groups::new();
        let mut refused = None;
        for (group, path, text) in &files {
            let source = Source::text(path.as_str(), text.as_str());
            match resources(&source, &self.language) {
                Ok(built) => groups.entry(group.clone()).or_default().extend(built),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        self.seen = Some(files);
        Some(match refused {
            Some(error) => Err(error.into()),
            None => Ok(Knowledge::Resources(Arc::new(groups))),
        })
    }
}

/// What is in a folder, by name: folders with their names, files without. Hidden ones are left out.
fn listing(folder: &Path) -> io::Result<Vec<(Option<String>, PathBuf)>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| !name.starts_with('.')) else {
            continue;
        };
        paths.push((path.is_dir().then(|| name.to_owned()), path));
    }
    paths.sort();
    Ok(paths)
}

/// The resources of one file.
fn resources(source: &Source, language: &Language) -> Result<Vec<Built>, ConfigError> {
    let document = Arc::new(Document::read(source, language.clone())?);
    let mut problems = Problems::new();
    let root = document.root();
    let mut list = root.clone();
    if root.is_map() {
        let entries = root.entries(&mut problems).unwrap_or_default();
        let inside = entries.into_iter().find(|(key, _)| *key == "resources");
        list = inside.map_or(list, |(_, resources)| resources);
    }
    let items = list.items().into_iter();
    let built = items
        .filter_map(|item| resource(&document, &item, &mut problems))
        .collect();
    document.check(problems)?;
    Ok(built)
}

fn resource(document: &Arc<Document>, part: &Part<'_>, problems: &mut Problems) -> Option<Built> {
    let any = part.any(problems)?;
    let Some(ty) = ResourceType::from_type_url(&any.type_url) else {
        let reason = format!("{} is not a resource that xDS carries", any.type_url);
        part.invalid(problems, reason);
        return None;
    };
    match name_of(&any.value.clone().into()) {
        Ok(name) => Some(Built {
            ty,
            entry: Entry::new(name, any.value),
            origin: Arc::new(Origin::new(document, part.path())),
        }),
        Err(reason) => {
            part.invalid(problems, reason);
            None
        }
    }
}

impl Registry for Directory {
    fn name(&self) -> &str {
        &self.name
    }

    fn next(&mut self) -> Next<'_> {
        Box::pin(async move {
            loop {
                if !self.dirty {
                    let unreadable = |error: io::Error| Fault::Unreachable(error.to_string());
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
