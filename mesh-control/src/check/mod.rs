//! What a proxy would refuse is refused here. Only what it reads from its own disk cannot be known.

mod files;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use mesh_config::{
    dynamic::{Assembly, Kind, Needs},
    language::{ConfigError, Problem, ProblemKind, Problems},
};
use mesh_xds::ResourceType;

use crate::build::{Built, Groups};

/// A resource by type, name and version.
type Known = (ResourceType, Arc<str>, Arc<str>);

/// Checks resources as a sidecar would, by the very same conversion.
#[derive(Debug)]
pub struct Checker {
    assembly: Assembly,
    /// What was found good, and what it needs.
    good: HashMap<Known, Arc<Needs>>,
}

impl Checker {
    /// With `strict`, what a sidecar knows but does not enforce is refused too.
    ///
    /// # Errors
    /// Never, unless the conversion does not even take an empty bootstrap.
    pub fn new(strict: bool) -> Result<Self, ConfigError> {
        Ok(Self {
            assembly: Assembly::for_checking(strict)?,
            good: HashMap::new(),
        })
    }

    /// Checks what is new in `groups`, and that each group is whole.
    ///
    /// # Errors
    /// With everything that is wrong, an error for each document.
    pub fn check(&mut self, groups: &Groups) -> Result<(), Vec<ConfigError>> {
        let mut faults = Faults::default();
        let mut good = HashMap::new();
        for built in groups.values().flatten() {
            let key = (
                built.ty,
                Arc::clone(&built.entry.name),
                Arc::clone(&built.entry.version),
            );
            if good.contains_key(&key) {
                continue;
            }
            let needs = match self.good.get(&key) {
                Some(needs) => Some(Arc::clone(needs)),
                None => self.resource(built, &mut faults),
            };
            if let Some(needs) = needs {
                good.insert(key, needs);
            }
        }
        if faults.is_empty() {
            groups
                .values()
                .for_each(|group| whole(group, &good, &mut faults));
        }
        // What was good before may come back.
        if faults.is_empty() {
            self.good = good;
        }
        faults.into_result()
    }

    fn resource(&self, built: &Built, faults: &mut Faults) -> Option<Arc<Needs>> {
        let Some(kind) = kind(built.ty) else {
            return Some(Arc::default());
        };
        let entry = &built.entry;
        let without_files = files::without(built.ty, &entry.body);
        let body = without_files.map_or_else(|| entry.body.clone(), Into::into);
        match self.assembly.check(kind, &entry.name, &body) {
            Ok(checked) => Some(Arc::new(checked.needs().clone())),
            Err(refusal) => {
                let what = format!("{} {:?}", built.ty, entry.name);
                let reason = match refusal.field.as_str() {
                    "" => format!("{} (in {what})", refusal.reason),
                    field => format!("{} (in {what}, {field})", refusal.reason),
                };
                faults.add(built, &refusal.field, reason);
                None
            }
        }
    }
}

/// Whether all that the group's resources wait for is there, and nothing twice.
fn whole(group: &[Built], good: &HashMap<Known, Arc<Needs>>, faults: &mut Faults) {
    let mut names = BTreeSet::new();
    for built in group {
        if !names.insert((built.ty, &built.entry.name)) {
            let reason = format!("there are two of {} {:?}", built.ty, built.entry.name);
            faults.add(built, "", reason);
        }
    }
    for built in group {
        let entry = &built.entry;
        let key = (
            built.ty,
            Arc::clone(&entry.name),
            Arc::clone(&entry.version),
        );
        for (kind, name) in good.get(&key).iter().flat_map(|needs| needs.keys()) {
            // A route may name a cluster that is not there: it answers 503, and the proxy may have it itself.
            let ty = match kind {
                Kind::Endpoints => ResourceType::Endpoints,
                Kind::Routes => ResourceType::RouteConfiguration,
                _ => continue,
            };
            if !names.contains(&(ty, &Arc::from(name.as_str()))) {
                let reason = format!(
                    "{} {:?} refers to {ty} {name:?}, which is not there",
                    built.ty, entry.name
                );
                faults.add(built, "", reason);
            }
        }
    }
}

fn kind(ty: ResourceType) -> Option<Kind> {
    match ty {
        ResourceType::Cluster => Some(Kind::Cluster),
        ResourceType::Endpoints => Some(Kind::Endpoints),
        ResourceType::Listener => Some(Kind::Listener),
        ResourceType::RouteConfiguration => Some(Kind::Routes),
        _ => None,
    }
}

/// Problems by document.
#[derive(Default)]
struct Faults(BTreeMap<String, (Problems, BTreeSet<(String, String)>)>);

impl Faults {
    fn add(&mut self, built: &Built, field: &str, reason: String) {
        let document = built.origin.document.source_name();
        let (path, position) = built.origin.find(field);
        let (problems, said) = self.0.entry(document.to_owned()).or_default();
        // Sidecars that are alike have the same problem.
        if said.insert((path.clone(), reason.clone())) {
            problems.push(Problem {
                kind: ProblemKind::Invalid,
                path,
                position: Some(position),
                reason,
            });
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn into_result(self) -> Result<(), Vec<ConfigError>> {
        let errors = self
            .0
            .into_iter()
            .filter_map(|(document, (problems, _))| problems.into_result(document).err());
        let errors: Vec<_> = errors.collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }
}
