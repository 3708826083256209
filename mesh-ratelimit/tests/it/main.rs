//! The local rate limit, as its users meet it.

#[cfg(not(mesh_loom))]
mod actions;
#[cfg(not(mesh_loom))]
mod descriptors;
#[cfg(not(mesh_loom))]
mod laws;
#[cfg(not(mesh_loom))]
mod model;
#[cfg(not(mesh_loom))]
mod service;
#[cfg(not(mesh_loom))]
mod throttle;
