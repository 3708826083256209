//! The program as its user runs it: real processes, real sockets, real signals.

mod admin;
mod admin_pages;
mod commands;
mod drain;
mod faults;
mod filters;
mod health;
mod limits;
mod listeners;
mod logs;
mod proxy_protocol;
mod start;
mod stats;
mod support;
mod tcp;
mod tls;
mod tls_inspector;
mod tls_upstream;
mod traffic;
mod xds;
mod xds_cache;
mod xds_files;
mod xds_secrets;
mod xds_status;
