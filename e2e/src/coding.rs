//! Content codings: what a body says once it is decompressed.

use std::io::Read as _;

/// Decompresses `data`; `None` when it is not what `coding` says, or of a coding that is not known.
#[must_use]
pub fn decode(coding: &str, data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match coding {
        "gzip" => flate2::read::MultiGzDecoder::new(data).read_to_end(&mut out),
        "br" => brotli::Decompressor::new(data, 4096).read_to_end(&mut out),
        "zstd" => zstd::stream::read::Decoder::new(data)
            .ok()?
            .read_to_end(&mut out),
        _ => return None,
    }
    .ok()?;
    Some(out)
}

/// Compresses `data` with gzip.
///
/// # Panics
/// Never: memory takes every byte.
#[must_use]
pub fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}

#[cfg(test)]
mod tests {
    use super::{decode, gzip};

    #[test]
    fn what_was_compressed_can_be_read() {
        assert_eq!(decode("gzip", &gzip(b"hello")).unwrap(), b"hello");
        assert_eq!(decode("gzip", b"hello"), None);
        assert_eq!(decode("deflate", b"hello"), None);
    }
}
