//! Who a peer may be.

mod config;
mod danger;
mod rejection;
mod san;
mod verify;

pub use config::{
    InvalidValidation, Trust, VERIFY_DEPTH_MAX_DEFAULT, ValidationConfig, ValidationDefaults,
};
pub(crate) use danger::{DangerVerifier, LastRejection};
pub use rejection::{Rejection, Role};
pub(crate) use san::dns_name_matches;
pub use san::{SanKind, SanMatcher};
pub use verify::{Usage, Validator};
