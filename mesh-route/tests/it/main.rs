//! The crate from outside: look-ups against a naive model, and what is done to messages.

mod changes;
mod model;
mod mutate;
mod redirect;
mod rewrite;
mod support;
mod table;
