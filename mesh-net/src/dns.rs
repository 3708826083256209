//! Keeping the endpoints of named clusters fresh.
