//! The whole stack in process, from an Envoy bootstrap to a real socket.

mod behaviour;
mod cors;
mod hashing;
mod health;
mod logs;
mod mirror;
mod redirect;
mod secrets;
mod support;
mod swap;
mod workload;
