//! A file: magic, format, length, payload, checksum.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use prost::Message;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    Resource, ResourceType,
    wire::{duration, proto_duration},
};

use super::{Cached, Identity};

const MAGIC: &[u8; 8] = b"mesh-xds";

/// The format. One that is not ours is refused, and written anew when the control plane is back.
const FORMAT: u32 = 1;

/// Magic, format, length of the payload.
const HEAD_LEN: usize = 8 + 4 + 8;
const CHECKSUM_LEN: usize = 16;

/// The largest file that is written or read. A larger config is not saved, and the caller is told.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is none.
    #[error("nothing was saved")]
    Absent,
    /// The system does not give it.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// Others than the owner may read it.
    #[error("it holds secrets, and its mode {mode:03o} lets others read it")]
    Exposed {
        /// Its permissions.
        mode: u32,
    },
    /// It is larger than anything that is written.
    #[error("it is too large: {0} bytes")]
    TooLarge(u64),
    /// It does not begin as one of ours.
    #[error("it is not a config cache")]
    Alien,
    /// It is of another version of this program.
    #[error("its format is {found}, and only {FORMAT} is known")]
    Format {
        /// What it says.
        found: u32,
    },
    /// It ends too early, or has something after its end.
    #[error("it has {found} bytes, and should have {expected}")]
    Length {
        /// How long it is.
        found: u64,
        /// How long it says that it is.
        expected: u64,
    },
    /// Something in it changed since it was written.
    #[error("its checksum does not match its content")]
    Corrupted,
    /// It is of another node.
    #[error("it belongs to node {node_id:?} of cluster {node_cluster:?}")]
    Foreign {
        /// Whose it is.
        node_id: String,
        /// Whose it is.
        node_cluster: String,
    },
    /// It holds another type than its name says.
    #[error("it holds resources of type {found:?}")]
    WrongType {
        /// What it holds.
        found: String,
    },
    /// It is too old.
    #[error("it is {} s old, and at most {} s are allowed", age.as_secs(), max.as_secs())]
    Stale {
        /// How old it is.
        age: Duration,
        /// How old it may be.
        max: Duration,
    },
}

#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(string, tag = "1")]
    node_id: String,
    #[prost(string, tag = "2")]
    node_cluster: String,
    #[prost(string, tag = "3")]
    type_url: String,
    #[prost(string, tag = "4")]
    version: String,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "5")]
    saved_at: u64,
    #[prost(message, repeated, tag = "6")]
    records: Vec<Record>,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
    #[prost(message, optional, tag = "4")]
    ttl: Option<envoy_types::pb::google::protobuf::Duration>,
}

pub(super) fn encode(
    ty: ResourceType,
    identity: &Identity,
    version: &str,
    resources: &[Resource],
    now: SystemTime,
) -> io::Result<Vec<u8>> {
    let record = |resource: &Resource| Record {
        name: resource.name.clone(),
        version: resource.version.clone(),
        body: resource.body.clone(),
        ttl: resource.ttl.map(proto_duration),
    };
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let saved = Saved {
        node_id: identity.node_id.clone(),
        node_cluster: identity.node_cluster.clone(),
        type_url: ty.type_url().to_owned(),
        version: version.to_owned(),
        saved_at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        records: resources.iter().map(record).collect(),
    };
    let len = saved.encoded_len();
    let whole = HEAD_LEN + len + CHECKSUM_LEN;
    if whole as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "{whole} bytes are too many to save"
        )));
    }
    let mut file = Vec::with_capacity(whole);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&FORMAT.to_le_bytes());
    file.extend_from_slice(&(len as u64).to_le_bytes());
    saved.encode_raw(&mut file);
    let checksum = xxh3_128(&file);
    file.extend_from_slice(&checksum.to_le_bytes());
    Ok(file)
}

pub(super) fn decode(
    file: &[u8],
    ty: ResourceType,
    identity: &Identity,
) -> Result<Cached, Refusal> {
    let saved = verified(file)?;
    if saved.node_id != identity.node_id || saved.node_cluster != identity.node_cluster {
        return Err(Refusal::Foreign {
            node_id: saved.node_id,
            node_cluster: saved.node_cluster,
        });
    }
    if saved.type_url != ty.type_url() {
        return Err(Refusal::WrongType {
            found: saved.type_url,
        });
    }
    let resource = |record: Record| Resource {
        name: record.name,
        version: record.version,
        body: record.body,
        ttl: record.ttl.as_ref().map(duration),
    };
    let saved_at = UNIX_EPOCH.checked_add(Duration::from_millis(saved.saved_at));
    Ok(Cached {
        version: saved.version,
        saved_at: saved_at.unwrap_or(UNIX_EPOCH),
        resources: saved.records.into_iter().map(resource).collect(),
    })
}

/// The payload, once length and checksum are known to be right.
fn verified(file: &[u8]) -> Result<Saved, Refusal> {
    let found = file.len() as u64;
    let Some((magic, rest)) = file.split_first_chunk::<8>() else {
        return Err(cut_short(found, MAGIC.starts_with(file)));
    };
    if magic != MAGIC {
        return Err(Refusal::Alien);
    }
    let Some((format, rest)) = rest.split_first_chunk::<4>() else {
        return Err(cut_short(found, true));
    };
    let format = u32::from_le_bytes(*format);
    if format != FORMAT {
        return Err(Refusal::Format { found: format });
    }
    let Some((len, rest)) = rest.split_first_chunk::<8>() else {
        return Err(cut_short(found, true));
    };
    let expected = u64::from_le_bytes(*len).saturating_add((HEAD_LEN + CHECKSUM_LEN) as u64);
    if expected != found {
        return Err(Refusal::Length { found, expected });
    }
    let Some((payload, checksum)) = rest.split_last_chunk::<CHECKSUM_LEN>() else {
        return Err(cut_short(found, true));
    };
    let covered = &file[..file.len() - CHECKSUM_LEN];
    if xxh3_128(covered) != u128::from_le_bytes(*checksum) {
        return Err(Refusal::Corrupted);
    }
    // Resources become slices of one allocation.
    Saved::decode(Bytes::copy_from_slice(payload)).map_err(|_| Refusal::Corrupted)
}

/// A file that ends within its head.
fn cut_short(found: u64, ours: bool) -> Refusal {
    if !ours {
        return Refusal::Alien;
    }
    let expected = (HEAD_LEN + CHECKSUM_LEN) as u64;
    Refusal::Length { found, expected }
}
