use std::{sync::Arc, time::SystemTime};

use mesh_core::{Address, Endpoint, EventLine, format::rfc3339};

use super::state::FailureKind;

/// Something worth a line in the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// The endpoint counts as failed from now on.
    EjectUnhealthy {
        /// What went wrong.
        kind: FailureKind,
        /// What the endpoint answered, if it did.
        status: Option<u16>,
    },
    /// The endpoint counts as healthy from now on.
    AddHealthy {
        /// Whether it was never checked before.
        first_check: bool,
    },
    /// A check passed, which changed nothing.
    Successful,
    /// A check failed.
    Failure {
        /// What went wrong.
        kind: FailureKind,
        /// Whether it was never checked before.
        first_check: bool,
        /// What the endpoint answered, if it did.
        status: Option<u16>,
    },
    /// The endpoint says that it is degraded.
    Degraded,
    /// The endpoint says no longer that it is degraded.
    NoLongerDegraded,
}

/// An incident with where and when: one line of the event log.
#[derive(Debug, Clone)]
pub struct HealthEvent {
    /// How it was checked, as Envoy prints it: `HTTP`, `TCP`, `GRPC`.
    pub checker: &'static str,
    /// The cluster.
    pub cluster: Arc<str>,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// When it happened.
    pub at: SystemTime,
    /// What happened.
    pub incident: Incident,
}

impl HealthEvent {
    /// The line of the event log, without a line feed.
    ///
    /// # Envoy
    /// `envoy.data.core.v3.HealthCheckEvent` in proto JSON, with its defaults printed.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut line = EventLine::default();
        line.text("health_checker_type", self.checker)
            .object("host", |host| push_address(host, self.endpoint.address()))
            .text("cluster_name", &self.cluster);
        // In the order of the fields' numbers, as Envoy prints them.
        let (changes, last) = match self.incident {
            Incident::EjectUnhealthy { .. } | Incident::AddHealthy { .. } => (true, false),
            Incident::Successful => (false, true),
            _ => (false, false),
        };
        if changes {
            push_incident(&mut line, self.incident);
        }
        line.text("timestamp", &rfc3339(self.at));
        if !changes && !last {
            push_incident(&mut line, self.incident);
        }
        self.push_metadata(&mut line);
        let locality = &self.endpoint.locality;
        line.object("locality", |out| {
            out.text("region", &locality.region)
                .text("zone", &locality.zone)
                .text("sub_zone", &locality.sub_zone);
        });
        if last {
            push_incident(&mut line, self.incident);
        }
        line.finish()
    }

    fn push_metadata(&self, line: &mut EventLine) {
        if self.endpoint.metadata.is_empty() {
            return;
        }
        line.object("metadata", |metadata| {
            metadata.object("filter_metadata", |filter| {
                filter.object("envoy.lb", |fields| {
                    for (key, value) in self.endpoint.metadata.iter() {
                        fields.text(key, value);
                    }
                });
            });
            metadata.object("typed_filter_metadata", |_| {});
        });
    }
}

fn push_address(out: &mut EventLine, address: &Address) {
    match address {
        Address::Socket(socket) => out.object("socket_address", |out| {
            out.text("protocol", "TCP")
                .text("address", &socket.ip().to_string())
                .number("port_value", socket.port().into())
                .text("resolver_name", "")
                .flag("ipv4_compat", false)
                .text("network_namespace_filepath", "");
        }),
        Address::Unix(path) => out.object("pipe", |out| {
            out.text("path", &path.display().to_string())
                .number("mode", 0);
        }),
    };
}

fn push_incident(out: &mut EventLine, incident: Incident) {
    let status = |status: Option<u16>| status.unwrap_or(0).into();
    match incident {
        Incident::EjectUnhealthy { kind, status: code } => {
            out.object("eject_unhealthy_event", |out| {
                out.text("failure_type", kind.name())
                    .number("http_status_code", status(code));
            })
        }
        Incident::AddHealthy { first_check } => out.object("add_healthy_event", |out| {
            out.flag("first_check", first_check);
        }),
        Incident::Successful => out.object("successful_health_check_event", |_| {}),
        Incident::Failure {
            kind,
            first_check,
            status: code,
        } => out.object("health_check_failure_event", |out| {
            out.text("failure_type", kind.name())
                .flag("first_check", first_check)
                .number("http_status_code", status(code));
        }),
        Incident::Degraded => out.object("degraded_healthy_host", |_| {}),
        Incident::NoLongerDegraded => out.object("no_longer_degraded_host", |_| {}),
    };
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    use mesh_core::{Endpoint, Locality};

    use super::{HealthEvent, Incident};
    use crate::health::FailureKind;

    fn shown(incident: Incident) -> String {
        let mut endpoint = Endpoint::standalone(([127, 0, 0, 1], 80).into());
        endpoint.locality = Arc::new(Locality {
            region: "r".to_owned(),
            ..Locality::default()
        });
        let event = HealthEvent {
            checker: "TCP",
            cluster: Arc::from("a"),
            endpoint: Arc::new(endpoint),
            at: UNIX_EPOCH + Duration::from_secs(1),
            incident,
        };
        event.to_json()
    }

    const HEAD: &str = r#"{"health_checker_type":"TCP","host":{"socket_address":{"protocol":"TCP","address":"127.0.0.1","port_value":80,"resolver_name":"","ipv4_compat":false,"network_namespace_filepath":""}},"cluster_name":"a","#;
    const TIME: &str = r#""timestamp":"1970-01-01T00:00:01Z","#;
    const END: &str = r#""locality":{"region":"r","zone":"","sub_zone":""}"#;

    #[test]
    fn events_print_as_envoy_prints_them() {
        let (kind, first_check) = (FailureKind::Active, true);
        let status = Some(503);
        assert_eq!(
            shown(Incident::EjectUnhealthy { kind, status }),
            format!(
                r#"{HEAD}"eject_unhealthy_event":{{"failure_type":"ACTIVE","http_status_code":503}},{TIME}{END}}}"#
            )
        );
        assert_eq!(
            shown(Incident::AddHealthy { first_check }),
            format!(r#"{HEAD}"add_healthy_event":{{"first_check":true}},{TIME}{END}}}"#)
        );
        let (kind, status) = (FailureKind::NetworkTimeout, None);
        assert_eq!(
            shown(Incident::Failure {
                kind,
                first_check,
                status
            }),
            format!(
                r#"{HEAD}{TIME}"health_check_failure_event":{{"failure_type":"NETWORK_TIMEOUT","first_check":true,"http_status_code":0}},{END}}}"#
            )
        );
        assert_eq!(
            shown(Incident::Degraded),
            format!(r#"{HEAD}{TIME}"degraded_healthy_host":{{}},{END}}}"#)
        );
        assert_eq!(
            shown(Incident::Successful),
            format!(r#"{HEAD}{TIME}{END},"successful_health_check_event":{{}}}}"#)
        );
    }
}
