//! The harness itself: what it is blind to, no end-to-end test can see.

mod client;
mod process;
mod upstream;
