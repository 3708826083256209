//! Resources that were checked, in the form in which they are put together.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher as _},
    sync::Arc,
};

use mesh_core::runtime::RuntimeValue;
use prost::{Message, bytes::Bytes};

use crate::{
    convert::{Files, resource::Assignment},
    model::{Cluster, Listener, Secret},
};

use super::{Key, Kind, Needs};

/// A resource that can be used. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Checked {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) needs: Arc<Needs>,
    pub(super) part: Part,
    /// Of the bytes that arrived.
    pub(super) hash: u64,
    /// It is the bootstrap's.
    pub(super) is_own: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    /// Without its endpoints, if they come on their own.
    Cluster(Arc<Cluster>),
    Endpoints(Arc<Assignment>),
    /// Without its routes, if they come on their own.
    Listener(Arc<Listener>),
    Routes(Arc<RoutesPart>),
    Secret(Arc<Secret>),
    Runtime(Arc<BTreeMap<Arc<str>, RuntimeValue>>),
}

/// Routes, converted for each connection manager that they are for.
#[derive(Debug)]
pub(super) struct RoutesPart {
    pub(super) body: Bytes,
    /// What files held that they name, when they were looked at.
    pub(super) files: Files,
}

impl Checked {
    /// What it is.
    #[must_use]
    pub fn key(&self) -> Key {
        (self.kind, self.name.clone())
    }

    /// What it needs.
    #[must_use]
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The listener that it is, with no routes but its own.
    #[must_use]
    pub fn listener(&self) -> Option<&Arc<Listener>> {
        match &self.part {
            Part::Listener(listener) => Some(listener),
            _ => None,
        }
    }
}

/// A number that differs when `of` does, the same in every process.
pub(super) fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A listener's filter chains as they arrived. What the decoded message is encoded to differs from time to
/// time: maps have no order.
#[derive(Clone, PartialEq, Message)]
struct RawChains {
    #[prost(bytes = "bytes", repeated, tag = "3")]
    filter_chains: Vec<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "25")]
    default_filter_chain: Option<Bytes>,
}

/// Gives a listener and its chains fingerprints of the bytes that arrived. The routes that came on their own
/// are no part of them.
pub(super) fn fingerprint(listener: &mut Listener, body: &Bytes) {
    listener.fingerprint = hash((&listener.name, body));
    // What was decoded once can be decoded again.
    let Ok(raw) = RawChains::decode(body.clone()) else {
        return;
    };
    let buffer = buffer_limit(body);
    let raw = raw.filter_chains.iter().chain(&raw.default_filter_chain);
    for (number, (chain, raw)) in listener.chains.iter_mut().zip(raw).enumerate() {
        // What belongs to a chain without a name is known by its place.
        let place = chain.name.is_empty().then_some(number);
        chain.fingerprint = hash((&listener.name, place, raw, &buffer));
    }
}

/// The one field of a listener that its chains depend on.
fn buffer_limit(body: &Bytes) -> Option<Bytes> {
    #[derive(Clone, PartialEq, Message)]
    struct Raw {
        #[prost(bytes = "bytes", optional, tag = "5")]
        per_connection_buffer_limit_bytes: Option<Bytes>,
    }
    Raw::decode(body.clone())
        .ok()?
        .per_connection_buffer_limit_bytes
}
