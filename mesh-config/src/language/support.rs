//! Which fields are enforced, and a report of those that are set and are not.

use std::collections::HashMap;
use std::fmt;

use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, ReflectMessage, Value};

use super::any::type_name;
use super::error::Position;
use super::path::At;
use super::pool::Language;
use super::visit::{Visitor, Walk, visit};

/// Entries kept in an [`UnsupportedReport`]; the rest are only counted.
pub const UNSUPPORTED_MAX: usize = 1_000;

/// What is done with a field when it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It is honoured, and what is inside it is looked at field by field.
    Enforced,
    /// An enum that is honoured for these values, by name, and reported for any other.
    EnforcedFor(&'static [&'static str]),
    /// It has no meaning here (a name for people, a build option), so that nothing is missed.
    Meaningless,
    /// It is known and not honoured. Every field that a table leaves out counts as this.
    Unsupported,
    /// Like `Unsupported`, and leaving it out would let in what it keeps out.
    Security,
}

/// The fields of one message that somebody enforces, next to the code that does.
#[derive(Clone, Copy, Debug)]
pub struct MessageSupport {
    /// Full name of the message, without a leading dot.
    pub message: &'static str,
    /// Proto names of its fields. Fields left out are [`Support::Unsupported`].
    pub fields: &'static [(&'static str, Support)],
}

/// What is enforced, message by message. Messages left out are not enforced at all.
#[derive(Clone, Debug, Default)]
pub struct SupportTable {
    messages: HashMap<&'static str, HashMap<&'static str, Support>>,
}

/// Types whose absence lets something in: a message of such a type that no table names is reported
/// as [`Support::Security`], wherever it stands.
const SECURITY_TYPES: [&str; 18] = [
    "envoy.config.core.v3.TransportSocket",
    "envoy.config.rbac.",
    "envoy.extensions.filters.http.",
    "envoy.extensions.filters.listener.",
    "envoy.extensions.filters.network.",
    "envoy.extensions.filters.udp.",
    "envoy.extensions.filters.common.",
    "envoy.extensions.http.header_validators.",
    "envoy.extensions.http.injected_credentials.",
    "envoy.extensions.http.original_ip_detection.",
    "envoy.extensions.rbac.",
    "envoy.extensions.transport_sockets.",
    "envoy.extensions.http.early_header_mutation.",
    "envoy.extensions.path.",
    "envoy.extensions.grpc_service.",
    "envoy.config.listener.v3.ListenerFilter",
    "envoy.extensions.matching.",
    "xds.type.matcher.",
];

/// Whether a message of that full name guards something.
pub fn is_security_type(full_name: &str) -> bool {
    SECURITY_TYPES
        .iter()
        .any(|prefix| full_name.starts_with(prefix))
}

impl SupportTable {
    /// A table of these rows. A message may have several: their fields are put together, so that
    /// each conversion can keep the part that it honours beside its code.
    pub fn new(rows: impl IntoIterator<Item = MessageSupport>) -> Self {
        let mut table = Self::default();
        for row in rows {
            let fields = table.messages.entry(row.message).or_default();
            fields.extend(row.fields.iter().copied());
        }
        table
    }

    /// The full names of all messages that somebody enforces, at least in part, sorted.
    pub fn messages(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.messages.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// What is done with a field when it is set.
    pub fn field(&self, message: &str, field: &str) -> Support {
        let fields = self.messages.get(message);
        let support = fields.and_then(|fields| fields.get(field).copied());
        support.unwrap_or(Support::Unsupported)
    }

    /// What is wrong with the table: names that the language does not have. For tests.
    pub fn mistakes(&self, language: &Language) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (message, fields) in &self.messages {
            let Some(desc) = language.message(message) else {
                mistakes.push(format!("no message {message}"));
                continue;
            };
            for (name, support) in fields {
                match (
                    desc.get_field_by_name(name).map(|field| field.kind()),
                    support,
                ) {
                    (None, _) => mistakes.push(format!("no field {name} in {message}")),
                    (Some(Kind::Enum(desc)), Support::EnforcedFor(values)) => {
                        let unknown = values
                            .iter()
                            .filter(|v| desc.get_value_by_name(v).is_none());
                        mistakes.extend(
                            unknown.map(|v| format!("no value {v} of {name} in {message}")),
                        );
                    }
                    (Some(_), Support::EnforcedFor(_)) => {
                        mistakes.push(format!("{name} in {message} is not an enum"));
                    }
                    (Some(_), _) => {}
                }
            }
        }
        mistakes.sort();
        mistakes
    }

    /// Everything that is set in `message` and not enforced.
    pub fn report(
        &self,
        language: &Language,
        message: &DynamicMessage,
        locate: impl Fn(&str) -> Option<Position>,
    ) -> UnsupportedReport {
        let mut reporter = Reporter {
            table: self,
            language,
            report: UnsupportedReport::default(),
        };
        visit(language, message, &mut reporter);
        let mut report = reporter.report;
        for entry in &mut report.entries {
            entry.position = locate(&entry.path);
        }
        report
    }

    /// Whether anything of that message is enforced.
    pub fn has(&self, message: &str) -> bool {
        self.messages.contains_key(message)
    }
}

/// Something that a config asks for and that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Path of the field from the root.
    pub path: String,
    /// Where it stands in the file, if it came from one.
    pub position: Option<Position>,
    /// Full name of the field, or of the message, that is not enforced.
    pub field: String,
    /// The value that is not enforced, when others of this field are.
    pub value: Option<String>,
    /// Whether leaving it out would let in what it keeps out.
    pub security: bool,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "line {}: ", position.line)?;
        }
        write!(f, "{}", self.path)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {} is not enforced", self.field)?;
        if self.security {
            write!(f, ", and security depends on it")?;
        }
        Ok(())
    }
}

/// All that a config asks for and that is not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnsupportedReport {
    /// What is missing, outside in, in the order of the messages' fields.
    pub entries: Vec<Unsupported>,
    /// How many further entries were left out, beyond [`UNSUPPORTED_MAX`].
    pub left_out: usize,
}

impl UnsupportedReport {
    /// Whether everything is enforced.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries that security depends on.
    pub fn security(&self) -> impl Iterator<Item = &Unsupported> {
        self.entries.iter().filter(|entry| entry.security)
    }

    /// Adds what only a conversion can tell. Entries about security displace others when full.
    pub fn push(&mut self, entry: Unsupported) {
        if self.entries.len() < UNSUPPORTED_MAX {
            return self.entries.push(entry);
        }
        self.left_out += 1;
        let mut others = self
            .entries
            .iter_mut()
            .rev()
            .filter(|entry| !entry.security);
        if let Some(place) = others.next().filter(|_| entry.security) {
            *place = entry;
        }
    }
}

struct Reporter<'a> {
    table: &'a SupportTable,
    language: &'a Language,
    report: UnsupportedReport,
}

impl Reporter<'_> {
    fn add(&mut self, at: &At<'_>, field: &str, value: Option<String>, security: bool) {
        self.report.push(Unsupported {
            path: at.to_string(),
            position: None,
            field: field.to_owned(),
            value,
            security,
        });
    }

    /// Whether anything inside the value guards something.
    fn guards(&self, value: &Value) -> bool {
        let mut search = Search { found: false };
        match value {
            Value::Message(inner) => visit(self.language, inner, &mut search),
            Value::List(items) => items
                .iter()
                .filter_map(Value::as_message)
                .for_each(|inner| visit(self.language, inner, &mut search)),
            Value::Map(entries) => entries
                .values()
                .filter_map(Value::as_message)
                .for_each(|inner| visit(self.language, inner, &mut search)),
            _ => {}
        }
        search.found
    }
}

impl Visitor for Reporter<'_> {
    fn message(&mut self, at: &At<'_>, message: &DynamicMessage) -> Walk {
        let desc = message.descriptor();
        if self.table.has(desc.full_name()) {
            return Walk::Into;
        }
        let mut search = Search { found: false };
        visit(self.language, message, &mut search);
        self.add(at, desc.full_name(), None, search.found);
        Walk::Past
    }

    fn field(
        &mut self,
        at: &At<'_>,
        message: &DynamicMessage,
        field: &FieldDescriptor,
        value: &Value,
    ) -> Walk {
        let desc = message.descriptor();
        match self.table.field(desc.full_name(), field.name()) {
            Support::Enforced => return Walk::Into,
            Support::Meaningless => {}
            Support::EnforcedFor(names) => {
                if let Kind::Enum(desc) = field.kind() {
                    for value in other_values(&desc, names, value) {
                        self.add(at, field.full_name(), Some(value), false);
                    }
                }
            }
            Support::Unsupported => {
                let security = self.guards(value);
                self.add(at, field.full_name(), None, security);
            }
            Support::Security => self.add(at, field.full_name(), None, true),
        }
        Walk::Past
    }

    fn opaque(&mut self, at: &At<'_>, type_url: &str) {
        let name = type_name(type_url).to_owned();
        // What cannot be looked into may guard anything.
        self.add(at, &name, None, true);
    }
}

/// The enum values in `value` that are not among `names`.
fn other_values(desc: &EnumDescriptor, names: &[&str], value: &Value) -> Vec<String> {
    let one = std::slice::from_ref(value);
    let name = |number| {
        desc.get_value(number)
            .map_or_else(|| number.to_string(), |v| v.name().to_owned())
    };
    let values = value.as_list().unwrap_or(one).iter();
    let all = values.filter_map(Value::as_enum_number).map(name);
    all.filter(|value| !names.contains(&value.as_str()))
        .collect()
}

struct Search {
    found: bool,
}

impl Visitor for Search {
    fn message(&mut self, _: &At<'_>, message: &DynamicMessage) -> Walk {
        self.found |= is_security_type(message.descriptor().full_name());
        if self.found { Walk::Past } else { Walk::Into }
    }

    fn opaque(&mut self, _: &At<'_>, _: &str) {
        self.found = true;
    }
}
