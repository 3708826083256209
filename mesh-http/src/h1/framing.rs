use http::{HeaderMap, HeaderValue, header};

/// Where a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// There is no body.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// At the last chunk.
    Chunked,
    /// When the peer closes: responses only.
    UntilClose,
}

/// Why the end of a body cannot be told for sure. Somebody else may read such a message differently, so
/// it is refused, never repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ambiguous {
    /// `content-length` is no number, or there are several.
    ContentLength,
    /// Both `content-length` and `transfer-encoding`.
    Both,
    /// A transfer coding other than exactly one `chunked`.
    TransferEncoding,
    /// A transfer coding in an HTTP/1.0 message.
    TransferEncodingInHttp10,
}

/// What the framing headers of a message say; `None` when there are none.
pub(crate) fn declared(headers: &HeaderMap, http10: bool) -> Result<Option<BodyLength>, Ambiguous> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next();
    if let Some(coding) = coding {
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Ambiguous::Both);
        }
        if http10 {
            return Err(Ambiguous::TransferEncodingInHttp10);
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Ambiguous::TransferEncoding);
        }
        return Ok(Some(BodyLength::Chunked));
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(None);
    };
    let length = number(first).ok_or(Ambiguous::ContentLength)?;
    if lengths.next().is_some() {
        return Err(Ambiguous::ContentLength);
    }
    Ok(Some(if length == 0 {
        BodyLength::Empty
    } else {
        BodyLength::Length(length)
    }))
}

/// Digits only: no sign, no list, no white space.
fn number(value: &HeaderValue) -> Option<u64> {
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > 19 {
        return None;
    }
    bytes.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0'))
    })
}

/// Whether one of the comma-separated tokens of a header is `token`, in any case.
#[must_use]
pub fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value
            .as_bytes()
            .split(|&b| b == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Ambiguous, BodyLength, declared};

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(n, v)| {
                (
                    n.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_bytes(v.as_bytes()).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn reads_what_is_clear() {
        for (list, http10, expected) in [
            (&[][..], false, None),
            (
                &[("content-length", "5")],
                false,
                Some(BodyLength::Length(5)),
            ),
            (&[("content-length", "0")], false, Some(BodyLength::Empty)),
            (
                &[("transfer-encoding", "chunked")],
                false,
                Some(BodyLength::Chunked),
            ),
            (
                &[("transfer-encoding", "Chunked")],
                false,
                Some(BodyLength::Chunked),
            ),
        ] {
            assert_eq!(declared(&headers(list), http10), Ok(expected), "{list:?}");
        }
    }

    #[test]
    fn refuses_what_somebody_may_read_differently() {
        use Ambiguous as A;
        for (list, http10, expected) in [
            (&[("content-length", "+5")][..], false, A::ContentLength),
            (&[("content-length", "-0")], false, A::ContentLength),
            (&[("content-length", "5, 5")], false, A::ContentLength),
            (&[("content-length", "5 5")], false, A::ContentLength),
            (&[("content-length", "0x5")], false, A::ContentLength),
            (&[("content-length", "")], false, A::ContentLength),
            (
                &[("content-length", "99999999999999999999")],
                false,
                A::ContentLength,
            ),
            (
                &[("content-length", "5"), ("content-length", "6")],
                false,
                A::ContentLength,
            ),
            (
                &[("content-length", "5"), ("transfer-encoding", "chunked")],
                false,
                A::Both,
            ),
            (
                &[("transfer-encoding", "gzip, chunked")],
                false,
                A::TransferEncoding,
            ),
            (
                &[("transfer-encoding", "chunked, chunked")],
                false,
                A::TransferEncoding,
            ),
            (
                &[("transfer-encoding", "identity")],
                false,
                A::TransferEncoding,
            ),
            (
                &[("transfer-encoding", "xchunked")],
                false,
                A::TransferEncoding,
            ),
            (
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                false,
                A::TransferEncoding,
            ),
            (&[("transfer-encoding", "")], false, A::TransferEncoding),
            (
                &[("transfer-encoding", "chunked")],
                true,
                A::TransferEncodingInHttp10,
            ),
        ] {
            assert_eq!(declared(&headers(list), http10), Err(expected), "{list:?}");
        }
    }
}
