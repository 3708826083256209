//! From a [`Tree`] to a message: the JSON form of protobuf, as leniently as Envoy reads it.

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::error::{Position, Problem, ProblemKind, Problems, suggestion};
use super::path::At;
use super::pool::Language;
use super::scalar::Guess;
use super::single::{expected, map_key};
use super::tree::{Content, Entry, NodeId, Tree};

/// Bytes of memory that the messages of one document may take, estimated. More are refused.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// Reads the whole document as a message of type `desc`.
pub(crate) fn decode(
    language: &Language,
    tree: &Tree,
    desc: &MessageDescriptor,
    problems: &mut Problems,
) -> DynamicMessage {
    let mut decoder = Decoder {
        language,
        tree,
        problems,
        bytes: 0,
    };
    decoder.fields_of(tree.root(), desc, &At::root(), &[])
}

/// Reads a part of the document, as `read` does it.
pub(super) fn decode_part(
    language: &Language,
    tree: &Tree,
    problems: &mut Problems,
    read: impl FnOnce(&mut Decoder<'_>) -> DynamicMessage,
) -> DynamicMessage {
    read(&mut Decoder {
        language,
        tree,
        problems,
        bytes: 0,
    })
}

pub(super) struct Decoder<'t> {
    pub(super) language: &'t Language,
    pub(super) tree: &'t Tree,
    pub(super) problems: &'t mut Problems,
    bytes: usize,
}

impl<'t> Decoder<'t> {
    /// Counts one more message of that type; false when there is no room left for it.
    pub(super) fn charge(&mut self, node: NodeId, desc: &MessageDescriptor) -> bool {
        let had_room = self.bytes <= MESSAGE_BYTES_MAX;
        self.bytes = self.bytes.saturating_add(self.language.facts(desc).bytes);
        let has_room = self.bytes <= MESSAGE_BYTES_MAX;
        if had_room && !has_room {
            let mebibytes = MESSAGE_BYTES_MAX >> 20;
            let reason =
                format!("the document is too large: more than {mebibytes} MiB of messages");
            self.problem(
                ProblemKind::TooLarge,
                &At::root(),
                self.position(node),
                reason,
            );
        }
        has_room
    }

    /// A message spelled out as a map; keys in `ignored` belong to whoever called.
    pub(super) fn fields_of(
        &mut self,
        node: NodeId,
        desc: &MessageDescriptor,
        at: &At<'_>,
        ignored: &[&str],
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(desc.clone());
        let Content::Map(entries) = self.tree.content(node) else {
            self.wrong_type(
                node,
                at,
                &format!("a map with the fields of {}", desc.full_name()),
            );
            return message;
        };
        for entry in entries
            .iter()
            .filter(|entry| !ignored.contains(&&*entry.key))
        {
            match field(desc, &entry.key) {
                Some(field) => self.field(entry, &field, &mut message, at),
                None => self.unknown_field(entry, desc, at),
            }
        }
        message
    }

    fn field(
        &mut self,
        entry: &Entry,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        at: &At<'_>,
    ) {
        let here = at.field(field.name());
        if let Some(oneof) = field.containing_oneof() {
            let set = oneof.fields().find(|member| message.has_field(member));
            if let Some(other) = set.filter(|_| !self.is_null(entry.value)) {
                let reason = if other == *field {
                    format!("{} is set twice", field.name())
                } else {
                    let (field, other) = (field.name(), other.name());
                    format!(
                        "only one of {other} and {field} may be set (oneof {})",
                        oneof.name()
                    )
                };
                return self.problem(ProblemKind::OneofTwice, &here, entry.position, reason);
            }
        }
        if field.is_map() {
            self.map(entry.value, field, message, &here);
        } else if field.is_list() {
            let mut items = match message.get_field(field).into_owned() {
                Value::List(items) => items,
                _ => Vec::new(),
            };
            self.list(entry.value, field, &mut items, &here);
            message.set_field(field, Value::List(items));
        } else if let Some(value) = self.singular(entry.value, field, &here) {
            message.set_field(field, value);
        }
    }

    fn map(
        &mut self,
        node: NodeId,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        at: &At<'_>,
    ) {
        let Kind::Message(pair) = field.kind() else {
            return;
        };
        let (key_field, value_field) = (pair.map_entry_key_field(), pair.map_entry_value_field());
        let Content::Map(entries) = self.tree.content(node) else {
            if !self.is_null(node) {
                self.wrong_type(node, at, "a map");
            }
            return;
        };
        let mut map = std::collections::HashMap::with_capacity(entries.len());
        for entry in entries {
            let here = at.key(&entry.key);
            let Some(key) = map_key(&entry.key, &key_field.kind()) else {
                let reason = format!("the key must be {}", expected(&key_field.kind()));
                self.problem(ProblemKind::WrongType, &here, entry.position, reason);
                continue;
            };
            let value = self.singular(entry.value, &value_field, &here);
            map.insert(key, value.unwrap_or_else(|| value_field.default_value()));
        }
        message.set_field(field, Value::Map(map));
    }

    /// A list, or a single value that stands for a list of one. Lists in lists are flattened.
    fn list(&mut self, node: NodeId, field: &FieldDescriptor, items: &mut Vec<Value>, at: &At<'_>) {
        let Content::List(nodes) = self.tree.content(node) else {
            let here = at.index(items.len());
            items.extend(self.singular(node, field, &here));
            return;
        };
        for item in nodes {
            if matches!(self.tree.content(*item), Content::List(_)) && !holds_lists(&field.kind()) {
                self.list(*item, field, items, at);
                continue;
            }
            let index = items.len();
            let value = self.singular(*item, field, &at.index(index));
            items.push(value.unwrap_or_else(|| Value::default_value(&field.kind())));
        }
    }

    /// One value; nothing for null, save where null is a value.
    pub(super) fn singular(
        &mut self,
        node: NodeId,
        field: &FieldDescriptor,
        at: &At<'_>,
    ) -> Option<Value> {
        if self.is_null(node) {
            return match field.kind() {
                Kind::Message(desc) if desc.full_name() == "google.protobuf.Value" => {
                    Some(Value::Message(self.any_value(node, &desc, at)))
                }
                Kind::Enum(desc) if desc.full_name() == "google.protobuf.NullValue" => {
                    Some(Value::EnumNumber(0))
                }
                _ => None,
            };
        }
        match field.kind() {
            Kind::Message(desc) if !self.charge(node, &desc) => None,
            Kind::Message(desc) if desc.full_name() == "google.protobuf.Any" => {
                let opaque = field.parent_message().full_name() == super::OPAQUE_ANY;
                Some(Value::Message(self.any(node, &desc, at, opaque)))
            }
            Kind::Message(desc) => Some(Value::Message(self.message(node, &desc, at))),
            Kind::Enum(desc) => self.enumeration(node, &desc, at),
            kind => self.scalar(node, &kind, at),
        }
    }

    fn unknown_field(&mut self, entry: &Entry, desc: &MessageDescriptor, at: &At<'_>) {
        let here = at.field(&entry.key);
        let reason = if entry.key.as_ref() == "<<" {
            "merge keys (<<) are not part of Envoy's language".to_owned()
        } else if desc.reserved_names().any(|name| name == &*entry.key) {
            format!("{} has this field no longer", desc.full_name())
        } else if self.problems.is_full() {
            String::new()
        } else {
            let names: Vec<_> = desc.fields().map(|field| field.name().to_owned()).collect();
            let close = suggestion(&entry.key, names.iter().map(String::as_str));
            format!("{} has no such field{close}", desc.full_name())
        };
        self.problem(ProblemKind::UnknownField, &here, entry.position, reason);
    }

    pub(super) fn wrong_type(&mut self, node: NodeId, at: &At<'_>, wanted: &str) {
        let found = match self.tree.content(node) {
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
            Content::Scalar(_) => match self.guess(node) {
                Some(Guess::Bool(value)) => value.to_string(),
                Some(Guess::Int(number)) => number.to_string(),
                Some(Guess::Text(_)) => "other text".to_owned(),
                _ => "nothing".to_owned(),
            },
        };
        let reason = format!("expected {wanted}, found {found}");
        self.problem(ProblemKind::WrongType, at, self.position(node), reason);
    }

    pub(super) fn problem(
        &mut self,
        kind: ProblemKind,
        at: &At<'_>,
        position: Position,
        reason: String,
    ) {
        self.problems.push(Problem {
            kind,
            path: at.to_string(),
            position: Some(position),
            reason,
        });
    }

    pub(super) fn position(&self, node: NodeId) -> Position {
        self.tree.node(node).position
    }

    pub(super) fn is_null(&self, node: NodeId) -> bool {
        matches!(self.tree.content(node), Content::Scalar(scalar) if scalar.is_null())
    }

    pub(super) fn guess(&self, node: NodeId) -> Option<Guess<'t>> {
        match self.tree.content(node) {
            Content::Scalar(scalar) => Some(scalar.guess()),
            _ => None,
        }
    }

    /// A message as the value of an `Any`.
    pub(super) fn packed(
        desc: &MessageDescriptor,
        type_url: &str,
        inner: &DynamicMessage,
    ) -> DynamicMessage {
        let mut any = DynamicMessage::new(desc.clone());
        any.set_field_by_number(1, Value::String(type_url.to_owned()));
        any.set_field_by_number(2, Value::Bytes(inner.encode_to_vec().into()));
        any
    }
}

/// The field of that proto name or JSON name.
fn field(desc: &MessageDescriptor, key: &str) -> Option<FieldDescriptor> {
    desc.get_field_by_name(key)
        .or_else(|| desc.get_field_by_json_name(key))
}

fn holds_lists(kind: &Kind) -> bool {
    matches!(kind, Kind::Message(desc)
        if matches!(desc.full_name(), "google.protobuf.Value" | "google.protobuf.ListValue"))
}
