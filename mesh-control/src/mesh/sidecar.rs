use std::net::SocketAddr;

use mesh_config::language::{Part, Problems};

use super::endpoint::{socket, words};

/// What the sidecars of a service do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Where it stands in the mesh file.
    pub path: String,
    /// Takes requests to the service, from other sidecars.
    pub inbound: Option<SocketAddr>,
    /// Where the application itself listens, next to its sidecar.
    pub app: Option<SocketAddr>,
    /// Takes requests of the application to other services, by their `host`.
    pub outbound: Option<SocketAddr>,
    /// Where its access log goes, such as `/dev/stdout`; nowhere by default.
    pub access_log: Option<String>,
}

impl Sidecar {
    pub(super) fn read(part: &Part<'_>, problems: &mut Problems) -> Option<Self> {
        let mut fields = part.fields(problems)?;
        let mut address = |name| {
            let part = fields.take(name)?;
            socket(&part, problems)
        };
        let (inbound, app, outbound) = (address("inbound"), address("app"), address("outbound"));
        let access_log = fields.take("access_log");
        let access_log = access_log.map(|part| words(&part, problems));
        fields.finish(problems);
        if inbound.is_some() != app.is_some() {
            let reason = "inbound and app go together: what arrives at one is sent to the other";
            part.invalid(problems, reason);
        }
        let taken = inbound.filter(|address| address.port() != 0);
        if taken.is_some() && (taken == app || taken == outbound) {
            part.invalid(problems, "inbound, app and outbound must differ");
        }
        Some(Self {
            path: part.path().to_owned(),
            inbound,
            app,
            outbound,
            access_log,
        })
    }
}

/// SPIFFE identities for all sidecars, from files that each finds on its own machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mtls {
    /// Where it stands in the mesh file.
    pub path: String,
    /// Identities are `spiffe://<trust domain>/<service>`.
    pub trust_domain: String,
    /// The certificate chain; `{service}` stands for the service's name.
    pub certificate_chain: String,
    /// Its key.
    pub private_key: String,
    /// The CAs of peers.
    pub trusted_ca: String,
}

impl Mtls {
    pub(super) fn read(part: &Part<'_>, problems: &mut Problems) -> Option<Self> {
        let mut fields = part.fields(problems)?;
        let mut text = |name| {
            let Some(field) = fields.take(name) else {
                part.invalid(problems, format!("{name} is missing"));
                return String::new();
            };
            words(&field, problems)
        };
        let mtls = Self {
            path: part.path().to_owned(),
            trust_domain: text("trust_domain"),
            certificate_chain: text("certificate_chain"),
            private_key: text("private_key"),
            trusted_ca: text("trusted_ca"),
        };
        fields.finish(problems);
        if let Err(error) = mtls.trust_domain.parse::<mesh_tls::TrustDomain>() {
            part.invalid(problems, format!("trust_domain: {error}"));
        }
        Some(mtls)
    }

    /// The identity of a service.
    #[must_use]
    pub fn identity(&self, service: &str) -> String {
        format!("spiffe://{}/{service}", self.trust_domain)
    }
}
