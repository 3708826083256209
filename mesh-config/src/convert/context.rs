use std::{cell::RefCell, fmt};

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use crate::language::{At, ConfigError, Loaded, Problems, Unsupported, UnsupportedReport};

use super::{LoadOptions, support_table};

/// What a conversion leans on and what it collects: everything that is wrong, and everything that is not
/// enforced although the support table cannot tell.
pub(crate) struct Context<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) options: &'a LoadOptions,
    problems: RefCell<Problems>,
    unsupported: RefCell<Vec<Unsupported>>,
    /// Paths below which nothing that is missing lets anything in.
    harmless: RefCell<Vec<String>>,
    /// Paths below which nothing has any effect.
    ignored: RefCell<Vec<String>>,
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
        }
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
        let path = at.to_string();
        self.unsupported.borrow_mut().push(Unsupported {
            position: Some(self.loaded.position(&path)),
            path,
            field: field.to_owned(),
            value: value.map(str::to_owned),
            security,
        });
    }

    /// Nothing at or below `at` guards anything, whatever its type: it is switched off.
    pub(crate) fn harmless(&self, at: &At<'_>) {
        self.harmless.borrow_mut().push(at.to_string());
    }

    /// What is at or below `at` has no effect, so that nothing is missed without it.
    pub(crate) fn ignored(&self, at: &At<'_>) {
        self.ignored.borrow_mut().push(at.to_string());
    }

    /// The message in `any`, if it is of that type. What it says was checked when the config was read.
    pub(crate) fn unpack<T: Message + Name + Default>(&self, any: &Any) -> Option<T> {
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        if name != T::full_name() {
            return None;
        }
        T::decode(any.value.as_slice()).ok()
    }

    /// What is not enforced, or everything that is wrong.
    pub(crate) fn finish(self) -> Result<UnsupportedReport, ConfigError> {
        self.loaded.check(self.problems.into_inner())?;
        let mut report = self.loaded.unsupported(&support_table());
        for entry in self.unsupported.into_inner() {
            report.push(entry);
        }
        let (harmless, ignored) = (self.harmless.into_inner(), self.ignored.into_inner());
        let below = |entry: &Unsupported, paths: &[String]| {
            paths.iter().any(|path| is_at_or_below(&entry.path, path))
        };
        report.entries.retain(|entry| !below(entry, &ignored));
        for entry in &mut report.entries {
            entry.security &= !below(entry, &harmless);
        }
        Ok(report)
    }
}

fn is_at_or_below(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
