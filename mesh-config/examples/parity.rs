//! Prints `PARITY.md`: which of Envoy's fields work, field by field, from the tables that the conversions
//! keep beside their code. `cargo xtask parity` writes the file, and holds it against this in CI.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use mesh_config::{
    language::{Language, Support, SupportTable, is_security_type},
    support_table,
};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// Headings, and the beginnings of the messages' names that stand below them; the first that fits counts.
const GROUPS: [(&str, &[&str]); 12] = [
    (
        "Bootstrap",
        &[
            "envoy.config.bootstrap.",
            "envoy.config.metrics.",
            "envoy.extensions.stat_sinks.",
            "envoy.extensions.network.dns_resolver.",
            "envoy.extensions.regex_engines.",
            "envoy.config.core.v3.Node",
        ],
    ),
    (
        "Listeners",
        &[
            "envoy.config.listener.",
            "envoy.extensions.filters.listener.",
        ],
    ),
    (
        "HTTP connection manager",
        &["envoy.extensions.filters.network.http_connection_manager."],
    ),
    ("Network filters", &["envoy.extensions.filters.network."]),
    (
        "HTTP filters",
        &[
            "envoy.extensions.filters.http.",
            "envoy.extensions.common.ratelimit.",
        ],
    ),
    ("Routes", &["envoy.config.route."]),
    (
        "Clusters",
        &[
            "envoy.config.cluster.",
            "envoy.config.endpoint.",
            "envoy.extensions.clusters.",
            "envoy.extensions.upstreams.",
        ],
    ),
    (
        "Load balancing",
        &["envoy.extensions.load_balancing_policies."],
    ),
    ("TLS", &["envoy.extensions.transport_sockets."]),
    (
        "Access logs",
        &[
            "envoy.config.accesslog.",
            "envoy.extensions.access_loggers.",
        ],
    ),
    ("Retries", &["envoy.extensions.retry."]),
    ("Shared by several", &[""]),
];

fn main() {
    print!("{}", render(&Language::full(), &support_table()));
}

fn render(language: &Language, table: &SupportTable) -> String {
    let mut out = String::from(
        "\
# Parity with Envoy

Which fields of Envoy's v3 API mesh honours. This page is generated from the tables that the code reads
(`cargo xtask parity`), and CI fails when it is stale. Nothing is ignored in silence:

| word | what happens when a config sets it |
|---|---|
| works | it is honoured |
| no meaning | it has no meaning here, and nothing is missed without it |
| reported | a warning at the start, with its path; `--strict` refuses |
| refused | something about security would be missing: the proxy does not run |

`*` holds an extension: what happens depends on it, see [Extensions](#extensions). Messages that are not on
this page are reported, or refused if they guard something.

",
    );
    let mut groups: BTreeMap<usize, Vec<Fields>> = BTreeMap::new();
    for name in table.messages() {
        let Some(message) = language.message(name) else {
            continue;
        };
        let fits = |(_, prefixes): &(_, &[&str])| prefixes.iter().any(|p| name.starts_with(p));
        let group = GROUPS.iter().position(fits).unwrap_or(GROUPS.len() - 1);
        groups
            .entry(group)
            .or_default()
            .push(Fields::of(table, &message));
    }
    overview(&mut out, &groups);
    for (group, messages) in &groups {
        let _ = writeln!(out, "## {}\n", GROUPS[*group].0);
        messages.iter().for_each(|message| message.write(&mut out));
    }
    extensions(&mut out, language, table);
    out
}

/// The fields of one message, by what is done with them.
#[derive(Default)]
struct Fields {
    name: String,
    works: Vec<String>,
    meaningless: Vec<String>,
    reported: Vec<String>,
    refused: Vec<String>,
}

impl Fields {
    fn of(table: &SupportTable, message: &MessageDescriptor) -> Self {
        let mut this = Self {
            name: message.full_name().to_owned(),
            ..Self::default()
        };
        for field in message.fields() {
            let star = if holds_extension(&field) { "\\*" } else { "" };
            let name = format!("`{}`{star}", field.name());
            match table.field(message.full_name(), field.name()) {
                Support::Enforced => this.works.push(name),
                Support::EnforcedFor(values) => {
                    this.works.push(format!("{name} ({})", values.join(", ")));
                }
                Support::Meaningless => this.meaningless.push(name),
                Support::Security => this.refused.push(name),
                Support::Unsupported if guards(&field) => this.refused.push(name),
                Support::Unsupported => this.reported.push(name),
            }
        }
        this
    }

    fn write(&self, out: &mut String) {
        let _ = writeln!(out, "**{}**\n", self.name);
        let rows = [
            ("works", &self.works),
            ("no meaning", &self.meaningless),
            ("reported", &self.reported),
            ("refused", &self.refused),
        ];
        if rows.iter().all(|(_, fields)| fields.is_empty()) {
            let _ = writeln!(out, "- works; it has no fields");
        }
        for (word, fields) in rows.iter().filter(|(_, fields)| !fields.is_empty()) {
            let _ = writeln!(out, "- {word}: {}", fields.join(", "));
        }
        out.push('\n');
    }
}

/// Whether what is in the field decides what happens.
fn holds_extension(field: &FieldDescriptor) -> bool {
    let holds = [
        "google.protobuf.Any",
        "envoy.config.core.v3.TypedExtensionConfig",
    ];
    matches!(message_of(field), Some(message) if holds.contains(&message.full_name()))
}

fn guards(field: &FieldDescriptor) -> bool {
    matches!(message_of(field), Some(message) if is_security_type(message.full_name()))
}

/// The message in a field, or in the values of a map.
fn message_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => match entry.map_entry_value_field().kind() {
            Kind::Message(message) => Some(message),
            _ => None,
        },
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

fn overview(out: &mut String, groups: &BTreeMap<usize, Vec<Fields>>) {
    out.push_str("| | works | no meaning | reported | refused |\n|---|---|---|---|---|\n");
    for (group, messages) in groups {
        let sum = |of: fn(&Fields) -> usize| messages.iter().map(of).sum::<usize>();
        let title = GROUPS[*group].0;
        let anchor = title.to_lowercase().replace(' ', "-");
        let _ = writeln!(
            out,
            "| [{title}](#{anchor}) | {} | {} | {} | {} |",
            sum(|m| m.works.len()),
            sum(|m| m.meaningless.len()),
            sum(|m| m.reported.len()),
            sum(|m| m.refused.len()),
        );
    }
    out.push('\n');
}

/// Extensions by category: what a `typed_config` may hold.
fn extensions(out: &mut String, language: &Language, table: &SupportTable) {
    let inner: HashSet<String> = language
        .messages()
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .filter_map(|field| Some(message_of(&field)?.full_name().to_owned()))
        .collect();
    let mut categories: BTreeMap<String, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for message in language.messages() {
        let name = message.full_name();
        let is_part = message.parent_message().is_some() || inner.contains(name);
        let Some(rest) = name.strip_prefix("envoy.extensions.") else {
            continue;
        };
        if is_part && !table.has(name) || message.parent_message().is_some() {
            continue;
        }
        let segments: Vec<&str> = rest.split('.').collect();
        let category = segments[..segments.len().saturating_sub(3)].join(".");
        let word = match (table.has(name), is_security_type(name)) {
            (true, _) => "works",
            (false, true) => "refused",
            (false, false) => "reported",
        };
        let short = segments[segments.len().saturating_sub(3)..].join(".");
        let words = categories.entry(category).or_default();
        words.entry(word).or_default().push(format!("`{short}`"));
    }
    out.push_str("## Extensions\n\nWhat a `typed_config` may hold, by category below `envoy.extensions`.\n\n");
    for (category, words) in categories
        .iter()
        .filter(|(category, _)| !category.is_empty())
    {
        let _ = writeln!(out, "**{category}**\n");
        for word in ["works", "reported", "refused"] {
            if let Some(names) = words.get(word) {
                let mut names = names.clone();
                names.sort();
                let _ = writeln!(out, "- {word}: {}", names.join(", "));
            }
        }
        out.push('\n');
    }
}
