//! `x-forwarded-client-cert`: who the client of the mesh's edge was, passed on from hop to hop.
//!
//! Pure: [`forward`] says what becomes of the header, [`parse`] reads one.

use std::{borrow::Cow, fmt::Write as _};

use mesh_core::TlsFacts;
pub use mesh_core::{ClientCertDetails, ForwardClientCert, Xfcc};

use crate::{Certificate, TlsSession, digest::hex};

/// The most elements that [`parse`] gives; the rest is left out.
pub const ELEMENTS_MAX: usize = 64;

/// Decides over the header of one request; `session` is that of the client's connection, if it has TLS.
#[must_use]
pub fn forward(
    mode: ForwardClientCert,
    details: ClientCertDetails,
    session: Option<&TlsSession>,
) -> Xfcc {
    mode.decide(details, session.map(|session| session as &dyn TlsFacts))
}

/// One element about `chain`, leaf first, as seen by `local`.
pub(crate) fn element(
    details: ClientCertDetails,
    local: Option<&Certificate>,
    chain: &[std::sync::Arc<Certificate>],
) -> String {
    let Some(leaf) = chain.first() else {
        return String::new();
    };
    let mut parts: Vec<String> = Vec::new();
    let ours = local.into_iter().flat_map(Certificate::uris);
    parts.extend(ours.map(|uri| format!("By={}", plain(uri))));
    parts.push(format!("Hash={}", hex(leaf.sha256())));
    if details.cert {
        parts.push(format!("Cert=\"{}\"", percent(&leaf.to_pem())));
    }
    if details.chain {
        let all: String = chain.iter().map(|one| one.to_pem()).collect();
        parts.push(format!("Chain=\"{}\"", percent(&all)));
    }
    if details.subject {
        parts.push(format!("Subject=\"{}\"", leaf.subject()));
    }
    if details.uri {
        let before = parts.len();
        parts.extend(leaf.uris().map(|uri| format!("URI={}", plain(uri))));
        if parts.len() == before {
            parts.push("URI=".to_owned());
        }
    }
    if details.dns {
        parts.extend(leaf.dns_names().map(|name| format!("DNS={}", plain(name))));
    }
    parts.join(";")
}

/// A value as it is, unless a reader would take part of it for something else.
fn plain(value: &str) -> Cow<'_, str> {
    if value.contains([',', ';', '=', '"', '\\']) {
        Cow::Owned(quoted(value))
    } else {
        Cow::Borrowed(value)
    }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// PEM with its line ends and special characters as percent signs.
pub(crate) fn percent(pem: &str) -> String {
    let mut out = String::with_capacity(pem.len() + pem.len() / 16);
    for c in pem.chars() {
        match c {
            '\n' | ' ' | '+' | '/' | '=' => {
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out
}

/// One hop, as a header tells it. What is not there is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// The URIs of the proxy that took the connection.
    pub by: Vec<String>,
    /// SHA-256 of the client's certificate.
    pub hash: String,
    /// The certificate as PEM, decoded.
    pub cert: String,
    /// The chain as PEM, decoded.
    pub chain: String,
    /// The subject.
    pub subject: Option<String>,
    /// The URIs.
    pub uris: Vec<String>,
    /// The host names.
    pub dns: Vec<String>,
}

/// Reads a header, nearest hop last. Keys match in either case, unknown ones are skipped. `None` when a quote is
/// not closed or a part has no `=`: whoever decides by such a header must refuse it.
#[must_use]
pub fn parse(header: &str) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    for text in split(header, ',')? {
        if elements.len() == ELEMENTS_MAX {
            break;
        }
        let mut element = Element::default();
        for pair in split(text, ';')? {
            let (key, value) = pair.split_once('=')?;
            element.set(key.trim(), unquote(value));
        }
        elements.push(element);
    }
    Some(elements)
}

impl Element {
    fn set(&mut self, key: &str, value: String) {
        match key.to_ascii_lowercase().as_str() {
            "by" => self.by.push(value),
            "hash" => self.hash = value,
            "cert" => self.cert = unpercent(&value),
            "chain" => self.chain = unpercent(&value),
            "subject" => self.subject = Some(value),
            // `URI=` says that there is none.
            "uri" if value.is_empty() => {}
            "uri" => self.uris.push(value),
            "dns" => self.dns.push(value),
            _ => {}
        }
    }
}

/// The parts between separators that are not in quotes.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                parts.push(text[start..at].trim());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    (!quoted).then_some(parts)
}

/// The text without quotes; only an escaped quote loses its backslash, for names have backslashes of their own.
fn unquote(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.map_or_else(|| value.to_owned(), |inner| inner.replace("\\\"", "\""))
}

fn unpercent(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let decoded = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        out.push(decoded.unwrap_or(byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}
