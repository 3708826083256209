//! The discovery messages, field for field as in `envoy/service/discovery/v3/discovery.proto`, but with
//! resource bodies as shared bytes: a response of ten megabytes is received without copying it, and a
//! resource is pushed to a thousand clients from one allocation.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
pub use envoy_types::pb::envoy::{config::core::v3::Node, service::status::v3::ClientConfig};
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, Timestamp};
use prost::Message;

use crate::{ResourceType, Variant};

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Any {
    /// Which message it is.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `google.rpc.Status`, without its details.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Status {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `ControlPlane`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ControlPlane {
    /// An opaque name of the instance.
    #[prost(string, tag = "1")]
    pub identifier: String,
}

/// `DiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryRequest {
    /// The last accepted version.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Who asks.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// Everything that is subscribed to.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// The type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// The response that this answers.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Why that response was rejected.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<Status>,
}

/// `DiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryResponse {
    /// The version of what is in it.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// The resources, bare or each in a [`Resource`].
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Any>,
    /// The type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be repeated in the answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Who sent it.
    #[prost(message, optional, tag = "6")]
    pub control_plane: Option<ControlPlane>,
}

/// `DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// The type.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names to add.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names to take away.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// What a reconnecting client already holds.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// The response that this answers; empty when it answers none.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Why that response was rejected.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// `DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryResponse {
    /// For people and logs only.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// What is new or changed.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// The type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be repeated in the answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// What is gone, or never was.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Who sent it.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Its version.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Itself; none in a heartbeat.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Other names of it.
    #[prost(string, repeated, tag = "4")]
    pub aliases: Vec<String>,
    /// How long it is good for.
    #[prost(message, optional, tag = "6")]
    pub ttl: Option<ProtoDuration>,
}

/// The type URL of [`Resource`], with which state-of-the-world wraps resources that have a TTL.
pub const RESOURCE_TYPE_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// What a client sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// State of the world.
    Sotw(DiscoveryRequest),
    /// Incremental.
    Delta(DeltaDiscoveryRequest),
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// State of the world.
    Sotw(DiscoveryResponse),
    /// Incremental.
    Delta(DeltaDiscoveryResponse),
}

impl Request {
    /// Who asks; only needed in the first request of a stream.
    #[must_use]
    pub const fn node(&self) -> Option<&Node> {
        match self {
            Self::Sotw(request) => request.node.as_ref(),
            Self::Delta(request) => request.node.as_ref(),
        }
    }

    /// The type asked for, when it is one that we know.
    #[must_use]
    pub fn resource_type(&self) -> Option<ResourceType> {
        ResourceType::from_type_url(match self {
            Self::Sotw(request) => &request.type_url,
            Self::Delta(request) => &request.type_url,
        })
    }

    /// Reads one.
    ///
    /// # Errors
    /// When the bytes are not such a message.
    pub fn decode(variant: Variant, bytes: impl bytes::Buf) -> Result<Self, prost::DecodeError> {
        Ok(match variant {
            Variant::StateOfTheWorld => Self::Sotw(DiscoveryRequest::decode(bytes)?),
            Variant::Delta => Self::Delta(DeltaDiscoveryRequest::decode(bytes)?),
        })
    }
}

impl Response {
    /// Reads one.
    ///
    /// # Errors
    /// When the bytes are not such a message.
    pub fn decode(variant: Variant, bytes: impl bytes::Buf) -> Result<Self, prost::DecodeError> {
        Ok(match variant {
            Variant::StateOfTheWorld => Self::Sotw(DiscoveryResponse::decode(bytes)?),
            Variant::Delta => Self::Delta(DeltaDiscoveryResponse::decode(bytes)?),
        })
    }
}

/// A protobuf duration; what is negative becomes zero, as a TTL that has passed.
pub(crate) fn duration(proto: &ProtoDuration) -> Duration {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(proto.seconds), u32::try_from(proto.nanos))
    else {
        return Duration::ZERO;
    };
    Duration::new(seconds, nanos.min(999_999_999))
}

pub(crate) fn proto_duration(duration: Duration) -> ProtoDuration {
    ProtoDuration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

pub(crate) fn timestamp(at: std::time::SystemTime) -> Timestamp {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().cast_signed(),
    }
}

impl DiscoveryResponse {
    /// One from its bytes, as a file has them.
    ///
    /// # Errors
    /// When they are something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::decode(bytes).map_err(|error| error.to_string())
    }
}
