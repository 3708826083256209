//! The control plane from the outside.

mod embedded;
mod mesh_file;
mod processes;
mod publishing;
mod registries;
mod secure;
mod support;
