use std::pin::Pin;

use futures_core::Stream;

use crate::{Identity, SecretError, ValidationConfig};

/// What a source has to say.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SecretUpdate {
    /// Who this process is, or why that cannot be read.
    Identity(Result<Identity, SecretError>),
    /// What peers have to be, or why that cannot be read.
    Validation(Result<ValidationConfig, SecretError>),
}

/// Where secrets come from: inline config, [files](crate::FilesSource), SDS, the SPIFFE Workload API. Any
/// stream of updates is one; the newest comes last. When it ends, what is known stays.
pub type SecretSource = Pin<Box<dyn Stream<Item = SecretUpdate> + Send>>;

/// A source that says its word once.
#[must_use]
pub fn inline(updates: impl IntoIterator<Item = SecretUpdate>) -> SecretSource {
    Box::pin(Inline(updates.into_iter().collect::<Vec<_>>().into_iter()))
}

struct Inline(std::vec::IntoIter<SecretUpdate>);

impl Stream for Inline {
    type Item = SecretUpdate;

    fn poll_next(
        mut self: Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<SecretUpdate>> {
        std::task::Poll::Ready(self.0.next())
    }
}
