//! Behaviour of the retry and deadline services, and of the state machine against a naive model.

mod laws;
mod model;
mod service;
mod size;
