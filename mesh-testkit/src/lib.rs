//! Scripted upstreams, bodies and the tower Service laws, for tests.
