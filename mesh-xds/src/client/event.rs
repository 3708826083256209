use std::fmt;

use bytes::Bytes;

use crate::{Resource, ResourceType};

/// Why a resource cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The path of the field at fault inside the resource (`load_assignment.endpoints[0]`); may be empty.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Rejection {
    /// A rejection of the whole resource.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            field: String::new(),
            reason: reason.into(),
        }
    }

    /// A rejection for what stands at `field`.
    pub fn at(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Rejection {}

/// Looks at resources before they are taken. A closure will do.
///
/// It is asked only about resources whose bytes are new; what it says decides between ACK and NACK. It
/// must not apply anything: that is for whoever gets the [`Event`]s, which come once a whole response was
/// looked at.
pub trait Accept {
    /// Whether `body` can be used.
    ///
    /// # Errors
    /// What is wrong with it. The version before it stays in force.
    fn accept(&mut self, ty: ResourceType, name: &str, body: &Bytes) -> Result<(), Rejection>;
}

impl<F> Accept for F
where
    F: FnMut(ResourceType, &str, &Bytes) -> Result<(), Rejection>,
{
    fn accept(&mut self, ty: ResourceType, name: &str, body: &Bytes) -> Result<(), Rejection> {
        self(ty, name, body)
    }
}

/// Why a resource is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The control plane took it away.
    Deleted,
    /// Nobody renewed it within its TTL.
    Expired,
}

/// News for whoever applies the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A resource is there, new or changed, and was accepted.
    Updated {
        /// Its type.
        ty: ResourceType,
        /// The resource.
        resource: Resource,
    },
    /// A resource is gone.
    Removed {
        /// Its type.
        ty: ResourceType,
        /// Its name.
        name: String,
        /// Why.
        cause: Cause,
    },
    /// The control plane says that there is no such resource, and there never was.
    Missing {
        /// Its type.
        ty: ResourceType,
        /// The name that was subscribed to.
        name: String,
    },
    /// A resource was rejected; what was there before stays.
    Rejected {
        /// Its type.
        ty: ResourceType,
        /// Its name; empty when the whole response was at fault.
        name: String,
        /// Why.
        rejection: Rejection,
    },
    /// The first answer to a wildcard subscription came in: what there is has been told.
    Complete {
        /// The type.
        ty: ResourceType,
    },
    /// `initial_fetch_timeout` passed: whoever waits goes on without it.
    TimedOut {
        /// The type.
        ty: ResourceType,
        /// The name; none for the wildcard.
        name: Option<String>,
    },
}
