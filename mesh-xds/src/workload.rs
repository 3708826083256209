//! The SPIFFE Workload API, as a client: an X.509 identity and the bundles to verify others with, from an
//! agent on a Unix socket, and again whenever they are rotated.
//!
//! What comes is plain bytes (DER) and names. Nobody here looks into a certificate; that is for TLS.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::uri::PathAndQuery;
use mesh_core::{Rng, clock};
use tonic::{Code, Status, client::Grpc, metadata::MetadataValue, transport::Endpoint};

use crate::{Reconnect, transport::ProtoCodec};

const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// The messages of `workload.proto`.
mod proto {
    use std::collections::HashMap;

    use bytes::Bytes;
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct X509SvidRequest {}

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct X509SvidResponse {
        #[prost(message, repeated, tag = "1")]
        pub(super) svids: Vec<X509Svid>,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        pub(super) crl: Vec<Bytes>,
        #[prost(map = "string, bytes", tag = "3")]
        pub(super) federated_bundles: HashMap<String, Bytes>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct X509Svid {
        #[prost(string, tag = "1")]
        pub(super) spiffe_id: String,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) x509_svid: Bytes,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) x509_svid_key: Bytes,
        #[prost(bytes = "bytes", tag = "4")]
        pub(super) bundle: Bytes,
        #[prost(string, tag = "5")]
        pub(super) hint: String,
    }
}

/// One identity. Its key never shows in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct X509Svid {
    /// `spiffe://trust-domain/path`.
    pub spiffe_id: String,
    /// The certificate and its intermediates, DER, one after the other.
    pub certificates: Bytes,
    /// The private key, PKCS #8 DER.
    pub key: Bytes,
    /// The roots of the identity's own trust domain, DER, one after the other.
    pub bundle: Bytes,
    /// What the operator calls it, when there are several.
    pub hint: String,
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// Everything an agent gives a workload, at one time. The first identity is the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Context {
    /// At least one.
    pub svids: Vec<X509Svid>,
    /// Roots of other trust domains, by their `spiffe://` id.
    pub federated_bundles: BTreeMap<String, Bytes>,
    /// Revocation lists, DER.
    pub crl: Vec<Bytes>,
}

/// Follows the X.509 identity of this process.
#[derive(Debug)]
pub struct WorkloadClient {
    endpoint: Endpoint,
    reconnect: Reconnect,
    rng: Rng,
}

impl WorkloadClient {
    /// A client of the agent at `address`: `unix:///run/spire/agent.sock`, as in
    /// `SPIFFE_ENDPOINT_SOCKET`.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(address: &str, rng: Rng) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self {
            endpoint: Endpoint::from_shared(address.to_owned())?,
            reconnect: Reconnect::with_backoff(1, Duration::from_secs(1), Duration::from_secs(30))?,
            rng,
        })
    }

    /// Gives each new context to `on_context`, and each failure to `on_failure`, until one of them says
    /// to stop by returning false. What was given before a failure stays good until it expires.
    pub async fn run(
        mut self,
        mut on_context: impl FnMut(X509Context) -> bool,
        mut on_failure: impl FnMut(&Status) -> bool,
    ) {
        loop {
            let call = open(self.endpoint.clone());
            let mut contexts = std::pin::pin!(stream::once(call).try_flatten());
            let failure = loop {
                match contexts.next().await.map(|context| context.and_then(read)) {
                    Some(Ok(context)) => {
                        self.reconnect.on_response();
                        if !on_context(context) {
                            return;
                        }
                    }
                    Some(Err(status)) => break status,
                    None => break Status::unavailable("the agent closed the stream"),
                }
            };
            if !on_failure(&failure) {
                return;
            }
            let at: Instant = clock::now() + self.reconnect.on_failure(self.rng.next_u64());
            tokio::time::sleep_until(at.into()).await;
        }
    }
}

async fn open(endpoint: Endpoint) -> Result<tonic::Streaming<proto::X509SvidResponse>, Status> {
    let mut grpc = Grpc::new(endpoint.connect_lazy());
    let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    grpc.ready().await.map_err(unavailable)?;
    let mut request = tonic::Request::new(proto::X509SvidRequest {});
    // Without it an agent refuses: it shows that the call was meant for it, and not forged by a browser.
    let marker = MetadataValue::from_static("true");
    request.metadata_mut().insert("workload.spiffe.io", marker);
    let path = PathAndQuery::from_static(FETCH_X509_SVID);
    let response = grpc
        .server_streaming(request, path, ProtoCodec::default())
        .await?;
    Ok(response.into_inner())
}

fn read(response: proto::X509SvidResponse) -> Result<X509Context, Status> {
    if response.svids.is_empty() {
        return Err(Status::new(
            Code::InvalidArgument,
            "the agent gave no identity",
        ));
    }
    let svid = |svid: proto::X509Svid| {
        let whole = svid.spiffe_id.starts_with("spiffe://")
            && !svid.x509_svid.is_empty()
            && !svid.x509_svid_key.is_empty()
            && !svid.bundle.is_empty();
        if !whole {
            let text = format!("the agent gave an incomplete identity {:?}", svid.spiffe_id);
            return Err(Status::invalid_argument(text));
        }
        Ok(X509Svid {
            spiffe_id: svid.spiffe_id,
            certificates: svid.x509_svid,
            key: svid.x509_svid_key,
            bundle: svid.bundle,
            hint: svid.hint,
        })
    };
    Ok(X509Context {
        svids: response
            .svids
            .into_iter()
            .map(svid)
            .collect::<Result<_, _>>()?,
        federated_bundles: response.federated_bundles.into_iter().collect(),
        crl: response.crl,
    })
}
