//! The tests of mesh-xds.

mod client;
mod model_client;
mod model_server;
mod server;
mod sim;
mod sockets;
mod store;
mod support;
mod warming;
mod workload;
