use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    Variant,
    wire::{Request, Response},
};

/// The client's end of a discovery stream, in either variant.
#[derive(Debug, Clone, Copy)]
pub(super) struct DiscoveryCodec(pub(super) Variant);

impl Codec for DiscoveryCodec {
    type Encode = Request;
    type Decode = Response;
    type Encoder = RequestEncoder;
    type Decoder = Decode<Response>;

    fn encoder(&mut self) -> RequestEncoder {
        RequestEncoder
    }

    fn decoder(&mut self) -> Decode<Response> {
        Decode::new(self.0)
    }
}

#[derive(Debug)]
pub(super) struct RequestEncoder;

impl Encoder for RequestEncoder {
    type Item = Request;
    type Error = Status;

    fn encode(&mut self, item: Request, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let encoded = match item {
            Request::Sotw(request) => request.encode(buf),
            Request::Delta(request) => request.encode(buf),
        };
        encoded.map_err(|error| Status::internal(error.to_string()))
    }
}

/// Reads requests or responses of one variant.
#[derive(Debug)]
pub(super) struct Decode<T> {
    variant: Variant,
    of: PhantomData<fn() -> T>,
}

impl<T> Decode<T> {
    pub(super) const fn new(variant: Variant) -> Self {
        Self {
            variant,
            of: PhantomData,
        }
    }
}

impl Decoder for Decode<Request> {
    type Item = Request;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Request>, Status> {
        let request = Request::decode(self.variant, buf.copy_to_bytes(buf.remaining()));
        request.map(Some).map_err(bad_message)
    }
}

impl Decoder for Decode<Response> {
    type Item = Response;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        let response = Response::decode(self.variant, buf.copy_to_bytes(buf.remaining()));
        response.map(Some).map_err(bad_message)
    }
}

fn bad_message(error: prost::DecodeError) -> Status {
    Status::invalid_argument(format!("not a discovery message: {error}"))
}

/// Any protobuf messages, for the services that are not discovery. The same as tonic-prost's, of which
/// nothing else would be used.
#[derive(Debug)]
pub(crate) struct ProtoCodec<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> Default for ProtoCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for ProtoCodec<E, D>
where
    E: Message + 'static,
    D: Message + Default + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<E: Message, D> Encoder for ProtoCodec<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buf)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl<E, D: Message + Default> Decoder for ProtoCodec<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        D::decode(buf)
            .map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
