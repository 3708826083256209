//! Values whose type the document names (`Any`, `TypedStruct`) or leaves open (`Struct`, `Value`).

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, Value};

use super::decode::Decoder;
use super::error::{ProblemKind, quoted, suggestion};
use super::path::At;
use super::scalar::Guess;
use super::tree::{Content, Entry, NodeId};

/// Types that stand for the type which their `type_url` names.
pub(crate) const TYPED_STRUCTS: [&str; 2] = ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"];

/// The full name of a type, of its URL: whatever precedes the last slash does not matter.
pub(crate) fn type_name(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

impl Decoder<'_> {
    /// An `Any`: a map with an `@type` anywhere in it. An `opaque` one may hold a `TypedStruct` for
    /// others to read; any other `TypedStruct` becomes the message that it spells out.
    pub(super) fn any(
        &mut self,
        node: NodeId,
        desc: &MessageDescriptor,
        at: &At<'_>,
        opaque: bool,
    ) -> DynamicMessage {
        let empty = DynamicMessage::new(desc.clone());
        let Content::Map(entries) = self.tree.content(node) else {
            self.wrong_type(node, at, "a map with \"@type\" and the fields of that type");
            return empty;
        };
        if entries.is_empty() {
            return empty;
        }
        let Some(entry) = entries.iter().find(|entry| &*entry.key == "@type") else {
            let reason = "\"@type\" is missing: it names the type whose fields these are";
            self.problem(
                ProblemKind::UnknownType,
                at,
                self.position(node),
                reason.to_owned(),
            );
            return empty;
        };
        let Some(Guess::Text(url)) = self.guess(entry.value) else {
            self.wrong_type(entry.value, &at.key("@type"), "a type URL");
            return empty;
        };
        if url.find('/').is_none_or(|slash| slash == 0) {
            let reason = format!(
                "{} is no type URL: write \"type.googleapis.com/\" before the name",
                quoted(&url)
            );
            self.problem(ProblemKind::UnknownType, at, entry.position, reason);
            return empty;
        }
        let name = type_name(&url);
        if TYPED_STRUCTS.contains(&name) && !opaque {
            return self.typed_struct(node, entries, desc, at);
        }
        let Some(inner) = self.known_type(name, entry, at) else {
            return empty;
        };
        let message = if name.starts_with("google.protobuf.") && name != "google.protobuf.Empty" {
            self.well_known(node, entries, &inner, at)
        } else {
            self.fields_of(node, &inner, at, &["@type"])
        };
        Self::packed(desc, &url, &message)
    }

    /// A well-known type in an `Any` has its usual form under the key `value`.
    fn well_known(
        &mut self,
        node: NodeId,
        entries: &[Entry],
        desc: &MessageDescriptor,
        at: &At<'_>,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(desc.clone());
        for entry in entries.iter().filter(|entry| &*entry.key != "@type") {
            if &*entry.key == "value" {
                let here = at.field("value");
                message = match desc.full_name() {
                    "google.protobuf.Any" => self.any(entry.value, desc, &here, true),
                    _ if self.is_null(entry.value)
                        && desc.full_name() != "google.protobuf.Value" =>
                    {
                        message
                    }
                    _ => self.message(entry.value, desc, &here),
                };
            } else {
                let reason = format!("{} goes under the key \"value\"", desc.full_name());
                self.problem(
                    ProblemKind::UnknownField,
                    &at.field(&entry.key),
                    self.position(node),
                    reason,
                );
            }
        }
        message
    }

    fn typed_struct(
        &mut self,
        node: NodeId,
        entries: &[Entry],
        desc: &MessageDescriptor,
        at: &At<'_>,
    ) -> DynamicMessage {
        let (mut url, mut value) = (None, None);
        for entry in entries {
            match &*entry.key {
                "@type" => {}
                "type_url" | "typeUrl" => url = Some(entry),
                "value" => value = Some(entry.value).filter(|value| !self.is_null(*value)),
                key => {
                    let close = suggestion(key, ["type_url", "value"].into_iter());
                    let reason = format!("TypedStruct has no such field{close}");
                    self.problem(
                        ProblemKind::UnknownField,
                        &at.field(key),
                        entry.position,
                        reason,
                    );
                }
            }
        }
        let empty = DynamicMessage::new(desc.clone());
        let Some(entry) = url else {
            let reason = "TypedStruct needs a type_url";
            self.problem(
                ProblemKind::UnknownType,
                at,
                self.position(node),
                reason.to_owned(),
            );
            return empty;
        };
        let Some(Guess::Text(text)) = self.guess(entry.value) else {
            self.wrong_type(entry.value, &at.field("type_url"), "a type URL");
            return empty;
        };
        let name = type_name(&text);
        if TYPED_STRUCTS.contains(&name) {
            let reason = "a TypedStruct may not stand for another";
            self.problem(
                ProblemKind::UnknownType,
                at,
                entry.position,
                reason.to_owned(),
            );
            return empty;
        }
        let Some(inner) = self.known_type(name, entry, at) else {
            return empty;
        };
        let message = match value {
            Some(value) => self.fields_of(value, &inner, at, &[]),
            None => DynamicMessage::new(inner),
        };
        Self::packed(desc, &format!("type.googleapis.com/{name}"), &message)
    }

    fn known_type(&mut self, name: &str, entry: &Entry, at: &At<'_>) -> Option<MessageDescriptor> {
        let found = self.language.message(name);
        match &found {
            Some(desc) => drop(self.charge(entry.value, desc)),
            None => self.unknown_type(name, entry, at),
        }
        found
    }

    fn unknown_type(&mut self, name: &str, entry: &Entry, at: &At<'_>) {
        // Comparing with every name there is costs too much to do it for nothing.
        let close = if self.problems.is_full() {
            String::new()
        } else {
            suggestion(name, self.language.known_names())
        };
        let version = if name.contains(".v2.") || name.contains(".v2alpha") {
            " (version 2 of the API is not read)"
        } else {
            ""
        };
        let reason = format!(
            "the type {} is not known{version}{close}",
            quoted_type(name)
        );
        self.problem(ProblemKind::UnknownType, at, entry.position, reason);
    }

    /// A `google.protobuf.Value`: whatever the document says.
    pub(super) fn any_value(
        &mut self,
        node: NodeId,
        desc: &MessageDescriptor,
        at: &At<'_>,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(desc.clone());
        if !self.charge(node, desc) {
            return message;
        }
        let (number, value) = match self.tree.content(node) {
            Content::Map(_) => match inner(desc, 5) {
                Some(inner) => (5, Value::Message(self.structure(node, &inner, at))),
                None => return message,
            },
            Content::List(_) => match inner(desc, 6) {
                Some(inner) => (6, Value::Message(self.list_value(node, &inner, at))),
                None => return message,
            },
            Content::Scalar(scalar) => match scalar.guess() {
                Guess::Null => (1, Value::EnumNumber(0)),
                Guess::Int(number) => (2, Value::F64(number.into())),
                Guess::Text(text) => (3, Value::String(text.into_owned())),
                Guess::Bool(value) => (4, Value::Bool(value)),
            },
        };
        message.set_field_by_number(number, value);
        message
    }

    pub(super) fn structure(
        &mut self,
        node: NodeId,
        desc: &MessageDescriptor,
        at: &At<'_>,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(desc.clone());
        let (Content::Map(entries), Some(value)) = (self.tree.content(node), value_type(desc))
        else {
            self.wrong_type(node, at, "a map");
            return message;
        };
        let fields: HashMap<_, _> = entries
            .iter()
            .map(|entry| {
                let inner = self.any_value(entry.value, &value, &at.key(&entry.key));
                (MapKey::String(entry.key.to_string()), Value::Message(inner))
            })
            .collect();
        message.set_field_by_number(1, Value::Map(fields));
        message
    }

    pub(super) fn list_value(
        &mut self,
        node: NodeId,
        desc: &MessageDescriptor,
        at: &At<'_>,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(desc.clone());
        let (Content::List(items), Some(value)) = (self.tree.content(node), inner(desc, 1)) else {
            self.wrong_type(node, at, "a list");
            return message;
        };
        let items = items
            .iter()
            .enumerate()
            .map(|(index, item)| Value::Message(self.any_value(*item, &value, &at.index(index))))
            .collect();
        message.set_field_by_number(1, Value::List(items));
        message
    }
}

/// The message type of a field.
fn inner(desc: &MessageDescriptor, number: u32) -> Option<MessageDescriptor> {
    desc.get_field(number)?.kind().as_message().cloned()
}

/// The type of the values of a `Struct`.
fn value_type(desc: &MessageDescriptor) -> Option<MessageDescriptor> {
    inner(desc, 1)?
        .map_entry_value_field()
        .kind()
        .as_message()
        .cloned()
}

/// Type names are longer than what errors show of other texts.
fn quoted_type(name: &str) -> String {
    format!("{:?}", super::error::shortened(name, 200))
}
