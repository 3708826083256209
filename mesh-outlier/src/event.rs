use std::{
    fmt::Write as _,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::state::{Action, Change, Detection, Evidence, Verdict};

/// A change of one endpoint, with the cluster and the time of day: one line of the event log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The cluster.
    pub cluster: Arc<str>,
    /// When it happened.
    pub at: SystemTime,
    /// What happened.
    pub change: Change,
}

impl Event {
    /// The line of the event log, without a line feed; `None` for detections that Envoy does not log
    /// because too many endpoints, or this one, were ejected already.
    ///
    /// # Envoy
    /// `envoy.data.cluster.v3.OutlierDetectionEvent` in proto JSON, with the fields in its order.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        let change = &self.change;
        let (detection, action, enforced, body) = match change.action {
            Action::Detected {
                verdict: Verdict::Overflow | Verdict::AlreadyEjected,
                ..
            } => return None,
            Action::Detected {
                detection,
                evidence,
                verdict,
            } => (
                detection,
                "EJECT",
                verdict == Verdict::Ejected,
                Some(evidence),
            ),
            // As Envoy: a field that is not set prints as its first value.
            Action::Uneject => (Detection::Consecutive5xx, "UNEJECT", false, None),
        };
        let mut out = String::with_capacity(256);
        push_text(&mut out, "{\"type\":", detection.event_type());
        push_text(&mut out, ",\"timestamp\":", &timestamp(self.at));
        if let Some(since) = change.since_last_action {
            let _ = write!(out, ",\"secs_since_last_action\":\"{}\"", since.as_secs());
        }
        push_text(&mut out, ",\"cluster_name\":", &self.cluster);
        push_text(&mut out, ",\"upstream_url\":", &change.address.to_string());
        push_text(&mut out, ",\"action\":", action);
        let _ = write!(
            out,
            ",\"num_ejections\":{},\"enforced\":{enforced}",
            change.num_ejections
        );
        if let Some(evidence) = body {
            push_evidence(&mut out, evidence);
        }
        out.push('}');
        Some(out)
    }
}

/// Percentages are whole numbers in Envoy's message.
fn push_evidence(out: &mut String, evidence: Evidence) {
    let _ = match evidence {
        Evidence::Consecutive { .. } => write!(out, ",\"eject_consecutive_event\":{{}}"),
        Evidence::SuccessRate {
            host,
            average,
            threshold,
        } => write!(
            out,
            ",\"eject_success_rate_event\":{{\"host_success_rate\":{},\
             \"cluster_average_success_rate\":{},\
             \"cluster_success_rate_ejection_threshold\":{}}}",
            host as u32, average as u32, threshold as u32
        ),
        Evidence::FailurePercentage {
            host_success_rate, ..
        } => write!(
            out,
            ",\"eject_failure_percentage_event\":{{\"host_success_rate\":{}}}",
            host_success_rate as u32
        ),
    };
}

fn push_text(out: &mut String, key: &str, value: &str) {
    out.push_str(key);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// RFC 3339 in UTC, with milliseconds unless they are zero.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let mut out = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    if since.subsec_millis() > 0 {
        let _ = write!(out, ".{:03}", since.subsec_millis());
    }
    out.push('Z');
    out
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from the first of March, so that the leap day is a year's last; 400 years are 146,097
/// days, and 153 days are five months from March on.
const fn date(days: u64) -> (u64, u64, u64) {
    /// From 0000-03-01 to 1970-01-01.
    const BEFORE_EPOCH: u64 = 719_468;
    let days = days + BEFORE_EPOCH;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    use super::{Event, date, timestamp};
    use crate::state::{Action, Change, Detection, Evidence, Verdict};

    fn event(action: Action, since: Option<u64>) -> Event {
        Event {
            cluster: Arc::from("a \"b\""),
            at: UNIX_EPOCH + Duration::from_millis(1_795_198_193_366),
            change: Change {
                address: SocketAddr::from(([127, 0, 0, 1], 19081)).into(),
                action,
                num_ejections: 2,
                since_last_action: since.map(Duration::from_secs),
                ejected: 1,
                endpoints: 10,
                max_ejection_percent: 10,
            },
        }
    }

    const fn detected(detection: Detection, evidence: Evidence, verdict: Verdict) -> Action {
        Action::Detected {
            detection,
            evidence,
            verdict,
        }
    }

    #[test]
    fn an_ejection_prints_as_envoy_prints_it() {
        let row = Evidence::Consecutive { failures: 5 };
        let action = detected(Detection::Consecutive5xx, row, Verdict::Ejected);
        assert_eq!(
            event(action, Some(1)).to_json().unwrap(),
            r#"{"type":"CONSECUTIVE_5XX","timestamp":"2026-11-20T18:09:53.366Z","secs_since_last_action":"1","cluster_name":"a \"b\"","upstream_url":"127.0.0.1:19081","action":"EJECT","num_ejections":2,"enforced":true,"eject_consecutive_event":{}}"#
        );
        let rate = Evidence::SuccessRate {
            host: 50.5,
            average: 90.9,
            threshold: 52.1,
        };
        let action = detected(
            Detection::LocalOriginSuccessRate,
            rate,
            Verdict::NotEnforced,
        );
        assert_eq!(
            event(action, None).to_json().unwrap(),
            r#"{"type":"SUCCESS_RATE_LOCAL_ORIGIN","timestamp":"2026-11-20T18:09:53.366Z","cluster_name":"a \"b\"","upstream_url":"127.0.0.1:19081","action":"EJECT","num_ejections":2,"enforced":false,"eject_success_rate_event":{"host_success_rate":50,"cluster_average_success_rate":90,"cluster_success_rate_ejection_threshold":52}}"#
        );
    }

    #[test]
    fn an_unejection_has_no_cause_and_an_overflow_no_line() {
        assert_eq!(
            event(Action::Uneject, Some(30)).to_json().unwrap(),
            r#"{"type":"CONSECUTIVE_5XX","timestamp":"2026-11-20T18:09:53.366Z","secs_since_last_action":"30","cluster_name":"a \"b\"","upstream_url":"127.0.0.1:19081","action":"UNEJECT","num_ejections":2,"enforced":false}"#
        );
        let row = Evidence::Consecutive { failures: 5 };
        let action = detected(Detection::Consecutive5xx, row, Verdict::Overflow);
        assert_eq!(event(action, None).to_json(), None);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_777, (2026, 11, 20)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "day {days}");
        }
        assert_eq!(
            timestamp(UNIX_EPOCH + Duration::from_secs(1)),
            "1970-01-01T00:00:01Z"
        );
    }
}
