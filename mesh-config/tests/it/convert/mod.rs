//! From YAML to the model.

mod whole;

use mesh_config::{LoadOptions, language::Source, load, model::Config};

/// The config of a text that must be fine.
fn config(text: &str) -> Config {
    load(&Source::text("f", text), &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// What is wrong with a text.
fn refusal(text: &str) -> String {
    match load(&Source::text("f", text), &LoadOptions::default()) {
        Err(error) => error.to_string(),
        Ok(config) => panic!("accepted: {config:?}"),
    }
}
