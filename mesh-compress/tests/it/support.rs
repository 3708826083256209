use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use mesh_compress::{Coding, Compression};
use mesh_core::{Body, Error};
use mesh_testkit::request;

pub(crate) const ALL: [Compression; 3] = [
    Compression::gzip(6),
    Compression::brotli(4),
    Compression::zstd(3),
];

pub(crate) const TEXT: &str = "one two three four five six seven eight nine ten eleven twelve";

/// A request with that header.
pub(crate) fn with(name: &'static str, value: &str) -> Request<Body> {
    let mut request = request("http://a/");
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

pub(crate) fn accepting(coding: &str) -> Request<Body> {
    with("accept-encoding", coding)
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

pub(crate) async fn read(body: Body) -> Result<(Vec<u8>, Option<HeaderMap>), Error> {
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    Ok((body.to_bytes().to_vec(), trailers))
}

/// Decompresses with the libraries themselves.
pub(crate) fn plain(coding: Coding, data: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut out = Vec::new();
    match coding {
        Coding::Gzip => flate2::read::MultiGzDecoder::new(data).read_to_end(&mut out),
        Coding::Brotli => brotli::Decompressor::new(data, 4096).read_to_end(&mut out),
        Coding::Zstd => zstd::stream::read::Decoder::new(data)
            .unwrap()
            .read_to_end(&mut out),
    }
    .unwrap();
    out
}

/// Compresses with the libraries themselves.
pub(crate) fn coded(coding: Coding, data: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    match coding {
        Coding::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Brotli => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
            encoder.write_all(data).unwrap();
            encoder.into_inner()
        }
        Coding::Zstd => zstd::encode_all(data, 3).unwrap(),
    }
}
