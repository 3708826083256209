//! Where people look in, and may intervene. One file per page.
//!
//! It listens where the bootstrap says, on the loopback as a rule; whatever changes something is POST only,
//! and a request whose `Host` is not this machine's is refused, so that a web page cannot reach it by
//! naming its own domain.

mod clusters;
mod config_dump;
mod help;
mod listeners;
mod logging;
pub(crate) mod memory;
mod server_info;
mod service;
mod stats;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{Method, StatusCode, header};
use mesh_core::Address;
use mesh_http::server::{Connection, ServerConfig};
use mesh_net::{BoundSocket, Listener};

use crate::{drain::Phase, process::Process};

/// Takes the admin's address.
pub(crate) fn bind(address: &Address) -> io::Result<BoundSocket> {
    if let Address::Socket(socket) = address
        && !socket.ip().is_loopback()
    {
        tracing::warn!(%socket, "the admin listens beyond the loopback: whoever reaches it controls this process");
    }
    let mut sockets = mesh_net::bind(address, 1)?;
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
    pub(crate) process: &'a Process,
    pub(crate) query: &'a str,
}

impl Ask<'_> {
    /// The first value of a query parameter, decoded.
    fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| percent_decode(value))
        })
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text
            .get(at + 1..at + 3)
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
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

    fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::text(body)
        }
    }
}

/// What a path leads to.
struct Route {
    path: &'static str,
    what: &'static str,
    /// Changes something: POST only.
    mutates: bool,
    page: fn(&Ask<'_>) -> Page,
}

const ROUTES: &[Route] = &[
    Route {
        path: "/",
        what: "this list",
        mutates: false,
        page: help::page,
    },
    Route {
        path: "/help",
        what: "this list",
        mutates: false,
        page: help::page,
    },
    Route {
        path: "/clusters",
        what: "clusters and their endpoints; ?format=json",
        mutates: false,
        page: clusters::page,
    },
    Route {
        path: "/config_dump",
        what: "the config that serves",
        mutates: false,
        page: config_dump::page,
    },
    Route {
        path: "/drain_listeners",
        what: "POST: stop accepting; ?graceful tells connections to go first",
        mutates: true,
        page: listeners::drain,
    },
    Route {
        path: "/listeners",
        what: "listeners and their addresses; ?format=json",
        mutates: false,
        page: listeners::page,
    },
    Route {
        path: "/logging",
        what: "POST: show the log level, or set it with ?level=debug",
        mutates: true,
        page: logging::page,
    },
    Route {
        path: "/memory",
        what: "memory in use",
        mutates: false,
        page: memory::page,
    },
    Route {
        path: "/quitquitquit",
        what: "POST: end the process",
        mutates: true,
        page: listeners::quit,
    },
    Route {
        path: "/ready",
        what: "LIVE with 200, or the state with 503",
        mutates: false,
        page: server_info::ready,
    },
    Route {
        path: "/reset_counters",
        what: "POST: counters back to zero",
        mutates: true,
        page: stats::reset,
    },
    Route {
        path: "/server_info",
        what: "version, state and flags",
        mutates: false,
        page: server_info::page,
    },
    Route {
        path: "/stats",
        what: "stats; ?filter=<regex>&usedonly&format=json|prometheus&type=Counters",
        mutates: false,
        page: stats::page,
    },
    Route {
        path: "/stats/prometheus",
        what: "stats for Prometheus",
        mutates: false,
        page: stats::prometheus,
    },
];

/// Answers one request.
pub(crate) fn answer<B>(
    process: &Process,
    request: &http::Request<B>,
    local: Option<SocketAddr>,
) -> Page {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    if !is_own_host(host, local) {
        return Page::error(
            StatusCode::FORBIDDEN,
            "the host header does not name this machine\n",
        );
    }
    let path = request.uri().path();
    let Some(route) = ROUTES.iter().find(|route| route.path == path) else {
        return Page::error(
            StatusCode::NOT_FOUND,
            "invalid path. admin commands are:\n".to_owned() + &help::list(),
        );
    };
    match (route.mutates, request.method()) {
        (true, &Method::POST) | (false, &Method::GET | &Method::HEAD | &Method::POST) => {}
        (true, method) => {
            return Page::error(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {method} not allowed, POST required.\n"),
            );
        }
        (false, method) => {
            return Page::error(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {method} not allowed, GET required.\n"),
            );
        }
    }
    if route.mutates
        && request.headers().get(header::ORIGIN).is_some_and(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            !is_own_host(origin.split_once("://").map(|(_, host)| host), local)
        })
    {
        return Page::error(
            StatusCode::FORBIDDEN,
            "a foreign origin may not change anything\n",
        );
    }
    (route.page)(&Ask {
        process,
        query: request.uri().query().unwrap_or_default(),
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
    match (process.is_ready(), process.listeners.phase()) {
        (false, _) => "INITIALIZING",
        (true, Phase::Running) => "LIVE",
        (true, _) => "DRAINING",
    }
}

#[cfg(test)]
mod tests {
    use super::{is_own_host, percent_decode};

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

    #[test]
    fn query_values_are_decoded() {
        assert_eq!(percent_decode("a%2eb%zz+c%"), "a.b%zz c%");
    }
}
