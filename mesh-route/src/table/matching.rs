use http::{Method, header};
use mesh_core::format::RequestView;

use crate::{PathMatch, RouteMatch};

impl RouteMatch {
    /// Whether a request matches. `path` is its path as the configuration wants it compared: without
    /// query and fragment.
    pub(crate) fn accepts(&self, request: &RequestView<'_>, path: &str, random: u64) -> bool {
        self.accepts_path(request.method, path)
            && self
                .runtime_fraction
                .as_ref()
                .is_none_or(|fraction| fraction.includes(random))
            && (!self.grpc || is_grpc(request))
            && self
                .headers
                .iter()
                .all(|matcher| matcher.matches_request(request))
            && self.accepts_query(request.path)
    }

    fn accepts_path(&self, method: &Method, path: &str) -> bool {
        let same = |head: Option<&[u8]>, want: &str| {
            head.is_some_and(|head| {
                if self.case_sensitive {
                    head == want.as_bytes()
                } else {
                    head.eq_ignore_ascii_case(want.as_bytes())
                }
            })
        };
        // Bytes, since a prefix may end inside a character of the path.
        let path = path.as_bytes();
        match &self.path {
            PathMatch::Prefix(prefix) => same(path.get(..prefix.len()), prefix),
            PathMatch::Path(whole) => same(Some(path), whole),
            PathMatch::SafeRegex(regex) => regex.is_match(path),
            PathMatch::PathSeparatedPrefix(prefix) => {
                let prefix = prefix.as_str();
                same(path.get(..prefix.len()), prefix)
                    && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            PathMatch::Connect => method == Method::CONNECT,
        }
    }

    fn accepts_query(&self, path_and_query: &str) -> bool {
        if self.query_parameters.is_empty() {
            return true;
        }
        let query = path_and_query.split_once('?').map(|(_, query)| query);
        self.query_parameters
            .iter()
            .all(|matcher| matcher.matches(query))
    }
}

/// `application/grpc` or `application/grpc+…`.
fn is_grpc(request: &RequestView<'_>) -> bool {
    let value = request.headers.get(header::CONTENT_TYPE);
    let kind = value.and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    kind.is_some_and(|kind| matches!(kind.first(), None | Some(b'+')))
}
