use std::net::SocketAddr;

use mesh_config::language::{Part, Problems};
use mesh_core::Locality;

/// The largest weight of an endpoint; more is refused.
const WEIGHT_MAX: u32 = 1_000_000;
/// The largest priority, as in Envoy.
const PRIORITY_MAX: u32 = 128;

/// Where a service can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address: that of its sidecar's inbound listener, if it has a sidecar.
    pub address: SocketAddr,
    /// Its share of requests beside the others of its locality; 1 by default.
    pub weight: u32,
    /// 0 first; others only when there are not enough healthy endpoints.
    pub priority: u32,
    /// Where it is.
    pub locality: Locality,
    /// What is known of its health, whatever proxies find out.
    pub health: Health,
}

/// What whoever runs the mesh says about an endpoint. Envoy: `HealthStatus`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// It may be used.
    #[default]
    Healthy,
    /// It must not be used.
    Unhealthy,
    /// It gets no new requests; those that run may finish.
    Draining,
    /// It is used when healthy ones are not enough.
    Degraded,
}

impl Health {
    const NAMES: [(&'static str, Self); 4] = [
        ("healthy", Self::Healthy),
        ("unhealthy", Self::Unhealthy),
        ("draining", Self::Draining),
        ("degraded", Self::Degraded),
    ];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        let row = Self::NAMES.iter().find(|(_, health)| *health == self);
        row.map_or("", |(name, _)| name)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            weight: 1,
            priority: 0,
            locality: Locality::default(),
            health: Health::default(),
        }
    }
}

impl Endpoint {
    /// Reads `10.0.0.1:8080`, or a map with `address` and more.
    pub(crate) fn read(part: &Part<'_>, problems: &mut Problems) -> Option<Self> {
        if !part.is_map() {
            return Some(socket(part, problems)?.into());
        }
        let mut fields = part.fields(problems)?;
        let address = match fields.take("address") {
            Some(address) => socket(&address, problems),
            None => {
                part.invalid(problems, "an endpoint needs an address");
                None
            }
        };
        let weight = fields.take("weight");
        let weight = weight.map(|part| number(&part, 1..=WEIGHT_MAX, problems));
        let priority = fields.take("priority");
        let priority = priority.map(|part| number(&part, 0..=PRIORITY_MAX, problems));
        let mut text = |name| {
            let part = fields.take(name);
            part.map(|part| words(&part, problems)).unwrap_or_default()
        };
        let locality = Locality {
            region: text("region"),
            zone: text("zone"),
            sub_zone: text("sub_zone"),
        };
        let health = fields.take("health");
        let health = health.map(|part| one_of(&part, &Health::NAMES, problems));
        fields.finish(problems);
        Some(Self {
            address: address?,
            weight: weight.unwrap_or(Some(1))?,
            priority: priority.unwrap_or(Some(0))?,
            locality,
            health: health.unwrap_or(Some(Health::Healthy))?,
        })
    }
}

/// An address with a port.
pub(super) fn socket(part: &Part<'_>, problems: &mut Problems) -> Option<SocketAddr> {
    let text = part.text().unwrap_or_default();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let reason = format!(
        "{text:?} is no address: write 10.0.0.1:8080 or [2001:db8::1]:8080; names are not looked up"
    );
    part.invalid(problems, reason);
    None
}

/// A whole number within bounds.
pub(super) fn number(
    part: &Part<'_>,
    bounds: std::ops::RangeInclusive<u32>,
    problems: &mut Problems,
) -> Option<u32> {
    let number = part.text().and_then(|text| text.parse().ok());
    let number = number.filter(|number| bounds.contains(number));
    if number.is_none() {
        let (low, high) = (bounds.start(), bounds.end());
        part.invalid(
            problems,
            format!("expected a whole number from {low} to {high}"),
        );
    }
    number
}

/// Any text.
pub(super) fn words(part: &Part<'_>, problems: &mut Problems) -> String {
    if part.text().is_none() {
        part.invalid(problems, "expected text");
    }
    part.text().unwrap_or_default().to_owned()
}

/// One of these words.
pub(super) fn one_of<T: Copy>(
    part: &Part<'_>,
    words: &[(&str, T)],
    problems: &mut Problems,
) -> Option<T> {
    let text = part.text().unwrap_or_default();
    let row = words
        .iter()
        .find(|(word, _)| text.eq_ignore_ascii_case(word));
    if row.is_none() {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        part.invalid(
            problems,
            format!("{text:?} is none of {}", known.join(", ")),
        );
    }
    row.map(|(_, value)| *value)
}
