//! Resources that arrive one by one, and the config that they come to together.
//!
//! [`Assembly`] holds the static bootstrap and what a control plane has sent beside it. A resource is first
//! [checked](Assembly::check) on its own, and once it may be used it is [put](Assembly::put) in; then
//! [`Assembly::config`] is the whole, with endpoints in their clusters and routes in their listeners, as if
//! it had stood in one file.
//!
//! Only what changed is converted again: a cluster when it or its endpoints did, a listener when it or its
//! routes did. Everything else is the very same object as before, so that whoever applies a config can tell
//! by looking. When nothing but endpoints has changed, [`Assembly::change`] says so, and what that costs does
//! not depend on how many clusters there are.

mod assembly;
mod check;
mod needs;
mod part;

use std::{collections::BTreeMap, fmt};

use crate::model::Origin;

pub use assembly::{Assembly, Change, Misfit};
pub use part::Checked;

/// What may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Cluster`.
    Cluster,
    /// `ClusterLoadAssignment`.
    Endpoints,
    /// `Listener`.
    Listener,
    /// `RouteConfiguration`.
    Routes,
    /// `Secret`.
    Secret,
    /// `Runtime`.
    Runtime,
}

impl Kind {
    /// The full name of the message.
    #[must_use]
    pub const fn full_name(self) -> &'static str {
        match self {
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::Routes => "envoy.config.route.v3.RouteConfiguration",
            Self::Runtime => "envoy.service.runtime.v3.Runtime",
            Self::Secret => "envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }
}

/// A resource, by kind and name.
pub type Key = (Kind, String);

/// What a resource needs before it is of use, and where that comes from: endpoints of a cluster, routes of a
/// listener. Clusters of routes come from wherever clusters come from.
pub type Needs = BTreeMap<Key, Option<Origin>>;

/// Why a resource is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The path of the field, inside the resource.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Refusal {
    fn new(field: &str, reason: impl fmt::Display) -> Self {
        Self {
            field: field.to_owned(),
            reason: reason.to_string(),
        }
    }
}
