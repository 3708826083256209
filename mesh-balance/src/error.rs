use mesh_core::{Error, ErrorKind, Sent};

/// There is no endpoint to pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("none of {total} endpoints can be used")]
pub struct NoHealthy {
    /// How many there are, whatever their health.
    pub total: usize,
}

impl From<NoHealthy> for Error {
    fn from(none: NoHealthy) -> Self {
        Self::new(ErrorKind::NoHealthyUpstream)
            .with_sent(Sent::Nothing)
            .with_message(none.to_string())
    }
}
