//! Where people look in, and may intervene. One file per page.
//!
//! It listens where the bootstrap says, on the loopback as a rule; whatever changes something is POST only,
//! and a request whose `Host` is not this machine's is refused, so that a web page cannot reach it by
//! naming its own domain.

mod certs;
mod clusters;
mod config_dump;
mod dynamic;
mod fields;
mod health;
mod help;
mod index;
mod listeners;
mod logging;
pub(crate) mod memory;
mod query;
mod routes;
mod runtime;
mod server_info;
mod service;
mod stats;
mod warming;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{Method, StatusCode, header};
use mesh_core::Address;
use mesh_http::server::{Connection, ServerConfig};
use mesh_net::{BindOptions, BoundSocket, Listener};
use mesh_xds::ResourceStatus;

use crate::{drain::Phase, process::Process};

/// Takes the admin's address.
pub(crate) fn bind(address: &Address) -> io::Result<BoundSocket> {
    if let Address::Socket(socket) = address
        && !socket.ip().is_loopback()
    {
        tracing::warn!(%socket, "the admin listens beyond the loopback: whoever reaches it controls this process");
    }
    let mut sockets = mesh_net::bind(address, 1, &BindOptions::default())?;
    sockets
        .pop()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// Serves the admin pages on the current runtime.
pub(crate) fn start(process: &Arc<Process>, socket: BoundSocket) -> io::Result<()> {
    let listener = Listener::from_std(socket)?;
    let process = Arc::clone(process);
    let config = Arc::new(ServerConfig {
        accept_http_10: true,
        ..ServerConfig::default()
    });
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let handler = service::AdminHandler::new(&process, stream.local_addr());
                    tokio::spawn(Connection::new(stream, handler, Arc::clone(&config)));
                }
                Err(error) => {
                    tracing::warn!("admin: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

/// What is asked of the admin.
pub(crate) struct Ask<'a> {
    /// Where what comes from a control plane stands, for the page that shows it.
    statuses: &'a [ResourceStatus],
    pub(crate) process: &'a Process,
    pub(crate) query: &'a str,
    /// The body, at most [`service::BODY_BYTES_MAX`] long.
    pub(crate) body: &'a [u8],
    /// `content-type`, without its parameters.
    pub(crate) content_type: &'a str,
}

/// A page.
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Page {
    fn text(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; charset=UTF-8",
            body: body.into(),
        }
    }

    fn json(value: &serde_json::Value) -> Self {
        let body = serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            body,
        }
    }

    fn html(body: impl Into<String>) -> Self {
        Self {
            content_type: "text/html; charset=UTF-8",
            ..Self::text(body)
        }
    }

    fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::text(body)
        }
    }
}

/// Whether a request names this machine.
fn is_for_us(request: &http::request::Parts, local: Option<SocketAddr>) -> bool {
    let host = request.headers.get(header::HOST);
    is_own_host(host.and_then(|host| host.to_str().ok()), local)
}

/// Answers one request.
pub(crate) fn answer(
    process: &Process,
    request: &http::request::Parts,
    body: &[u8],
    local: Option<SocketAddr>,
    statuses: &[ResourceStatus],
) -> Page {
    if !is_for_us(request, local) {
        return Page::error(
            StatusCode::FORBIDDEN,
            "the host header does not name this machine\n",
        );
    }
    let path = request.uri.path();
    let Some(route) = routes::find(path) else {
        return Page::error(
            StatusCode::NOT_FOUND,
            "invalid path. admin commands are:\n".to_owned() + &help::list(),
        );
    };
    match (route.mutates, &request.method) {
        (true, &Method::POST) | (false, &Method::GET | &Method::HEAD | &Method::POST) => {}
        (true, method) => {
            return Page::error(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {method} not allowed, POST required."),
            );
        }
        (false, method) => {
            return Page::error(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {method} not allowed, GET required."),
            );
        }
    }
    if route.mutates
        && request.headers.get(header::ORIGIN).is_some_and(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            !is_own_host(origin.split_once("://").map(|(_, host)| host), local)
        })
    {
        return Page::error(
            StatusCode::FORBIDDEN,
            "a foreign origin may not change anything\n",
        );
    }
    let content_type = request.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    (route.page)(&Ask {
        statuses,
        process,
        query: request.uri.query().unwrap_or_default(),
        body,
        content_type: content_type.map_or("", |value| {
            value.split(';').next().unwrap_or_default().trim()
        }),
    })
}

/// Whether `host` is an address of this machine, or `localhost`. An address cannot be rebound by somebody
/// else's name server; a name can.
fn is_own_host(host: Option<&str>, local: Option<SocketAddr>) -> bool {
    let Some(host) = host else { return true };
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || local.is_some_and(|l| l.ip() == ip))
}

/// `LIVE`, or why not.
pub(crate) fn state(process: &Process) -> &'static str {
    let running = process.listeners.phase() == Phase::Running;
    match (process.is_ready(), running) {
        (false, _) => "INITIALIZING",
        (true, true) if !process.mesh.server_health().is_failing() => "LIVE",
        (true, _) => "DRAINING",
    }
}

#[cfg(test)]
mod tests {
    use super::is_own_host;

    #[test]
    fn only_addresses_of_this_machine_are_own_hosts() {
        let local = "192.0.2.4:9901".parse().ok();
        for own in [
            "127.0.0.1",
            "127.0.0.1:9901",
            "localhost:1",
            "[::1]:9901",
            "192.0.2.4:9901",
        ] {
            assert!(is_own_host(Some(own), local), "{own}");
        }
        for foreign in ["evil.test", "localhost.evil.test", "192.0.2.5", "", "[::2]"] {
            assert!(!is_own_host(Some(foreign), local), "{foreign}");
        }
    }
}
