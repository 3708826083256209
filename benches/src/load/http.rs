//! As much HTTP/1.1 as a load generator needs, and no more: its own cost must stay below any proxy's.

use anyhow::{Context as _, Result, bail, ensure};
use memchr::memmem;

/// A head that is longer than this is an error: no contender sends one.
const HEAD_BYTES_MAX: usize = 16 << 10;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Finds the ends of responses on a connection that has one request at a time under way.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    /// The begun head, when it came in pieces.
    head: Vec<u8>,
    /// What is missing of the body.
    body_left: Option<usize>,
}

impl Responses {
    /// Takes what was read; whether the response is complete.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<bool> {
        let Some(left) = self.body_left else {
            if self.head.is_empty() {
                return self.read_head(bytes);
            }
            self.head.extend_from_slice(bytes);
            let head = std::mem::take(&mut self.head);
            return self.read_head(&head);
        };
        ensure!(bytes.len() <= left, "more bytes than the response's length");
        self.body_left = Some(left - bytes.len()).filter(|left| *left > 0);
        Ok(self.body_left.is_none())
    }

    fn read_head(&mut self, bytes: &[u8]) -> Result<bool> {
        let Some(end) = memmem::find(bytes, HEAD_END) else {
            ensure!(bytes.len() <= HEAD_BYTES_MAX, "the head does not end");
            self.head.extend_from_slice(bytes);
            return Ok(false);
        };
        let (head, body) = bytes.split_at(end + HEAD_END.len());
        ensure!(
            head.starts_with(b"HTTP/1.1 200"),
            "answered {:?}",
            String::from_utf8_lossy(head.split(|b| *b == b'\r').next().unwrap_or_default())
        );
        let left = content_length(head)?;
        ensure!(body.len() <= left, "more bytes than the response's length");
        self.body_left = Some(left - body.len()).filter(|left| *left > 0);
        Ok(self.body_left.is_none())
    }
}

fn content_length(head: &[u8]) -> Result<usize> {
    const NAME: &[u8] = b"content-length:";
    for line in head.split(|byte| *byte == b'\n') {
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let value = std::str::from_utf8(&line[NAME.len()..])?.trim();
            return value.parse().with_context(|| format!("length {value:?}"));
        }
    }
    bail!("a response without a length")
}

/// Finds the ends of requests without bodies.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    head: Vec<u8>,
}

impl Requests {
    /// Takes what was read; the target's first letter when the request is complete.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Option<u8>> {
        if self.head.is_empty() && bytes.ends_with(HEAD_END) {
            return target(bytes).map(Some);
        }
        self.head.extend_from_slice(bytes);
        ensure!(self.head.len() <= HEAD_BYTES_MAX, "the head does not end");
        if !self.head.ends_with(HEAD_END) {
            return Ok(None);
        }
        let head = std::mem::take(&mut self.head);
        target(&head).map(Some)
    }
}

fn target(head: &[u8]) -> Result<u8> {
    let rest = head.strip_prefix(b"GET /").context("not a GET")?;
    rest.first().copied().context("no target")
}

#[cfg(test)]
mod tests {
    use super::{Requests, Responses};

    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nx: y\r\n\r\nhello";

    #[test]
    fn a_response_ends_with_its_body_wherever_it_was_cut() {
        for cut in 1..RESPONSE.len() {
            let mut responses = Responses::default();
            for _ in 0..2 {
                assert!(!responses.read(&RESPONSE[..cut]).unwrap(), "cut at {cut}");
                assert!(responses.read(&RESPONSE[cut..]).unwrap(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_response_that_is_no_success_is_an_error() {
        let refused = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
        let error = Responses::default().read(refused).unwrap_err();
        assert!(error.to_string().contains("429"), "{error}");
    }

    #[test]
    fn bytes_behind_a_response_are_an_error() {
        assert!(
            Responses::default()
                .read(&[RESPONSE, b"!"].concat())
                .is_err()
        );
    }

    #[test]
    fn a_request_ends_with_its_head_wherever_it_was_cut() {
        let request = b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n";
        for cut in 1..request.len() {
            let mut requests = Requests::default();
            assert_eq!(
                requests.read(&request[..cut]).unwrap(),
                None,
                "cut at {cut}"
            );
            assert_eq!(
                requests.read(&request[cut..]).unwrap(),
                Some(b'l'),
                "cut at {cut}"
            );
        }
    }
}
