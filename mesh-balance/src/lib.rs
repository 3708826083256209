//! Endpoint sets and picking one of them.
