//! The mesh sidecar.

fn main() {}
