//! Envoy v3 YAML and JSON to validated config.

pub mod language;
