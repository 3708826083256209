//! What mesh-tls promises.

mod certificate;
mod files;
mod handshake;
mod hidden;
mod inspector;
mod keeper;
mod names;
mod rotation;
mod spiffe;
mod support;
mod validation;
mod xfcc;
