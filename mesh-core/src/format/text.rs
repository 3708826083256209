//! Parts of what a peer sent.

use std::borrow::Cow;

use http::HeaderValue;

use super::operator::Length;

pub(super) fn header(value: Option<&HeaderValue>, length: Length) -> Option<&[u8]> {
    value.map(|value| cut(value.as_bytes(), length))
}

/// At most `length` bytes, and no torn character.
pub(super) fn cut(bytes: &[u8], length: Length) -> &[u8] {
    let Some(mut length) = length.filter(|&length| length < bytes.len()) else {
        return bytes;
    };
    while length > 0 && bytes[length] & 0xc0 == 0x80 {
        length -= 1;
    }
    &bytes[..length]
}

pub(super) fn path_part(path: &[u8], with_query: bool) -> &[u8] {
    let end = path.iter().position(|&byte| byte == b'?');
    match end {
        Some(end) if !with_query => &path[..end],
        _ => path,
    }
}

/// The first value of `key`, both percent-decoded.
pub(super) fn query_param<'a>(path: &'a [u8], key: &str) -> Option<Cow<'a, [u8]>> {
    query(path)?.split(|&byte| byte == b'&').find_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=');
        let (name, value) = match equals {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        (decoded(name).as_ref() == key.as_bytes()).then(|| decoded(value))
    })
}

pub(super) fn query(path: &[u8]) -> Option<&[u8]> {
    let start = path.iter().position(|&byte| byte == b'?')?;
    Some(&path[start + 1..])
}

/// Allocates only when there is something to decode; what is not `%` and two digits stays.
fn decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let code = match (first, after) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)),
            _ => None,
        };
        match code {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(out)
}
