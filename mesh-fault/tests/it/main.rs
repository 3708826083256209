//! Faults, as their users meet them.

mod body;
mod decisions;
mod laws;
mod model;
mod service;
