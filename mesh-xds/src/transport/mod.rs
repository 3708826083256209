//! gRPC around both halves, and files.

mod body;
mod client;
mod codec;
mod commands;
mod file;
mod interest;
mod load;
mod server;
mod session;
mod status;

pub(crate) use codec::ProtoCodec;

pub use client::{Call, Driver, Handler, Server, Stream};
pub use commands::Commands;
pub use file::{FileDriver, FileSource, PathConfigSource};
pub use interest::Interest;
pub use load::LoadDriver;
pub use server::{XdsService, XdsServiceBuilder};
pub use status::{ClientStatusService, TellStatus};

/// The longest message that is read. Envoy reads any; this only keeps a broken peer from taking all
/// memory, and a config of that size would not be a config.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
