use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::{
    ResourceType, Variant,
    wire::{RESOURCE_TYPE_URL, proto_duration},
};

use super::{Entry, Push, topic::Content};

/// A serialised response, in two parts: what is this client's own, and what it shares with others.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Version, nonce, and resources that are not shared.
    pub own: Bytes,
    /// The resources of a push that goes to everybody in the same form.
    pub shared: Bytes,
}

impl Payload {
    /// How many bytes the message has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.own.len() + self.shared.len()
    }

    /// Whether the message has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message in one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.len());
        whole.put_slice(&self.own);
        whole.put_slice(&self.shared);
        whole.freeze()
    }
}

impl Push {
    /// Serialises the response. `control_plane` is the identifier that clients show.
    #[must_use]
    pub fn encode(&self, control_plane: &str) -> Payload {
        let mut own = BytesMut::with_capacity(256);
        put_string(1, &self.version, &mut own);
        put_string(4, self.ty.type_url(), &mut own);
        put_string(5, &self.nonce, &mut own);
        let identifier_tag = match self.variant {
            Variant::StateOfTheWorld => 6,
            Variant::Delta => 7,
        };
        if !control_plane.is_empty() {
            let identifier_len = len_delimited(control_plane.len());
            open(identifier_tag, identifier_len, &mut own);
            put_string(1, control_plane, &mut own);
        }
        for name in &self.removed {
            put_string(6, name, &mut own);
        }
        let shape = Shape {
            ty: self.ty,
            variant: self.variant,
            ttl: self.ttl,
        };
        let shared = match &self.content {
            Content::Full(set) if set.entries().all(|entry| entry.ttl.is_none()) => {
                let slot = &set.full[usize::from(self.variant == Variant::Delta)];
                slot.get_or_init(|| shape.all(set.entries())).clone()
            }
            Content::Changed(diff) if self.variant == Variant::Delta => {
                let all = || shape.all(diff.changed.iter());
                diff.encoded.get_or_init(all).clone()
            }
            content => {
                let body = !matches!(content, Content::Heartbeat(_));
                content.for_each(|entry| shape.put(entry, body, &mut own));
                Bytes::new()
            }
        };
        Payload {
            own: own.freeze(),
            shared,
        }
    }
}

/// How resources are written in a response.
struct Shape {
    ty: ResourceType,
    variant: Variant,
    /// Whether the client understands TTLs in state-of-the-world.
    ttl: bool,
}

impl Shape {
    fn all<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Bytes {
        let mut all = BytesMut::new();
        entries.for_each(|entry| self.put(entry, true, &mut all));
        all.freeze()
    }

    /// Writes one element of `resources`.
    fn put(&self, entry: &Entry, body: bool, out: &mut BytesMut) {
        let url = self.ty.type_url();
        let any_len = len_delimited(url.len()) + len_delimited(entry.body.len());
        if self.variant == Variant::StateOfTheWorld && !(self.ttl && entry.ttl.is_some()) {
            open(2, any_len, out);
            put_any(url, &entry.body, out);
            return;
        }
        let duration = entry.ttl.map(proto_duration);
        let ttl = duration.map(|d| prost::Message::encode_to_vec(&d));
        let mut len = len_delimited(entry.version.len()) + len_delimited(entry.name.len());
        len += ttl.as_ref().map_or(0, |ttl| len_delimited(ttl.len()));
        len += if body { len_delimited(any_len) } else { 0 };
        match self.variant {
            Variant::StateOfTheWorld => {
                open(
                    2,
                    len_delimited(RESOURCE_TYPE_URL.len()) + len_delimited(len),
                    out,
                );
                put_string(1, RESOURCE_TYPE_URL, out);
                open(2, len, out);
            }
            Variant::Delta => open(2, len, out),
        }
        put_string(1, &entry.version, out);
        put_string(3, &entry.name, out);
        if let Some(ttl) = ttl {
            open(6, ttl.len(), out);
            out.put_slice(&ttl);
        }
        if body {
            open(2, any_len, out);
            put_any(url, &entry.body, out);
        }
    }
}

fn put_any(url: &str, body: &[u8], out: &mut BytesMut) {
    put_string(1, url, out);
    open(2, body.len(), out);
    out.put_slice(body);
}

/// The head of a length-delimited field.
fn open(tag: u32, len: usize, out: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn put_string(tag: u32, text: &str, out: &mut BytesMut) {
    open(tag, text.len(), out);
    out.put_slice(text.as_bytes());
}

/// How long a length-delimited field of `len` bytes is, with a tag below 16.
const fn len_delimited(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}
