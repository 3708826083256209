//! Facts that two arms can be compared by.

use std::collections::BTreeMap;

use e2e::client::Response;
use e2e::upstream::Recorded;
use e2e::wire::{Head, printable};

use crate::config::LOG_FIELDS;

/// Header values that are allowed to differ within limits are rounded to this many milliseconds.
const TIMEOUT_STEP_MS: u64 = 500;

/// The longest value printed and compared in full; a longer one is compared by length and ends.
const VALUE_SHOWN_MAX: usize = 2000;

/// What one arm did, fact by fact, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) list: Vec<(String, String)>,
    /// What the numbers in the names of facts stand for.
    pub(crate) steps: Vec<String>,
    /// The scenario itself went wrong: an expectation about Envoy that does not hold, say.
    pub(crate) problems: Vec<String>,
}

impl Facts {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let mut value = value.into();
        if value.len() > VALUE_SHOWN_MAX {
            let start: String = value.chars().take(40).collect();
            value = format!("{} bytes starting with {start}", value.len());
        }
        self.list.push((name.into(), value));
    }
}

/// Replaces what differs from run to run by what it stands for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Text to replace, such as an address, and its replacement.
    pub(crate) replace: Vec<(String, String)>,
    /// Whether the names of upstreams are kept.
    pub(crate) hosts: bool,
}

impl Names {
    pub(crate) fn apply(&self, text: &str) -> String {
        self.replace
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    fn field(&self, name: &str, value: &str) -> String {
        match name.to_ascii_lowercase().as_str() {
            "date" if value.ends_with(" GMT") => "<date>".to_owned(),
            "x-envoy-upstream-service-time" if value.parse::<u64>().is_ok() => "<ms>".to_owned(),
            "x-envoy-expected-rq-timeout-ms" => value.parse::<u64>().map_or_else(
                |_| value.to_owned(),
                |ms| format!("about {}", ms.next_multiple_of(TIMEOUT_STEP_MS)),
            ),
            "x-request-id" => request_id(value),
            _ => self.apply(value),
        }
    }

    fn fields(&self, facts: &mut Facts, prefix: &str, fields: &[(String, String)], ordered: bool) {
        let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, value) in fields {
            by_name
                .entry(name)
                .or_default()
                .push(self.field(name, value));
        }
        for (name, values) in by_name {
            facts.add(format!("{prefix}.header.{name}"), values.join(" | "));
        }
        if ordered {
            let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
            facts.add(format!("{prefix}.header order"), names.join(", "));
        }
    }
}

/// A request id is compared by its shape and by the digit that carries the trace decision.
fn request_id(value: &str) -> String {
    let shape = value.len() == 36
        && value.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit() && !c.is_ascii_uppercase(),
        });
    match (shape, value.chars().nth(14)) {
        (true, Some(version)) => format!("<uuid, version {version}>"),
        _ => value.to_owned(),
    }
}

pub(crate) fn response(
    facts: &mut Facts,
    prefix: &str,
    response: &Response,
    names: &Names,
    ordered: bool,
) {
    for (number, head) in response.interim.iter().enumerate() {
        let prefix = format!("{prefix}.interim{}", number + 1);
        facts.add(format!("{prefix}.line"), &head.start);
        names.fields(facts, &prefix, &head.fields, ordered);
    }
    if let Some(end) = response.missing {
        facts.add(format!("{prefix}.status"), format!("none: {end:?}"));
        return;
    }
    facts.add(format!("{prefix}.status"), response.status.to_string());
    facts.add(format!("{prefix}.line"), &response.head.start);
    names.fields(facts, prefix, &response.head.fields, ordered);
    let body = names.apply(&body(&response.head.fields, &response.body.data));
    facts.add(format!("{prefix}.body"), body);
    trailers(facts, prefix, &response.body.trailers);
    if let Some(end) = response.body.end {
        facts.add(format!("{prefix}.body ends"), format!("{end:?}"));
    }
}

pub(crate) fn attempt(
    facts: &mut Facts,
    prefix: &str,
    host: &str,
    request: &Recorded,
    names: &Names,
    ordered: bool,
) {
    let Head { start, fields, .. } = &request.head;
    if names.hosts {
        facts.add(format!("{prefix}.host"), host);
    }
    facts.add(format!("{prefix}.line"), start);
    names.fields(facts, prefix, fields, ordered);
    facts.add(format!("{prefix}.body"), body(fields, &request.body.data));
    trailers(facts, prefix, &request.body.trailers);
    if !request.complete {
        facts.add(format!("{prefix}.complete"), "no");
    }
    if let Some(reason) = &request.reset {
        facts.add(format!("{prefix}.reset"), reason);
    }
}

/// What a body says: libraries compress the same text to different bytes.
fn body(fields: &[(String, String)], data: &[u8]) -> String {
    let mut coding = fields.iter().filter(|(name, _)| name == "content-encoding");
    let decoded = coding.next().and_then(|(_, coding)| {
        let decoded = e2e::coding::decode(coding, data)?;
        Some(format!("<{coding}> {}", printable(&decoded)))
    });
    decoded.unwrap_or_else(|| printable(data))
}

fn trailers(facts: &mut Facts, prefix: &str, trailers: &[(String, String)]) {
    for (name, value) in trailers {
        facts.add(format!("{prefix}.trailer.{name}"), value);
    }
}

/// Whether a line was written by a scenario's own log.
pub(crate) fn is_own(line: &str) -> bool {
    line.starts_with('+') || line.starts_with("{\"+\"")
}

/// A line of a scenario's own log.
pub(crate) fn own_log(facts: &mut Facts, name: &str, line: &str, names: &Names) {
    facts.add(name, names.apply(line));
}

/// One line of the access log: only what says something is compared one by one.
pub(crate) fn log(facts: &mut Facts, prefix: &str, line: &str, names: &Names) {
    let parts = line.trim_start_matches("LOG\t").split('\t');
    for (name, value) in LOG_FIELDS.iter().zip(parts) {
        if *name == "host" && !names.hosts {
            continue;
        }
        facts.add(format!("{prefix}.{name}"), names.apply(value));
    }
}
