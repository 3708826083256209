//! SPIFFE identities: their syntax, and the rules for the certificates that carry them.

mod id;
mod svid;

pub use id::{SPIFFE_ID_MAX, SpiffeId, SpiffeIdError, TRUST_DOMAIN_MAX, TrustDomain};
pub use svid::{SvidError, check_svid};
