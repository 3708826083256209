//! Picking endpoints, held against naive ways to do the same.

mod algorithms;
mod loads;
mod membership;
mod service;
mod support;
