//! Looks at the ClientHello before a filter chain is chosen: whether there is one, for which server, and in
//! which protocols.

use std::io;

use mesh_config::model::TlsInspectorConfig;
use mesh_core::{ConnectionInfo, stats::Registry};
use mesh_net::Stream;
use mesh_tls::inspector::{HelloFacts, HelloInspector, Peek};

use super::filters::Verdict;

mesh_core::stats! {
    /// What it counts, as `tls_inspector.<stat>`.
    pub(super) struct TlsInspectorStats {
        /// Connections that were closed, for their ClientHello does not fit.
        counter client_hello_too_large,
        /// Connections that begin with a ClientHello.
        counter tls_found,
        /// Connections that begin with something else.
        counter tls_not_found,
        /// ClientHellos that offer application protocols.
        counter alpn_found,
        /// ClientHellos that offer none.
        counter alpn_not_found,
        /// ClientHellos that name a server.
        counter sni_found,
        /// ClientHellos that name none.
        counter sni_not_found,
        /// Bytes that were looked at.
        histogram bytes_processed,
    }
}

/// # Envoy
/// `envoy.filters.listener.tls_inspector`.
pub(super) struct TlsInspector {
    config: TlsInspectorConfig,
    stats: TlsInspectorStats,
}

impl TlsInspector {
    pub(super) fn new(config: &TlsInspectorConfig, registry: &Registry) -> Self {
        Self {
            config: config.clone(),
            stats: TlsInspectorStats::register(&registry.scope("tls_inspector.")),
        }
    }

    pub(super) async fn inspect(&self, stream: &Stream, info: &mut ConnectionInfo) -> Verdict {
        let mut inspector = HelloInspector::new();
        // A client that is gone, or whose socket failed, has nothing to be chosen for.
        let Ok(Some(peek)) = self.look(stream, &mut inspector).await else {
            return Verdict::Close;
        };
        let stats = &self.stats;
        stats.bytes_processed().record(inspector.seen() as u64);
        match peek {
            Peek::Hello(hello) => {
                self.found(hello, info);
                self.name(&inspector, info);
                Verdict::GoOn
            }
            Peek::NotTls => {
                stats.tls_not_found().inc();
                if self.config.close_on_parsing_errors {
                    return Verdict::Close;
                }
                Verdict::GoOn
            }
            Peek::NeedMore | Peek::TooLong => {
                stats.client_hello_too_large().inc();
                tracing::debug!(connection = info.id, "closing: its ClientHello is too long");
                Verdict::Close
            }
        }
    }

    fn found(&self, hello: HelloFacts, info: &mut ConnectionInfo) {
        let stats = &self.stats;
        stats.tls_found().inc();
        info.transport_protocol = Some("tls");
        let name = hello.server_name.filter(|name| !name.is_empty());
        match name {
            Some(_) => stats.sni_found().inc(),
            None => stats.sni_not_found().inc(),
        }
        info.server_name = name.map(Into::into);
        if hello.alpn.is_empty() {
            stats.alpn_not_found().inc();
        } else {
            stats.alpn_found().inc();
        }
        // What is no text cannot be in a config either.
        let names = hello.alpn.into_iter().map(String::from_utf8);
        info.application_protocols = names.flatten().map(Into::into).collect();
    }

    /// Names the way in which the client began, where the config asks for that.
    fn name(&self, inspector: &HelloInspector, info: &mut ConnectionInfo) {
        if !(self.config.ja3 || self.config.ja4) {
            return;
        }
        let Some(shape) = inspector.shape() else {
            return;
        };
        info.ja3 = self.config.ja3.then(|| shape.ja3().into());
        info.ja4 = self.config.ja4.then(|| shape.ja4().into());
    }

    /// What the connection begins with; [`Peek::NeedMore`] when that does not fit, and `None` when the client
    /// ends it before it can be told.
    async fn look(
        &self,
        stream: &Stream,
        inspector: &mut HelloInspector,
    ) -> io::Result<Option<Peek>> {
        let max = self.config.client_hello_max;
        let mut bytes = vec![0; self.config.first_look.min(max)];
        loop {
            let known = inspector.seen();
            let Some(length) = stream.peek_beyond(known, &mut bytes).await? else {
                return Ok(None);
            };
            let peek = inspector.push(bytes.get(known..length).unwrap_or_default());
            if peek != Peek::NeedMore || length == max {
                return Ok(Some(peek));
            }
            if length == bytes.len() {
                bytes.resize((2 * length).min(max), 0);
            }
        }
    }
}
