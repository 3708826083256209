//! Walking over everything that is set in a message, into `Any` as well.

use prost::bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};

use super::any::type_name;
use super::path::At;
use super::pool::Language;
use super::rules::key_text;

/// Messages in messages (and in `Any`s) that are followed; what lies deeper is reported as opaque.
pub const VISIT_DEPTH_MAX: usize = 200;

/// Whether a walk goes on below what was just shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Show what is inside too.
    Into,
    /// Go on with what comes next.
    Past,
}

/// Sees a message from the outside in. Every method has a default that goes on.
pub trait Visitor {
    /// A message, before its fields; for an `Any`, the message that it holds.
    fn message(&mut self, at: &At<'_>, message: &DynamicMessage) -> Walk {
        let _ = (at, message);
        Walk::Into
    }

    /// A field that is set, with its whole value; lists and maps come as one.
    fn field(
        &mut self,
        at: &At<'_>,
        message: &DynamicMessage,
        field: &FieldDescriptor,
        value: &Value,
    ) -> Walk {
        let _ = (at, message, field, value);
        Walk::Into
    }

    /// An `Any` that cannot be looked into: its type is not known here, its bytes are broken, or it
    /// lies too deep.
    fn opaque(&mut self, at: &At<'_>, type_url: &str) {
        let _ = (at, type_url);
    }
}

/// Shows `message` and everything set in it to `visitor`.
///
/// Well-known types (durations, wrappers, structs) are values: nothing inside them is shown.
pub fn visit(language: &Language, message: &DynamicMessage, visitor: &mut dyn Visitor) {
    Walker { language, visitor }.message(&At::root(), message, 0);
}

struct Walker<'a> {
    language: &'a Language,
    visitor: &'a mut dyn Visitor,
}

impl Walker<'_> {
    fn message(&mut self, at: &At<'_>, message: &DynamicMessage, depth: usize) {
        if let Some(any) = AnyParts::of(message) {
            return self.any(at, &any, depth);
        }
        if depth > VISIT_DEPTH_MAX {
            return self.visitor.opaque(at, message.descriptor().full_name());
        }
        if is_value(message) || self.visitor.message(at, message) == Walk::Past {
            return;
        }
        for (field, value) in message.fields() {
            let here = at.field(field.name());
            if self.visitor.field(&here, message, &field, value) == Walk::Into {
                self.value(&here, &field, value, depth + 1);
            }
        }
    }

    fn value(&mut self, at: &At<'_>, field: &FieldDescriptor, value: &Value, depth: usize) {
        match value {
            Value::Message(inner) => self.message(at, inner, depth),
            Value::List(items) if matches!(field.kind(), Kind::Message(_)) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Message(inner) = item {
                        self.message(&at.index(index), inner, depth);
                    }
                }
            }
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| (key_text(key), value))
                    .collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                for (key, value) in entries {
                    if let Value::Message(inner) = value {
                        self.message(&at.key(&key), inner, depth);
                    }
                }
            }
            _ => {}
        }
    }

    fn any(&mut self, at: &At<'_>, any: &AnyParts, depth: usize) {
        match any
            .unpack(self.language)
            .filter(|_| depth <= VISIT_DEPTH_MAX)
        {
            Some(inner) => self.message(at, &inner, depth + 1),
            None if any.type_url.is_empty() => {}
            None => self.visitor.opaque(at, &any.type_url),
        }
    }
}

/// What a `google.protobuf.Any` holds.
pub(crate) struct AnyParts {
    pub(crate) type_url: String,
    pub(crate) bytes: Bytes,
}

impl AnyParts {
    /// The parts of a message that is an `Any`.
    pub(crate) fn of(message: &DynamicMessage) -> Option<Self> {
        if message.descriptor().full_name() != "google.protobuf.Any" {
            return None;
        }
        let url = message.get_field_by_number(1);
        let bytes = message.get_field_by_number(2);
        Some(Self {
            type_url: url
                .and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default(),
            bytes: bytes
                .and_then(|v| v.as_bytes().cloned())
                .unwrap_or_default(),
        })
    }

    /// The message inside, if its type is known and its bytes are sound.
    pub(crate) fn unpack(&self, language: &Language) -> Option<DynamicMessage> {
        let desc = language.message(type_name(&self.type_url))?;
        DynamicMessage::decode(desc, self.bytes.clone()).ok()
    }
}

/// Whether a message is a well-known type that stands for a plain value.
pub(crate) fn is_value(message: &DynamicMessage) -> bool {
    message
        .descriptor()
        .full_name()
        .starts_with("google.protobuf.")
}
