use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use mesh_core::{LocalReply, format::RequestView};

use super::{PathRewrite, split_path};
use crate::{RouteConfigError, RouteMatch};

/// Where a client is sent, relative to where it asked.
///
/// # Envoy
/// `route.v3.RedirectAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct RedirectAction {
    scheme: SchemeRedirect,
    host_redirect: Option<Box<str>>,
    port_redirect: Option<u32>,
    path: PathRedirect,
    response_code: StatusCode,
    strip_query: bool,
}

/// How the scheme changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SchemeRedirect {
    /// Not at all.
    #[default]
    Keep,
    /// To `https`. Envoy: `https_redirect: true`.
    Https,
    /// To this. Envoy: `scheme_redirect`.
    To(Box<str>),
}

/// How the path changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum PathRedirect {
    /// Not at all.
    #[default]
    Keep,
    /// To this. If it has a query, that replaces the request's. Envoy: `path_redirect`.
    To(Box<str>),
    /// As a rewrite does. Envoy: `prefix_rewrite`, `regex_rewrite`.
    Rewrite(PathRewrite),
}

impl Default for RedirectAction {
    /// 301 to where the client is already.
    fn default() -> Self {
        Self {
            scheme: SchemeRedirect::Keep,
            host_redirect: None,
            port_redirect: None,
            path: PathRedirect::Keep,
            response_code: StatusCode::MOVED_PERMANENTLY,
            strip_query: false,
        }
    }
}

impl RedirectAction {
    /// Envoy: `https_redirect`, `scheme_redirect`.
    ///
    /// # Errors
    /// When the scheme cannot stand in a header.
    pub fn scheme(mut self, scheme: SchemeRedirect) -> Result<Self, RouteConfigError> {
        if let SchemeRedirect::To(text) = &scheme {
            printable("scheme_redirect", text)?;
        }
        self.scheme = scheme;
        Ok(self)
    }

    /// Envoy: `host_redirect`.
    ///
    /// # Errors
    /// When the host cannot stand in a header.
    pub fn host(mut self, host: impl Into<Box<str>>) -> Result<Self, RouteConfigError> {
        let host = host.into();
        printable("host_redirect", &host)?;
        self.host_redirect = (!host.is_empty()).then_some(host);
        Ok(self)
    }

    /// Envoy: `port_redirect`; 0 keeps the port.
    ///
    /// # Errors
    /// When it is larger than 65,535.
    pub fn port(mut self, port: u32) -> Result<Self, RouteConfigError> {
        if port > 65_535 {
            return Err(RouteConfigError::new("port_redirect must be at most 65535"));
        }
        self.port_redirect = (port != 0).then_some(port);
        Ok(self)
    }

    /// Envoy: `path_rewrite_specifier`.
    ///
    /// # Errors
    /// When the path cannot stand in a header.
    pub fn path(mut self, path: PathRedirect) -> Result<Self, RouteConfigError> {
        if let PathRedirect::To(text) = &path {
            printable("path_redirect", text)?;
        }
        self.path = match path {
            PathRedirect::To(text) if text.is_empty() => PathRedirect::Keep,
            PathRedirect::To(text) if !text.starts_with('/') => {
                PathRedirect::To(format!("/{text}").into())
            }
            path => path,
        };
        Ok(self)
    }

    /// Envoy: `response_code`.
    ///
    /// # Errors
    /// When it is none of 301, 302, 303, 307 and 308.
    pub fn response_code(mut self, code: StatusCode) -> Result<Self, RouteConfigError> {
        if ![301, 302, 303, 307, 308].contains(&code.as_u16()) {
            return Err(RouteConfigError::new(format!(
                "response_code {} does not redirect",
                code.as_u16()
            )));
        }
        self.response_code = code;
        Ok(self)
    }

    /// Whether the request's query is dropped; off by default. Envoy: `strip_query`.
    #[must_use]
    pub const fn strip_query(mut self, strip: bool) -> Self {
        self.strip_query = strip;
        self
    }

    /// The `Location` for a request that `matched`.
    #[must_use]
    pub fn location(&self, matched: &RouteMatch, request: &RequestView<'_>) -> String {
        let scheme = match &self.scheme {
            SchemeRedirect::Keep => request.scheme,
            SchemeRedirect::Https => "https",
            SchemeRedirect::To(scheme) => scheme,
        };
        let old_host = authority(request);
        let host = match &self.host_redirect {
            Some(host) => host,
            None => self.kept_host(&old_host, scheme, request.scheme),
        };
        let mut location = format!("{scheme}://{host}");
        if let Some(port) = self.port_redirect {
            location.push(':');
            location.push_str(&port.to_string());
        }
        location.push_str(&self.new_path(matched, request.path));
        location
    }

    /// The request's host, without a port that would be the default of the scheme it came with.
    fn kept_host<'a>(&self, host: &'a str, scheme: &str, old_scheme: &str) -> &'a str {
        let Some((bare, port)) = split_port(host) else {
            return host;
        };
        let was_default =
            matches!((old_scheme, port), ("http", "80") | ("https", "443")) && scheme != old_scheme;
        if self.port_redirect.is_some() || was_default {
            bare
        } else {
            host
        }
    }

    fn new_path(&self, matched: &RouteMatch, old: &str) -> String {
        let (old_path, old_rest) = split_path(old);
        let mut path = match &self.path {
            PathRedirect::To(path) if path.contains('?') => return path.to_string(),
            PathRedirect::To(path) if old_rest.starts_with('?') => format!("{path}{old_rest}"),
            PathRedirect::To(path) => path.to_string(),
            PathRedirect::Keep => format!("{old_path}{old_rest}"),
            PathRedirect::Rewrite(rewrite) => rewrite.apply(matched, old).map_or_else(
                || old.to_owned(),
                |path| String::from_utf8_lossy(&path).into_owned(),
            ),
        };
        if self.strip_query
            && let Some(query) = path.find('?')
        {
            path.truncate(query);
        }
        path
    }

    pub(crate) fn reply(&self, matched: &RouteMatch, request: &RequestView<'_>) -> LocalReply {
        moved(self.response_code, &self.location(matched, request))
    }
}

/// The answer to a request that should have come over TLS.
pub(crate) fn tls_redirect(request: &RequestView<'_>) -> LocalReply {
    let location = format!("https://{}{}", authority(request), request.path);
    moved(StatusCode::MOVED_PERMANENTLY, &location)
}

/// The absolute URI of a request.
pub(super) fn here(request: &RequestView<'_>) -> String {
    format!(
        "{}://{}{}",
        request.scheme,
        authority(request),
        request.path
    )
}

fn moved(status: StatusCode, location: &str) -> LocalReply {
    let mut reply = LocalReply::new(status, "", "direct_response");
    reply.body = Bytes::new();
    // A path may hold bytes that a header must not; then the client is told nothing.
    if let Ok(location) = HeaderValue::from_str(location) {
        reply.headers = HeaderMap::from_iter([(header::LOCATION, location)]);
    }
    reply
}

fn authority(request: &RequestView<'_>) -> String {
    String::from_utf8_lossy(request.authority.unwrap_or_default()).into_owned()
}

/// Host and port, if there is a port; the colons of an IPv6 address in brackets are not in front of one.
fn split_port(host: &str) -> Option<(&str, &str)> {
    let (bare, port) = host.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let whole = !bare.contains(':') || bare.ends_with(']');
    (digits && whole).then_some((bare, port))
}

fn printable(field: &str, text: &str) -> Result<(), RouteConfigError> {
    if HeaderValue::from_str(text).is_err() {
        return Err(RouteConfigError::new(format!(
            "{field} {text:?} holds characters that a header must not"
        )));
    }
    Ok(())
}
