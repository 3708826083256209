use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use envoy_types::pb::{
    envoy::extensions::transport_sockets::tls::v3::Secret, google::protobuf::Any,
};
use mesh_core::runtime::{Layer, RuntimeKey};
use mesh_route::SafeRegex;
use prost::{Message, Name};

use crate::{
    dynamic::{Kind, Needs},
    language::{At, ConfigError, Loaded, Problems, Unsupported, UnsupportedReport},
    model::Origin,
};

use super::{LoadOptions, resource::Frame, table};

/// How many settings (overrides, rate limits) routes may take over from their virtual hosts, all together;
/// more is a config error. Only routes that have settings of their own take over any: the others share
/// those of the virtual host.
pub const INHERITED_MAX: usize = 200_000;

/// What files held, by their path.
pub(crate) type Files = HashMap<String, Arc<[u8]>>;

/// What a conversion leans on and what it collects: everything that is wrong, and everything that is not
/// enforced although the support table cannot tell.
pub(crate) struct Context<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) options: &'a LoadOptions,
    problems: RefCell<Problems>,
    unsupported: RefCell<UnsupportedReport>,
    /// Paths below which nothing that is missing lets anything in.
    harmless: RefCell<HashSet<String>>,
    /// Paths below which nothing has any effect.
    ignored: RefCell<HashSet<String>>,
    /// The layers of the runtime, which is loaded with them once nothing is wrong.
    layers: RefCell<Vec<Layer>>,
    inherited: Cell<usize>,
    external_bytes: Cell<usize>,
    /// Patterns that were compiled already: configs repeat them.
    regexes: RefCell<HashMap<String, SafeRegex>>,
    /// What has to come from a control plane.
    needs: RefCell<Needs>,
    /// What files held that were read, if they are to be kept.
    files: Option<RefCell<Files>>,
    /// Where the one resource belongs that this is about, rather than a whole bootstrap.
    frame: Option<&'a Frame>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(loaded: &'a Loaded, options: &'a LoadOptions) -> Self {
        Self {
            loaded,
            options,
            problems: RefCell::default(),
            unsupported: RefCell::default(),
            harmless: RefCell::default(),
            ignored: RefCell::default(),
            layers: RefCell::default(),
            inherited: Cell::new(0),
            external_bytes: Cell::new(0),
            regexes: RefCell::default(),
            needs: RefCell::default(),
            files: None,
            frame: None,
        }
    }

    /// For one resource, which came beside a bootstrap.
    pub(crate) fn of_part(loaded: &'a Loaded, frame: &'a Frame) -> Self {
        Self {
            frame: Some(frame),
            ..Self::new(loaded, &frame.options)
        }
    }

    /// A file that is in `files` holds what stands there, and every other that is read is added.
    pub(crate) fn with_files(mut self, files: Files) -> Self {
        self.files = Some(RefCell::new(files));
        self
    }

    /// All files that were read, if they are kept.
    pub(crate) fn take_files(&self) -> Files {
        self.files.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// What the file at `path` holds, or what it held when the resource was looked at first.
    pub(crate) fn file<E>(
        &self,
        path: &str,
        read: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let Some(files) = &self.files else {
            return read();
        };
        if let Some(known) = files.borrow().get(path) {
            return Ok(known.to_vec());
        }
        let bytes = read()?;
        let known = Arc::from(bytes.as_slice());
        files.borrow_mut().insert(path.to_owned(), known);
        Ok(bytes)
    }

    /// Whether there is an aggregated stream.
    pub(crate) fn has_ads(&self) -> bool {
        let dynamic = self.loaded.bootstrap.dynamic_resources.as_ref();
        self.frame.map_or_else(
            || dynamic.is_some_and(|dynamic| dynamic.ads_config.is_some()),
            |frame| frame.has_ads,
        )
    }

    /// The bootstrap's own secret of that name.
    pub(crate) fn static_secret(&self, name: &str) -> Option<Secret> {
        match self.frame {
            Some(frame) => frame.static_secrets.get(name).cloned(),
            None => {
                let resources = self.loaded.bootstrap.static_resources.iter();
                let mut secrets = resources.flat_map(|resources| &resources.secrets);
                secrets.find(|secret| secret.name == name).cloned()
            }
        }
    }

    /// Whether the bootstrap itself has a cluster of that name.
    pub(crate) fn is_static_cluster(&self, name: &str) -> bool {
        match self.frame {
            Some(frame) => frame.has_all || frame.static_clusters.contains(name),
            None => {
                let resources = self.loaded.bootstrap.static_resources.iter();
                let mut clusters = resources.flat_map(|resources| &resources.clusters);
                clusters.any(|cluster| cluster.name == name)
            }
        }
    }

    /// What is converted has to have this, which comes from `origin`.
    pub(crate) fn need(&self, kind: Kind, name: &str, origin: Origin) {
        let mut needs = self.needs.borrow_mut();
        needs.insert((kind, name.to_owned()), Some(origin));
    }

    /// All that was needed so far.
    pub(crate) fn take_needs(&self) -> Needs {
        self.needs.take()
    }

    /// The value at `at` is wrong.
    pub(crate) fn invalid(&self, at: &At<'_>, reason: impl fmt::Display) {
        self.problems.borrow_mut().invalid(at, reason.to_string());
    }

    /// The value, or its error as what is wrong at `at`.
    pub(crate) fn ok<T, E: fmt::Display>(&self, at: &At<'_>, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.invalid(at, error)).ok()
    }

    /// The value at `at` is known and not honoured, which only the conversion can tell.
    pub(crate) fn unsupported(&self, at: &At<'_>, field: &str, value: Option<&str>) {
        self.missing(at, field, value, false);
    }

    /// The same, and security depends on it.
    pub(crate) fn insecure(&self, at: &At<'_>, field: &str, value: Option<&str>) {
        self.missing(at, field, value, true);
    }

    fn missing(&self, at: &At<'_>, field: &str, value: Option<&str>, security: bool) {
        self.unsupported.borrow_mut().push(Unsupported {
            path: at.to_string(),
            position: None,
            field: field.to_owned(),
            value: value.map(str::to_owned),
            security,
        });
    }

    /// Nothing at or below `at` guards anything, whatever its type: it is switched off.
    pub(crate) fn harmless(&self, at: &At<'_>) {
        self.harmless.borrow_mut().insert(at.to_string());
    }

    /// What is at or below `at` has no effect, so that nothing is missed without it.
    pub(crate) fn ignored(&self, at: &At<'_>) {
        self.ignored.borrow_mut().insert(at.to_string());
    }

    /// What the runtime is made of.
    pub(crate) fn set_layers(&self, layers: Vec<Layer>) {
        *self.layers.borrow_mut() = layers;
    }

    /// A key of the runtime, if one is named.
    pub(crate) fn runtime_key(&self, key: &str) -> Option<RuntimeKey> {
        (!key.is_empty()).then(|| self.options.runtime.key(key))
    }

    /// The key that `at` names is not read: if a layer has it, its value has no effect.
    pub(crate) fn unheeded_key(&self, at: &At<'_>, field: &str, key: &str) {
        let layers = self.layers.borrow();
        let has = |layer: &Layer| layer.values.contains_key(key);
        if layers.iter().any(has) || (self.frame.is_some() && self.options.runtime.has(key)) {
            self.unsupported(&at.field("runtime_key"), field, Some(key));
        }
    }

    /// The message in `any`, if it is of that type. What it says was checked when the config was read.
    pub(crate) fn unpack<T: Message + Name + Default>(&self, any: &Any) -> Option<T> {
        if type_name(any) != T::full_name() {
            return None;
        }
        T::decode(any.value.as_slice()).ok()
    }

    /// Counts settings that a level below copies; complains once there are more than [`INHERITED_MAX`].
    pub(crate) fn inherit(&self, at: &At<'_>, settings: usize) -> bool {
        let before = self.inherited.get();
        self.inherited.set(before.saturating_add(settings));
        let fits = self.inherited.get() <= INHERITED_MAX;
        if !fits && before <= INHERITED_MAX {
            let reason = format!("routes take over more than {INHERITED_MAX} settings from above");
            self.invalid(at, reason);
        }
        fits
    }

    /// Counts bytes from elsewhere; says how many there are by now.
    pub(crate) fn take_in(&self, bytes: usize) -> usize {
        let sum = self.external_bytes.get().saturating_add(bytes);
        self.external_bytes.set(sum);
        sum
    }

    /// A compiled pattern.
    pub(crate) fn regex(&self, at: &At<'_>, pattern: &str) -> Option<SafeRegex> {
        if let Some(known) = self.regexes.borrow().get(pattern) {
            return Some(known.clone());
        }
        let regex = self.ok(at, SafeRegex::new(pattern))?;
        let mut known = self.regexes.borrow_mut();
        known.insert(pattern.to_owned(), regex.clone());
        Some(regex)
    }

    /// Everything that is wrong; what is not enforced is known already.
    pub(crate) fn finish_known(self) -> Result<(), ConfigError> {
        self.loaded.check(self.problems.into_inner())
    }

    /// What is not enforced, or everything that is wrong.
    pub(crate) fn finish(self) -> Result<UnsupportedReport, ConfigError> {
        self.loaded.check(self.problems.into_inner())?;
        if self.frame.is_none() {
            self.options.runtime.load(self.layers.into_inner());
        }
        let mut report = self.loaded.unsupported(table());
        let found = self.unsupported.into_inner();
        report.left_out += found.left_out;
        for mut entry in found.entries {
            entry.position = self.loaded.position(&entry.path);
            report.push(entry);
        }
        let (harmless, ignored) = (self.harmless.into_inner(), self.ignored.into_inner());
        report
            .entries
            .retain(|entry| !is_at_or_below(&entry.path, &ignored));
        for entry in &mut report.entries {
            entry.security &= !is_at_or_below(&entry.path, &harmless);
        }
        if report.left_out > 0 && !(harmless.is_empty() && ignored.is_empty()) {
            // Those that are harmless may have displaced one that is not.
            report.entries.push(Unsupported {
                path: String::new(),
                position: None,
                field: "one of the fields that this report has no room for".to_owned(),
                value: None,
                security: true,
            });
        }
        Ok(report)
    }
}

/// The full name of the type of what is in `any`.
pub(crate) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Whether `path` or something that it is in is among `paths`.
fn is_at_or_below(path: &str, paths: &HashSet<String>) -> bool {
    let steps = path.match_indices(['.', '[']).map(|(end, _)| &path[..end]);
    !paths.is_empty() && steps.chain([path]).any(|ancestor| paths.contains(ancestor))
}
