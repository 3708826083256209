//! Where the control plane learns what it publishes.

mod directory;
mod etcd;
mod file;
mod watch;

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

use mesh_config::language::ConfigError;

use crate::{
    build::Groups,
    mesh::{Endpoint, Mesh},
};

pub use directory::Directory;
pub use etcd::{Etcd, PREFIX_DEFAULT};
pub use file::MeshFile;

/// What one registry knows, all of it.
#[derive(Debug, Clone)]
pub enum Knowledge {
    /// Services, and how they are called.
    Mesh(Arc<Mesh>),
    /// Envoy's own resources, for groups of nodes. What stands under [`EVERYBODY`] is for all.
    Resources(Arc<Groups>),
    /// More endpoints for services of the mesh.
    Endpoints(Arc<BTreeMap<String, Vec<Endpoint>>>),
}

/// The group of resources that all nodes get.
pub const EVERYBODY: &str = "";

/// Why a registry has no news, or what is wrong with those it had. What it said before stays.
#[derive(Debug)]
pub enum Fault {
    /// What it says cannot be used, and why: one error for each document.
    Refused(Vec<ConfigError>),
    /// It cannot be asked.
    Unreachable(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(errors) => {
                let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Unreachable(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Fault {}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::Refused(vec![error])
    }
}

/// What [`Registry::next`] gives.
pub type Next<'a> = Pin<Box<dyn Future<Output = Result<Knowledge, Fault>> + Send + 'a>>;

/// A source of services or endpoints.
pub trait Registry: Send {
    /// What pages and logs call it.
    fn name(&self) -> &str;

    /// What it knows: at once for the first time, then whenever that has changed. A registry that cannot be
    /// reached waits before it says so again.
    ///
    /// # Cancel safety
    /// A change that a cancelled call has seen is told by the next one.
    fn next(&mut self) -> Next<'_>;
}
