//! Asks a client of a control plane where its resources stand, as any gRPC client would.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use envoy_types::pb::envoy::service::status::v3::{ClientStatusRequest, ClientStatusResponse};
use tonic_prost::ProstCodec;

/// `FetchClientStatus` of the server at `address`.
///
/// # Errors
/// When it cannot be reached, or does not answer.
pub fn fetch(address: SocketAddr, request: ClientStatusRequest) -> Result<ClientStatusResponse> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?;
        let mut grpc = tonic::client::Grpc::new(endpoint.connect().await?);
        grpc.ready().await?;
        let path = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus";
        let codec = ProstCodec::<ClientStatusRequest, ClientStatusResponse>::default();
        let answer = grpc
            .unary(tonic::Request::new(request), path.parse()?, codec)
            .await
            .context("FetchClientStatus")?;
        Ok(answer.into_inner())
    })
}
