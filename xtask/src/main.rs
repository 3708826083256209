//! The jobs that people and CI run.

fn main() {}
