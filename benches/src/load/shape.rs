//! What a proxy has to speak, and what that means in its config.

use super::rig::{Ask, Files, Life, Protocol, Size, Tls};

/// What a proxy has to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// HTTP/1.1 on both sides.
    Http,
    /// HTTP/2 in the clear from clients, HTTP/1.1 to upstreams.
    Http2,
    /// HTTP/2 in the clear on both sides.
    Http2Both,
    /// TLS 1.3 from clients, HTTP/1.1 in the clear to upstreams.
    Tls,
    /// The same, and clients have to show a certificate.
    Mtls,
    /// Bytes, whatever they mean.
    Tcp,
}

impl Shape {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Http2Both => "http2-both",
            Self::Tls => "tls",
            Self::Mtls => "mtls",
            Self::Tcp => "tcp",
        }
    }

    /// The first thing that is asked of a proxy of this shape.
    pub(crate) const fn first_ask(self) -> Ask {
        Ask {
            size: Size::Small,
            protocol: if self.takes_http2() {
                Protocol::Http2 { streams: 1 }
            } else {
                Protocol::Http1
            },
            tls: if self.takes_tls() {
                Some(Tls::Full)
            } else {
                None
            },
            life: Life::Idle,
        }
    }

    const fn takes_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Both)
    }

    const fn takes_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Mtls)
    }
}

/// What a template leaves open.
#[derive(Debug, Default)]
pub(crate) struct Fill {
    /// Behind the address to listen on.
    pub(crate) listen_flags: String,
    /// What is said of the side of the clients.
    pub(crate) downstream: String,
    /// What is said of the upstreams.
    pub(crate) upstream: String,
}

impl Fill {
    pub(crate) fn envoy(shape: Shape, files: &Files) -> Self {
        const TYPE: &str = "type.googleapis.com/envoy.extensions";
        let folder = files.folder.display();
        let mut fill = Self::default();
        if shape.takes_tls() {
            let client = if shape == Shape::Mtls {
                (
                    "require_client_certificate: true, ",
                    format!(", validation_context: {{trusted_ca: {{filename: {folder}/ca.pem}}}}"),
                )
            } else {
                ("", String::new())
            };
            fill.downstream = format!(
                "transport_socket: {{name: tls, typed_config: {{'@type': \
                 {TYPE}.transport_sockets.tls.v3.DownstreamTlsContext, {}common_tls_context: \
                 {{alpn_protocols: [h2, http/1.1], tls_certificates: [{{certificate_chain: \
                 {{filename: {folder}/server.pem}}, private_key: {{filename: {folder}/server.key}}}}]{}}}}}}}",
                client.0, client.1
            );
        }
        if shape == Shape::Http2Both {
            fill.upstream = format!(
                "typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
                 {{'@type': {TYPE}.upstreams.http.v3.HttpProtocolOptions, \
                 explicit_http_config: {{http2_protocol_options: {{}}}}}}}}"
            );
        }
        fill
    }

    pub(crate) fn nginx(shape: Shape, files: &Files) -> Self {
        let folder = files.folder.display();
        let mut fill = Self::default();
        if shape.takes_http2() {
            " http2".clone_into(&mut fill.listen_flags);
            "http2_max_concurrent_streams 128;".clone_into(&mut fill.downstream);
        }
        if shape.takes_tls() {
            " ssl".clone_into(&mut fill.listen_flags);
            fill.downstream = format!(
                "ssl_protocols TLSv1.3; ssl_certificate {folder}/server.pem; \
                 ssl_certificate_key {folder}/server.key;"
            );
        }
        if shape == Shape::Mtls {
            fill.downstream += &format!(
                " ssl_client_certificate {folder}/ca.pem; ssl_verify_client on; ssl_verify_depth 3;"
            );
        }
        fill
    }

    pub(crate) fn haproxy(shape: Shape, files: &Files) -> Self {
        let folder = files.folder.display();
        let mut fill = Self::default();
        if shape.takes_http2() {
            " proto h2".clone_into(&mut fill.listen_flags);
        }
        if shape.takes_tls() {
            fill.listen_flags = format!(" ssl crt {folder}/server-all.pem ssl-min-ver TLSv1.3");
        }
        if shape == Shape::Mtls {
            fill.listen_flags += &format!(" ca-file {folder}/ca.pem verify required");
        }
        if shape == Shape::Http2Both {
            " proto h2".clone_into(&mut fill.upstream);
        }
        fill
    }
}
