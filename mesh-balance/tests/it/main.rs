//! Picking endpoints, held against naive ways to do the same.

mod algorithms;
mod hashing;
mod health;
mod loads;
mod membership;
mod service;
mod slow_start;
mod support;
