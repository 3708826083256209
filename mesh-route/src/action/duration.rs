use std::time::Duration;

use http::HeaderMap;

/// How long the stream of a request may last, from its first byte to the last byte of its answer. It replaces
/// the connection manager's, and the route's own timeout.
///
/// # Envoy
/// `route.v3.RouteAction.MaxStreamDuration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaxStreamDuration {
    /// So long; zero is for ever, and without it the connection manager's counts.
    pub max_stream_duration: Option<Duration>,
    /// Where this is set, a request's own `grpc-timeout` counts instead, up to this; zero is without bound.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Taken off a request's own `grpc-timeout`, unless nothing would be left.
    pub grpc_timeout_header_offset: Option<Duration>,
}

impl MaxStreamDuration {
    /// For a request with these headers; `None` when the connection manager's counts, zero is for ever.
    #[must_use]
    pub fn of(&self, headers: &HeaderMap) -> Option<Duration> {
        let Some(max) = self.grpc_timeout_header_max else {
            return self.max_stream_duration;
        };
        let Some(asked) = grpc_timeout(headers) else {
            return self.max_stream_duration;
        };
        let offset = self.grpc_timeout_header_offset.unwrap_or_default();
        let asked = if offset < asked {
            asked - offset
        } else {
            asked
        };
        // Neither bounds the other when it is zero.
        Some(match (max.is_zero(), asked.is_zero()) {
            (false, false) => asked.min(max),
            (true, _) => asked,
            (false, true) => max,
        })
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| plain)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::{MaxStreamDuration, grpc_timeout};

    fn asks(timeout: &str) -> HeaderMap {
        HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), timeout.parse().unwrap())])
    }

    #[test]
    fn a_grpc_timeout_has_digits_and_a_unit() {
        for (text, millis) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3_000)),
            ("4m", Some(4)),
            ("5000u", Some(5)),
            ("6000000n", Some(6)),
            ("99999999S", Some(99_999_999_000)),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("+1S", None),
            ("1s", None),
            ("1", None),
        ] {
            let wanted = millis.map(Duration::from_millis);
            assert_eq!(grpc_timeout(&asks(text)), wanted, "{text}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn a_requests_own_timeout_counts_where_it_is_let() {
        let seconds = |n| Some(Duration::from_secs(n));
        let with = |max, offset| MaxStreamDuration {
            max_stream_duration: seconds(7),
            grpc_timeout_header_max: max,
            grpc_timeout_header_offset: offset,
        };
        for (policy, asked, wanted) in [
            (with(None, None), "3S", seconds(7)),
            (with(seconds(5), None), "3S", seconds(3)),
            (with(seconds(5), None), "9S", seconds(5)),
            (with(seconds(0), None), "9S", seconds(9)),
            (with(seconds(5), None), "0S", seconds(5)),
            (with(seconds(5), seconds(1)), "3S", seconds(2)),
            (with(seconds(5), seconds(4)), "3S", seconds(3)),
            (with(seconds(5), None), "bad", seconds(7)),
        ] {
            assert_eq!(policy.of(&asks(asked)), wanted, "{policy:?} {asked}");
        }
        assert_eq!(MaxStreamDuration::default().of(&asks("1S")), None);
    }
}
