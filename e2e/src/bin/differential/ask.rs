//! What a scenario asks of a proxy.

/// One exchange: bytes to send and what to look at in the answer.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) label: String,
    pub(crate) listener: String,
    pub(crate) expect: Vec<u16>,
    pub(crate) heads: bool,
    pub(crate) fate: bool,
    pub(crate) hosts: bool,
    pub(crate) ordered: bool,
    pub(crate) whole: bool,
    start: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    open: bool,
    raw: Option<Vec<u8>>,
}

/// `GET path`.
pub(crate) fn get(path: &str) -> Ask {
    request("GET", path)
}

/// A request without a body.
pub(crate) fn request(method: &str, path: &str) -> Ask {
    Ask {
        label: format!("{method} {path}"),
        listener: "main".to_owned(),
        expect: Vec::new(),
        heads: method == "HEAD",
        fate: false,
        hosts: true,
        ordered: false,
        whole: false,
        start: format!("{method} {path} HTTP/1.1"),
        fields: vec![("Host".to_owned(), "test.example".to_owned())],
        body: Vec::new(),
        trailers: Vec::new(),
        open: false,
        raw: None,
    }
}

/// Exact bytes; whether the connection is kept is compared as well.
pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Ask {
    let bytes = bytes.into();
    Ask {
        label: label(&bytes),
        raw: Some(bytes),
        fate: true,
        ..request("GET", "/")
    }
}

/// What is unusual about a request, as far as its first line and later fields say so.
fn label(bytes: &[u8]) -> String {
    let text = e2e::wire::printable(bytes);
    let text = text.replace("\\r\\nHost: test.example", "");
    text.chars().take(LABEL_MAX).collect()
}

/// Characters of a label; the rest is left out.
const LABEL_MAX: usize = 70;

/// The start of a request for [`raw`], up to and with its Host.
pub(crate) fn head(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: test.example\r\n")
}

impl Ask {
    /// Adds a field.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the Host.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.label.push_str(&format!(" at {host}"));
        self.fields[0].1 = host.to_owned();
        self
    }

    /// Adds a body with its length.
    pub(crate) fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self.header("Content-Length", &body.len().to_string())
    }

    /// Adds a body in one chunk.
    pub(crate) fn chunked(mut self, body: &str) -> Self {
        self.body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes();
        self.header("Transfer-Encoding", "chunked")
    }

    /// Sends it to another listener than `main`.
    pub(crate) fn on(mut self, listener: &str) -> Self {
        self.listener = listener.to_owned();
        self
    }

    /// Says what Envoy answers, so that a scenario that does not test what it means to is noticed.
    pub(crate) fn expect(mut self, status: u16) -> Self {
        self.expect = vec![status];
        self
    }

    /// The same for several responses in a row; 0 for none.
    pub(crate) fn expect_all(mut self, statuses: &[u16]) -> Self {
        self.expect = statuses.to_vec();
        self
    }

    /// Compares whether the connection is kept.
    pub(crate) fn fate(mut self) -> Self {
        self.fate = true;
        self
    }

    /// Leaves out which upstream answered, where that is random.
    pub(crate) fn any_host(mut self) -> Self {
        self.hosts = false;
        self
    }

    /// Compares the order of fields of different names as well.
    pub(crate) fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }

    /// Leaves out requests that an upstream saw only a part of, where it is a race whether any
    /// of it was sent before the rest turned out to be bad.
    pub(crate) fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Adds content without a length, for HTTP/2.
    pub(crate) fn data(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }

    /// Adds a trailer, for HTTP/2.
    pub(crate) fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// More comes later, for HTTP/2.
    pub(crate) fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// The request as HTTP/2 has it.
    pub(crate) fn http2(&self) -> e2e::http2::Request {
        let mut words = self.start.split(' ').map(str::to_owned);
        let method = words.next().unwrap_or_default();
        let path = words.next().unwrap_or_default();
        let mut fields = vec![(":method".to_owned(), method)];
        let authority = self.fields[0].1.clone();
        if !path.is_empty() {
            fields.push((":scheme".to_owned(), "http".to_owned()));
            fields.push((":path".to_owned(), path));
        }
        if !authority.is_empty() {
            fields.push((":authority".to_owned(), authority));
        }
        let (pseudo, plain): (Vec<_>, Vec<_>) = self.fields[1..]
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .partition(|(name, _)| name.starts_with(':'));
        fields.extend(pseudo);
        fields.extend(plain);
        e2e::http2::Request {
            fields,
            body: self.body.clone(),
            trailers: self.trailers.clone(),
            open: self.open,
        }
    }

    /// How many responses to read.
    pub(crate) fn responses(&self) -> usize {
        self.expect.len().max(1)
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let fields: String = self
            .fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let mut bytes = format!("{}\r\n{fields}\r\n", self.start).into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
