//! End-to-end and differential suites.
