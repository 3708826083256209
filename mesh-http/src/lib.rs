//! HTTP on sockets: codecs, connection pools, hygiene, local replies.
