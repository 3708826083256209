//! The request headers that control retries, and those that attempts carry.

use std::{str::FromStr, time::Duration};

use http::{HeaderMap, HeaderName, header::AsHeaderName};
use smallvec::SmallVec;

use crate::RetryOn;

pub(crate) const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
pub(crate) const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
pub(crate) const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
pub(crate) const RETRIABLE_STATUS_CODES: HeaderName =
    HeaderName::from_static("x-envoy-retriable-status-codes");
pub(crate) const RETRIABLE_HEADER_NAMES: HeaderName =
    HeaderName::from_static("x-envoy-retriable-header-names");
pub(crate) const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
pub(crate) const PER_TRY_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
pub(crate) const TIMEOUT_ALT_RESPONSE: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response");
pub(crate) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub(crate) const IS_TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");
pub(crate) const RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What a request's own headers say about its retries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryOverrides {
    /// `x-envoy-retry-on` and `x-envoy-retry-grpc-on`: added to the policy's conditions.
    pub retry_on: RetryOn,
    /// `x-envoy-max-retries`: replaces `num_retries`.
    pub max_retries: Option<u32>,
    /// `x-envoy-retriable-status-codes`: added to the policy's.
    pub status_codes: SmallVec<[u16; 4]>,
    /// `x-envoy-retriable-header-names`: a response that has one of them asks for a retry.
    pub header_names: SmallVec<[HeaderName; 1]>,
    /// `x-envoy-hedge-on-per-try-timeout`: replaces the policy's.
    pub hedge: Option<bool>,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`: replaces the policy's; zero is off.
    pub per_try_timeout: Option<Duration>,
}

impl RetryOverrides {
    /// Takes them out of the headers. What cannot be read is removed and ignored, as in Envoy.
    #[must_use]
    pub fn take(headers: &mut HeaderMap) -> Self {
        if !has_envoy_header(headers) {
            return Self::default();
        }
        let mut this = Self::default();
        each_value(headers, RETRY_ON, |list| {
            this.retry_on |= RetryOn::parse_header(list);
        });
        each_value(headers, RETRY_GRPC_ON, |list| {
            this.retry_on |= RetryOn::parse_grpc_header(list);
        });
        each_value(headers, RETRIABLE_STATUS_CODES, |list| {
            this.status_codes.extend(items(list));
        });
        each_value(headers, RETRIABLE_HEADER_NAMES, |list| {
            this.header_names.extend(items::<HeaderName>(list));
        });
        this.max_retries =
            take_number(headers, MAX_RETRIES).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        this.per_try_timeout = take_number(headers, PER_TRY_TIMEOUT).map(Duration::from_millis);
        this.hedge = headers
            .remove(HEDGE)
            .and_then(|value| match value.as_bytes() {
                b"true" => Some(true),
                b"false" => Some(false),
                _ => None,
            });
        this
    }
}

/// One pass over the names, so that the many requests without such headers pay for no look-ups.
pub(crate) fn has_envoy_header(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|name| name.as_str().starts_with("x-envoy-"))
}

/// Removes a header and reads its first value as a whole number.
pub(crate) fn take_number(headers: &mut HeaderMap, name: impl AsHeaderName) -> Option<u64> {
    headers.remove(name)?.to_str().ok()?.trim().parse().ok()
}

fn each_value(headers: &mut HeaderMap, name: HeaderName, mut read: impl FnMut(&str)) {
    if let http::header::Entry::Occupied(entry) = headers.entry(name) {
        entry
            .iter()
            .filter_map(|value| value.to_str().ok())
            .for_each(&mut read);
        entry.remove_entry_mult();
    }
}

fn items<T: FromStr>(list: &str) -> impl Iterator<Item = T> {
    list.split(',').filter_map(|item| item.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::RetryOverrides;
    use crate::RetryOn;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn reads_and_removes_every_control_header() {
        let mut headers = map(&[
            ("x-envoy-retry-on", "5xx,unavailable"),
            ("x-envoy-retry-on", "reset"),
            ("x-envoy-retry-grpc-on", "cancelled, 5xx"),
            ("x-envoy-max-retries", "7"),
            ("x-envoy-retriable-status-codes", "418, x,409"),
            ("x-envoy-retriable-header-names", "x-again, bad name"),
            ("x-envoy-hedge-on-per-try-timeout", "true"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "250"),
            ("accept", "*/*"),
        ]);
        let overrides = RetryOverrides::take(&mut headers);
        assert_eq!(headers, map(&[("accept", "*/*")]));
        assert_eq!(
            overrides.retry_on,
            RetryOn::FIVE_XX | RetryOn::RESET | RetryOn::CANCELLED
        );
        assert_eq!(overrides.max_retries, Some(7));
        assert_eq!(overrides.status_codes.as_slice(), [418, 409]);
        assert_eq!(overrides.header_names.as_slice(), ["x-again"]);
        assert_eq!(overrides.hedge, Some(true));
        assert_eq!(overrides.per_try_timeout, Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_cannot_be_read_is_removed_and_ignored() {
        let mut headers = map(&[
            ("x-envoy-max-retries", "many"),
            ("x-envoy-hedge-on-per-try-timeout", "yes"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "-1"),
        ]);
        assert_eq!(
            RetryOverrides::take(&mut headers),
            RetryOverrides::default()
        );
        assert!(headers.is_empty());
    }

    #[test]
    fn other_envoy_headers_stay() {
        let mut headers = map(&[("x-envoy-internal", "true")]);
        assert_eq!(
            RetryOverrides::take(&mut headers),
            RetryOverrides::default()
        );
        assert_eq!(headers.len(), 1);
    }
}
