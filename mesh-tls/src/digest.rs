//! Hashes, and how they are written.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};

pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, data).as_ref());
    out
}

/// Only as a name for what is logged: it proves nothing.
pub(crate) fn sha1(data: &[u8]) -> [u8; 20] {
    let mut out = [0; 20];
    out.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, data).as_ref());
    out
}

/// Lower-case digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Digits of either case, with or without colons between bytes.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.contains(':') {
        return HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    }
    let bytes: Vec<_> = text.split(':').collect();
    if bytes.iter().any(|byte| byte.len() != 2) {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode(bytes.concat().as_bytes()).ok()
}

/// With padding; nothing else may be there.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok()
}

/// One section of a PEM file.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::{from_base64, from_hex, hex};

    #[test]
    fn digits_come_in_several_shapes() {
        assert_eq!(hex(&[0, 255]), "00ff");
        assert_eq!(from_hex("00:FF"), Some(vec![0, 255]));
        assert_eq!(from_hex("00fF"), Some(vec![0, 255]));
        for bad in ["0", "00:f", "0g", "00:ff:", "0:0ff"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
        assert_eq!(from_base64("Zm8="), Some(b"fo".to_vec()));
        assert_eq!(from_base64("Zm8"), None);
    }
}
