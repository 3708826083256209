use http::{HeaderValue, Method, Request, Response, StatusCode, header};

/// In a request's extensions: its client wants to go on with something else than HTTP. The body of such a
/// request is what the client sends then, and nobody reads it before the answer grants it.
///
/// Inside this house a tunnel looks as over HTTP/1.1, whatever the client speaks: a `CONNECT`, or a `GET`
/// with `connection: upgrade` that is answered with 101.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelRequest {
    /// `CONNECT host:port`.
    Connect,
    /// `Upgrade`, with the protocol's name.
    Upgrade(HeaderValue),
}

impl TunnelRequest {
    /// The tunnel that `request` asks for.
    pub fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Whether this status grants the tunnel.
    #[must_use]
    pub fn is_granted_by(&self, status: StatusCode) -> bool {
        match self {
            Self::Connect => status.is_success(),
            Self::Upgrade(_) => status == StatusCode::SWITCHING_PROTOCOLS,
        }
    }

    /// As `upgrade_configs` names it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Connect => b"CONNECT",
            Self::Upgrade(name) => name.as_bytes(),
        }
    }

    /// Reads it off a request as HTTP/1.1 has it. An offer to speak HTTP/2 in the clear may be ignored (RFC
    /// 9113, section 3.1), and is.
    #[must_use]
    pub fn read<B>(request: &Request<B>) -> Option<Self> {
        if request.method() == Method::CONNECT {
            return Some(Self::Connect);
        }
        let upgrade = request.headers().get(header::UPGRADE)?;
        let wanted = !upgrade.as_bytes().eq_ignore_ascii_case(b"h2c")
            && request
                .headers()
                .get_all(header::CONNECTION)
                .iter()
                .flat_map(|value| value.as_bytes().split(|b| *b == b','))
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        wanted.then(|| Self::Upgrade(upgrade.clone()))
    }
}

/// In a response's extensions: it grants a tunnel. Its body is what the other side sends from now on, and
/// nobody may change, hold up or time it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel;

impl Tunnel {
    /// Whether `response` grants a tunnel.
    pub fn is_granted<B>(response: &Response<B>) -> bool {
        response.extensions().get::<Self>().is_some()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request, StatusCode};

    use super::TunnelRequest;

    #[test]
    fn an_upgrade_is_asked_for_by_both_headers() {
        let read = |upgrade: &str, connection: &str| {
            let request = Request::get("/")
                .header("upgrade", upgrade)
                .header("connection", connection);
            TunnelRequest::read(&request.body(()).unwrap())
        };
        let websocket = TunnelRequest::Upgrade(HeaderValue::from_static("websocket"));
        assert_eq!(read("websocket", "keep-alive, Upgrade"), Some(websocket));
        assert_eq!(read("websocket", "keep-alive"), None);
        assert_eq!(read("h2c", "upgrade"), None);
    }

    #[test]
    fn each_is_granted_by_its_own_statuses() {
        let upgrade = TunnelRequest::Upgrade(HeaderValue::from_static("websocket"));
        assert!(upgrade.is_granted_by(StatusCode::SWITCHING_PROTOCOLS));
        assert!(!upgrade.is_granted_by(StatusCode::OK));
        assert!(TunnelRequest::Connect.is_granted_by(StatusCode::OK));
        assert!(!TunnelRequest::Connect.is_granted_by(StatusCode::FORBIDDEN));
    }
}
