//! Atomics that a loom model can replace.
//!
//! Shared protocols (permits, budgets, buckets, half-open probes) take their atomics from here, so that
//! `RUSTFLAGS="--cfg mesh_loom"` checks their interleavings. The flag is not plain `loom`, because that
//! one strips tokio's networking.

#[cfg(mesh_loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(not(mesh_loom))]
pub use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// A lock for what is rare or short; loom's own under a model.
#[cfg(mesh_loom)]
pub use loom::sync::{Mutex, MutexGuard};
#[cfg(not(mesh_loom))]
pub use std::sync::{Mutex, MutexGuard};
