use std::{
    future::{Ready, ready},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{Request, Response, StatusCode};
use mesh_core::{Body, Error};
use mesh_http::{
    Handler, reply,
    server::{Connection, ServerConfig},
};
use mesh_net::Listener;

/// Says its name, or fails every third time.
#[derive(Clone)]
struct Upstream {
    name: &'static str,
    fails: bool,
    requests: Arc<AtomicU64>,
}

/// Starts an upstream on the loopback, on a port that the kernel chooses.
pub(super) async fn start(name: &'static str, fails: bool) -> io::Result<u16> {
    let address = mesh_core::Address::Socket(([127, 0, 0, 1], 0).into());
    let socket = mesh_net::bind(&address, 1, &mesh_net::BindOptions::default())?
        .pop()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mesh_core::Address::Socket(bound) = socket.local_address()? else {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    };
    let listener = Listener::from_std(socket)?;
    let upstream = Upstream {
        name,
        fails,
        requests: Arc::default(),
    };
    let config = Arc::new(ServerConfig::default());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(Connection::new(
                stream,
                upstream.clone(),
                Arc::clone(&config),
            ));
        }
    });
    Ok(bound.port())
}

impl Handler for Upstream {
    type Body = Body;
    type Exchange = Ready<Response<Body>>;

    fn call(&mut self, request: Request<Body>) -> Self::Exchange {
        let n = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(Body::from(format!(
            "hello from upstream {}: {} {}\n",
            self.name,
            request.method(),
            request.uri()
        )));
        if self.fails && n % 3 == 2 {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            *response.body_mut() =
                Body::from(format!("upstream {} fails now and then\n", self.name));
        }
        ready(response)
    }

    fn reject(&mut self, error: Error) -> Response<Body> {
        reply::response(error, None, reply::ReplyContext::default())
    }
}
