//! Content codings, as their users meet them.

mod accept;
mod compress;
mod decompress;
mod laws;
mod model;
mod support;
