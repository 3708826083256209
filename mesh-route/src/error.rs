use std::{borrow::Cow, fmt};

use mesh_core::{Error, ErrorKind, LocalReply, matcher::InvalidMatcher};

/// A part of a route configuration that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfigError(Cow<'static, str>);

impl RouteConfigError {
    pub(crate) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(reason.into())
    }

    /// The same, with where it was found in front.
    pub(crate) fn within(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0).into())
    }
}

impl fmt::Display for RouteConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RouteConfigError {}

impl From<InvalidMatcher> for RouteConfigError {
    fn from(invalid: InvalidMatcher) -> Self {
        Self(invalid.into_reason())
    }
}

/// Nothing matched; as an [`Error`], it is [`ErrorKind::NoRoute`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// No virtual host lists the request's host.
    VirtualHost,
    /// The virtual host has no route that matches.
    Route,
}

impl NoRoute {
    const fn text(self) -> &'static str {
        match self {
            Self::VirtualHost => "no virtual host matches",
            Self::Route => "no route matches",
        }
    }
}

impl fmt::Display for NoRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for NoRoute {}

impl From<NoRoute> for Error {
    fn from(none: NoRoute) -> Self {
        let reply = LocalReply::new(http::StatusCode::NOT_FOUND, "", "route_not_found");
        Self::new(ErrorKind::NoRoute)
            .with_message(none.text())
            .with_reply(reply)
    }
}

/// A rewrite gave a path or host that cannot be sent.
///
/// It depends on the request, so that config cannot rule it out; nothing of the request was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidRewrite {
    /// The new path does not begin with a slash, or holds characters that a path must not.
    Path(String),
    /// The new host holds characters that a header must not.
    Host(String),
}

impl fmt::Display for InvalidRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "rewritten path {path:?} cannot be sent"),
            Self::Host(host) => write!(f, "rewritten host {host:?} cannot be sent"),
        }
    }
}

impl std::error::Error for InvalidRewrite {}

impl From<InvalidRewrite> for Error {
    fn from(invalid: InvalidRewrite) -> Self {
        let reply = LocalReply::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "",
            "invalid_route_rewrite",
        );
        Self::new(ErrorKind::Denied)
            .with_message(invalid.to_string())
            .with_reply(reply)
    }
}
