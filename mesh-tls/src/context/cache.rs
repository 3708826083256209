use std::sync::{Arc, Mutex, PoisonError};

use super::ContextError;
use crate::{Identity, Secret, ValidationConfig};

/// A context that is made of the newest good secrets, and made again when they change: what
/// [`TlsAcceptor`](crate::TlsAcceptor) and [`TlsConnector`](crate::TlsConnector) have in common.
pub(crate) struct ContextCache<C> {
    identities: Vec<Secret<Identity>>,
    validation: Option<Secret<ValidationConfig>>,
    built: Mutex<Option<(Current, Arc<C>)>>,
}

/// The secrets of one moment.
pub(crate) struct Current {
    pub(crate) identities: Vec<Arc<Identity>>,
    pub(crate) validation: Option<Arc<ValidationConfig>>,
}

impl<C> ContextCache<C> {
    pub(crate) const fn new(
        identities: Vec<Secret<Identity>>,
        validation: Option<Secret<ValidationConfig>>,
    ) -> Self {
        Self {
            identities,
            validation,
            built: Mutex::new(None),
        }
    }

    /// The same secrets, and nothing made of them yet.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.identities.clone(), self.validation.clone())
    }

    /// The context of the newest secrets; `None` while some have not arrived.
    pub(crate) fn get(
        &self,
        build: impl FnOnce(&Current) -> Result<C, ContextError>,
    ) -> Result<Option<Arc<C>>, ContextError> {
        let Some(current) = self.current() else {
            return Ok(None);
        };
        // A panic while it was held leaves a whole context behind.
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((secrets, context)) = &*built
            && secrets.are(&current)
        {
            return Ok(Some(Arc::clone(context)));
        }
        let context = Arc::new(build(&current)?);
        *built = Some((current, Arc::clone(&context)));
        Ok(Some(context))
    }

    fn current(&self) -> Option<Current> {
        let identities = self.identities.iter().map(Secret::current);
        let validation = self.validation.as_ref().map(Secret::current);
        Some(Current {
            identities: identities.collect::<Option<_>>()?,
            validation: match validation {
                None => None,
                Some(arrived) => Some(arrived?),
            },
        })
    }
}

impl Current {
    /// Whether both are the same secrets, not only equal ones.
    fn are(&self, other: &Self) -> bool {
        same(&self.identities, &other.identities)
            && same(self.validation.as_slice(), other.validation.as_slice())
    }
}

fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}
