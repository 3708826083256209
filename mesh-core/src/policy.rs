use std::{fmt, sync::Arc};

/// Where a layer takes its policy from, request by request.
///
/// In library use that is [`Fixed`]: one policy for the life of the layer. In the sidecar it is the
/// matched route or cluster, so that one layer serves thousands of routes. `None` means that the policy
/// does not apply to this request: the layer passes it through.
pub trait PolicySource<R: ?Sized, C: ?Sized> {
    /// The policy for `request`.
    fn policy(&self, request: &R) -> Option<Arc<C>>;
}

/// The same policy for every request.
pub struct Fixed<C: ?Sized>(pub Arc<C>);

impl<C> Fixed<C> {
    /// Wraps `config`.
    pub fn new(config: C) -> Self {
        Self(Arc::new(config))
    }
}

impl<C: ?Sized> Clone for Fixed<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: fmt::Debug + ?Sized> fmt::Debug for Fixed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fixed").field(&self.0).finish()
    }
}

impl<R: ?Sized, C: ?Sized> PolicySource<R, C> for Fixed<C> {
    fn policy(&self, _: &R) -> Option<Arc<C>> {
        Some(Arc::clone(&self.0))
    }
}

/// A policy that a function finds for each request.
#[derive(Debug, Clone, Copy)]
pub struct FromRequest<F>(pub F);

impl<R: ?Sized, C: ?Sized, F: Fn(&R) -> Option<Arc<C>>> PolicySource<R, C> for FromRequest<F> {
    fn policy(&self, request: &R) -> Option<Arc<C>> {
        (self.0)(request)
    }
}

/// Whether a policy acts or only counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Decisions are carried out.
    #[default]
    Enforce,
    /// Decisions are counted and traced, and change nothing.
    Shadow,
}
