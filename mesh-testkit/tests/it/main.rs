//! The kit itself: scripts do what they say, and each law notices the service that breaks it.

mod broken;
mod laws;
mod scripts;
