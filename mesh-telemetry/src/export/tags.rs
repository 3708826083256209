use std::{collections::HashSet, fmt, net::Ipv4Addr};

use regex::Regex;

use super::prometheus::sanitize;

/// How many custom tag rules are allowed; more are refused.
pub const TAG_RULES_MAX: usize = 256;

/// One segment of a pattern over a dotted name.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// This segment.
    Is(&'static str),
    /// Any segment.
    Any,
    /// Any segment; it is the label's value.
    Take,
    /// A listener's address: four segments that look like IPv4 and a port, or any one but `admin`.
    AnyListener,
    /// The same; it is the label's value.
    TakeListener,
    /// All segments up to the last; they are the label's value.
    TakeToLast,
    /// `worker_7`; the number is the label's value and `worker` stays in the name.
    TakeWorker,
}

use Part::{Any, AnyListener, Is, Take, TakeListener, TakeToLast, TakeWorker};

/// A label and where its value stands in a name. At least one segment follows the pattern.
type Rule = (&'static str, &'static [Part]);

/// The tags that Envoy extracts by default, as far as we have such stats, in Envoy's order. Like
/// Envoy's, a rule takes one segment: a cluster named `a.b` gives the label `a` and leaves `b` in the
/// name, unless a [`TagSpecifier`] says better.
const RULES: &[Rule] = &[
    (
        "envoy_rbac_policy_name",
        &[Is("http"), Any, Is("rbac"), Any, Is("policy"), Take],
    ),
    (
        "envoy_virtual_cluster",
        &[Is("vhost"), Any, Is("vcluster"), Take],
    ),
    (
        "envoy_fault_downstream_cluster",
        &[Is("http"), Any, Is("fault"), Take],
    ),
    ("envoy_tcp_prefix", &[Is("tcp"), Take]),
    ("envoy_udp_prefix", &[Is("udp"), Take]),
    ("envoy_ratelimit_prefix", &[Is("ratelimit"), Take]),
    ("envoy_cluster_name", &[Is("cluster"), Take]),
    (
        "envoy_ext_authz_prefix",
        &[Is("cluster"), Any, Is("ext_authz"), Take],
    ),
    (
        "envoy_ext_authz_prefix",
        &[Is("http"), Any, Is("ext_authz"), Take],
    ),
    (
        "envoy_rbac_http_prefix",
        &[Is("http"), Any, Is("rbac"), Take],
    ),
    (
        "envoy_rds_route_config",
        &[Is("http"), Any, Is("rds"), TakeToLast],
    ),
    (
        "envoy_http_conn_manager_prefix",
        &[Is("listener"), AnyListener, Is("http"), Take],
    ),
    (
        "envoy_http_conn_manager_prefix",
        &[Is("listener"), Is("admin"), Is("http"), Take],
    ),
    ("envoy_http_conn_manager_prefix", &[Is("http"), Take]),
    (
        "envoy_worker_id",
        &[Is("listener"), AnyListener, TakeWorker],
    ),
    ("envoy_worker_id", &[Is("listener_manager"), TakeWorker]),
    ("envoy_worker_id", &[Is("server"), TakeWorker]),
    (
        "envoy_worker_id",
        &[Is("thread_local_cluster_manager"), TakeWorker],
    ),
    ("envoy_listener_address", &[Is("listener"), TakeListener]),
    ("envoy_virtual_host", &[Is("vhost"), Take]),
    ("envoy_route", &[Is("vhost"), Any, Is("route"), Take]),
    (
        "envoy_local_http_ratelimit_prefix",
        &[Take, Is("http_local_rate_limit")],
    ),
    (
        "envoy_local_network_ratelimit_prefix",
        &[Is("local_rate_limit"), Take],
    ),
    (
        "envoy_connection_limit_prefix",
        &[Is("connection_limit"), Take],
    ),
];

/// The labels of `…_rq_503` and `…_rq_5xx`.
const STATUS_LABELS: [&str; 2] = ["envoy_response_code", "envoy_response_code_class"];

/// A tag of one's own.
///
/// # Envoy
/// `Bootstrap.stats_config.stats_tags[]`.
#[derive(Debug, Clone)]
pub enum TagSpecifier {
    /// The first group is cut out of the name; the second, or else the first, is the value.
    Regex {
        /// `tag_name`.
        name: String,
        /// `regex`, with one or two groups.
        regex: Regex,
    },
    /// A label on every stat.
    Fixed {
        /// `tag_name`.
        name: String,
        /// `fixed_value`.
        value: String,
    },
    /// One of Envoy's own, for when not all of them are wanted.
    Default {
        /// `tag_name`, without `regex` and `fixed_value`.
        name: String,
    },
}

impl TagSpecifier {
    /// A tag that is cut out of names.
    ///
    /// # Errors
    /// When `regex` is none, or has no group.
    pub fn regex(name: impl Into<String>, regex: &str) -> Result<Self, InvalidTag> {
        let name = name.into();
        match Regex::new(regex) {
            Err(error) => Err(InvalidTag(format!("stats tag {name:?}: {error}"))),
            Ok(regex) if regex.captures_len() < 2 => Err(InvalidTag(format!(
                "stats tag {name:?}: the regex has no group"
            ))),
            Ok(regex) => Ok(Self::Regex { name, regex }),
        }
    }

    /// One of Envoy's default tags, such as `envoy.cluster_name`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn envoy_default(name: impl Into<String>) -> Result<Self, InvalidTag> {
        let name = name.into();
        if !default_labels().any(|label| label == sanitize(&name)) {
            return Err(InvalidTag(format!(
                "stats tag {name:?}: there is no default tag of that name, nor a regex or a fixed value"
            )));
        }
        Ok(Self::Default { name })
    }

    /// The same label on every stat.
    pub fn fixed(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Fixed {
            name: name.into(),
            value: value.into(),
        }
    }
}

impl TagSpecifier {
    fn name(&self) -> &str {
        match self {
            Self::Regex { name, .. } | Self::Fixed { name, .. } | Self::Default { name } => name,
        }
    }
}

/// A tag that cannot be extracted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTag(String);

impl fmt::Display for InvalidTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidTag {}

/// Which parts of a dotted name become Prometheus labels. The default is Envoy's default tags.
#[derive(Debug, Clone)]
pub struct Tags {
    custom: Vec<TagSpecifier>,
    defaults: Defaults,
}

/// Which of Envoy's default tags are extracted.
#[derive(Debug, Clone)]
enum Defaults {
    All,
    Only(HashSet<String>),
}

impl Defaults {
    fn has(&self, label: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(labels) => labels.contains(label),
        }
    }
}

fn default_labels() -> impl Iterator<Item = &'static str> {
    STATUS_LABELS
        .into_iter()
        .chain(RULES.iter().map(|(label, _)| *label))
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            custom: Vec::new(),
            defaults: Defaults::All,
        }
    }
}

impl Tags {
    /// `custom` tags, and Envoy's default ones if `use_all_default_tags`.
    ///
    /// # Errors
    /// When there are more than [`TAG_RULES_MAX`], or two tags have one name.
    pub fn new(use_all_default_tags: bool, custom: Vec<TagSpecifier>) -> Result<Self, InvalidTag> {
        if custom.len() > TAG_RULES_MAX {
            return Err(InvalidTag(format!(
                "{} stats tags, of which at most {TAG_RULES_MAX} are allowed",
                custom.len()
            )));
        }
        let mut names: HashSet<String> = HashSet::new();
        if use_all_default_tags {
            names.extend(default_labels().map(str::to_owned));
        }
        for tag in &custom {
            if !names.insert(sanitize(tag.name())) {
                return Err(InvalidTag(format!(
                    "stats tag {:?} is specified twice",
                    tag.name()
                )));
            }
        }
        let defaults = if use_all_default_tags {
            Defaults::All
        } else {
            let wanted = custom.iter().filter_map(|tag| match tag {
                TagSpecifier::Default { name } => Some(sanitize(name)),
                _ => None,
            });
            Defaults::Only(wanted.collect())
        };
        Ok(Self { custom, defaults })
    }

    /// What is left of `name` and the labels taken from it.
    pub(crate) fn extract(&self, name: &str) -> (String, Vec<Label<'_>>) {
        let mut labels: Vec<Label<'_>> = Vec::new();
        let mut name = name.to_owned();
        for tag in &self.custom {
            match tag {
                TagSpecifier::Fixed { name, value } => labels.push((name, value.clone())),
                TagSpecifier::Default { .. } => {}
                TagSpecifier::Regex { name: tag, regex } => {
                    if let Some((value, rest)) = cut_regex(regex, &name) {
                        labels.push((tag, value));
                        name = rest;
                    }
                }
            }
        }
        if !matches!(&self.defaults, Defaults::Only(wanted) if wanted.is_empty()) {
            name = defaults(&self.defaults, &name, &mut labels);
        }
        // Envoy takes the status off first.
        labels.sort_by_key(|(label, _)| !STATUS_LABELS.contains(label));
        (name, labels)
    }
}

/// A label's name and value.
pub(crate) type Label<'a> = (&'a str, String);

fn cut_regex(regex: &Regex, name: &str) -> Option<(String, String)> {
    let found = regex.captures(name)?;
    let cut = found.get(1)?;
    let value = found.get(2).unwrap_or(cut).as_str().to_owned();
    Some((
        value,
        format!("{}{}", &name[..cut.start()], &name[cut.end()..]),
    ))
}

fn defaults(wanted: &Defaults, name: &str, labels: &mut Vec<Label<'_>>) -> String {
    let (stem, suffix) = status(wanted, name, labels);
    let segments: Vec<&str> = stem.split('.').collect();
    // Rules read all segments, whatever other rules took.
    let mut left: Vec<Option<&str>> = segments.iter().copied().map(Some).collect();
    for (label, pattern) in RULES.iter().filter(|(label, _)| wanted.has(label)) {
        take(label, pattern, &segments, &mut left, stem, labels);
    }
    let left: Vec<&str> = left.into_iter().flatten().collect();
    left.join(".") + suffix
}

/// Takes `_503` or the digit of `_5xx` off the end of `…_rq_503`; says what must be put back.
fn status<'a>(
    wanted: &Defaults,
    name: &'a str,
    labels: &mut Vec<Label<'_>>,
) -> (&'a str, &'static str) {
    let Some((stem, tail)) = name.rsplit_once("_rq_") else {
        return (name, "");
    };
    // Keep `_rq` on the stem: the label replaces only what follows.
    let stem = &name[..stem.len() + "_rq".len()];
    match tail.as_bytes() {
        [a, b, c]
            if wanted.has(STATUS_LABELS[0])
                && [a, b, c].iter().all(|digit| digit.is_ascii_digit()) =>
        {
            labels.push((STATUS_LABELS[0], tail.into()));
            (stem, "")
        }
        [class, b'x', b'x'] if wanted.has(STATUS_LABELS[1]) && class.is_ascii_digit() => {
            labels.push((STATUS_LABELS[1], tail[..1].into()));
            (stem, "_xx")
        }
        _ => (name, ""),
    }
}

/// Applies one rule: on a match, records the label and takes its segments out of `left`.
fn take(
    label: &'static str,
    pattern: &[Part],
    segments: &[&str],
    left: &mut [Option<&str>],
    name: &str,
    labels: &mut Vec<Label<'_>>,
) {
    let mut at = 0;
    let mut taken = 0..0;
    for part in pattern {
        // What the pattern reads must be followed by at least one segment.
        let rest = segments.get(at..segments.len() - 1).unwrap_or_default();
        let Some(&segment) = rest.first() else { return };
        let len = match part {
            Is(text) if *text == segment => 1,
            Any | Take => 1,
            AnyListener | TakeListener if segment != "admin" => listener(rest),
            TakeToLast => rest.len(),
            TakeWorker if worker(segment).is_some() => 1,
            _ => return,
        };
        if matches!(part, Take | TakeListener | TakeToLast | TakeWorker) {
            taken = at..at + len;
        }
        at += len;
    }
    if let [.., TakeWorker] = pattern {
        labels.push((label, worker(segments[taken.start]).unwrap_or("").into()));
        left[taken.start] = Some("worker");
        return;
    }
    labels.push((label, span(name, segments, taken.clone()).into()));
    left[taken].fill(None);
}

/// How many segments a listener's address has: `127.0.0.1_80` has four, anything else one.
fn listener(segments: &[&str]) -> usize {
    let [a, b, c, d, ..] = segments else { return 1 };
    let is_v4 = d.split_once('_').is_some_and(|(d, port)| {
        port.bytes().all(|b| b.is_ascii_digit())
            && format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>().is_ok()
    });
    if is_v4 { 4 } else { 1 }
}

fn worker(segment: &str) -> Option<&str> {
    let number = segment.strip_prefix("worker_")?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits.then_some(number)
}

/// The text of some neighbouring segments of `name`, dots included.
fn span<'a>(name: &'a str, segments: &[&str], range: std::ops::Range<usize>) -> &'a str {
    let before: usize = segments[..range.start].iter().map(|s| s.len() + 1).sum();
    let len: usize = segments[range].iter().map(|s| s.len() + 1).sum();
    &name[before..before + len - 1]
}
