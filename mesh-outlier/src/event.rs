use std::{sync::Arc, time::SystemTime};

use mesh_core::{EventLine, format::rfc3339};

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
        let mut line = EventLine::default();
        line.text("type", detection.event_type())
            .text("timestamp", &rfc3339(self.at));
        if let Some(since) = change.since_last_action {
            line.text("secs_since_last_action", &since.as_secs().to_string());
        }
        line.text("cluster_name", &self.cluster)
            .text("upstream_url", &change.address.to_string())
            .text("action", action)
            .number("num_ejections", change.num_ejections.into())
            .flag("enforced", enforced);
        if let Some(evidence) = body {
            push_evidence(&mut line, evidence);
        }
        Some(line.finish())
    }
}

/// Percentages are whole numbers in Envoy's message.
fn push_evidence(line: &mut EventLine, evidence: Evidence) {
    match evidence {
        Evidence::Consecutive { .. } => line.object("eject_consecutive_event", |_| {}),
        Evidence::SuccessRate {
            host,
            average,
            threshold,
        } => line.object("eject_success_rate_event", |event| {
            event
                .number("host_success_rate", host as u64)
                .number("cluster_average_success_rate", average as u64)
                .number("cluster_success_rate_ejection_threshold", threshold as u64);
        }),
        Evidence::FailurePercentage {
            host_success_rate, ..
        } => line.object("eject_failure_percentage_event", |event| {
            event.number("host_success_rate", host_success_rate as u64);
        }),
    };
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    use super::Event;
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
}
