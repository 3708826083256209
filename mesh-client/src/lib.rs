//! From config to the stack that carries a request to an endpoint.
