//! The program as its user runs it: real processes, real sockets, real signals.

mod admin;
mod drain;
mod filters;
mod health;
mod limits;
mod logs;
mod start;
mod support;
mod tls;
mod traffic;
