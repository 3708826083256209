//! From a [`Tree`] to a message: the JSON form of protobuf, as leniently as Envoy reads it.

use prost::Message as _;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

use super::error::{Position, Problem, ProblemKind, Problems, quoted, suggestion};
use super::path::At;
use super::pool::Language;
use super::scalar::{Guess, quoted_bool, text_float, text_integer};
use super::tree::{Content, Entry, NodeId, Tree};
use super::wkt;

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
    };
    decoder.fields_of(tree.root(), desc, &At::root(), &[])
}

pub(super) struct Decoder<'t> {
    pub(super) language: &'t Language,
    pub(super) tree: &'t Tree,
    pub(super) problems: &'t mut Problems,
}

impl<'t> Decoder<'t> {
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
    fn singular(&mut self, node: NodeId, field: &FieldDescriptor, at: &At<'_>) -> Option<Value> {
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
            Kind::Message(desc) if desc.full_name() == "google.protobuf.Any" => {
                let opaque = field.parent_message().full_name() == super::OPAQUE_ANY;
                Some(Value::Message(self.any(node, &desc, at, opaque)))
            }
            Kind::Message(desc) => Some(Value::Message(self.message(node, &desc, at))),
            Kind::Enum(desc) => self.enumeration(node, &desc, at),
            kind => self.scalar(node, &kind, at),
        }
    }

    /// A message that is not an `Any`: spelled out, or in the short form of its type.
    pub(super) fn message(
        &mut self,
        node: NodeId,
        desc: &MessageDescriptor,
        at: &At<'_>,
    ) -> DynamicMessage {
        let spelled_out = matches!(self.tree.content(node), Content::Map(_));
        match desc.full_name() {
            "google.protobuf.Value" => self.any_value(node, desc, at),
            "google.protobuf.Struct" => self.structure(node, desc, at),
            _ if spelled_out => self.fields_of(node, desc, at, &[]),
            "google.protobuf.ListValue" => self.list_value(node, desc, at),
            "google.protobuf.Duration" => self.time(node, desc, at, |text| {
                wkt::duration(text)
                    .map_err(|reason| format!("a duration {reason}, as \"0.25s\" does"))
            }),
            "google.protobuf.Timestamp" => self.time(node, desc, at, |text| {
                wkt::timestamp(text)
                    .ok_or_else(|| "not a time such as \"2026-01-31T12:00:00Z\"".into())
            }),
            "google.protobuf.FieldMask" => self.field_mask(node, desc, at),
            name => {
                let wrapped = desc.get_field(1).filter(|_| is_wrapper(name));
                let Some(field) = wrapped else {
                    return self.fields_of(node, desc, at, &[]);
                };
                let mut message = DynamicMessage::new(desc.clone());
                if let Some(value) = self.singular(node, &field, at) {
                    message.set_field(&field, value);
                }
                message
            }
        }
    }

    fn time(
        &mut self,
        node: NodeId,
        desc: &MessageDescriptor,
        at: &At<'_>,
        read: impl Fn(&str) -> Result<(i64, i32), String>,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(desc.clone());
        let Some(Guess::Text(text)) = self.guess(node) else {
            let example = if desc.name() == "Duration" {
                "0.25s"
            } else {
                "2026-01-31T12:00:00Z"
            };
            self.wrong_type(node, at, &format!("text such as {example:?}"));
            return message;
        };
        match read(&text) {
            Ok((seconds, nanos)) => {
                message.set_field_by_number(1, Value::I64(seconds));
                message.set_field_by_number(2, Value::I32(nanos));
            }
            Err(reason) => self.problem(ProblemKind::WrongType, at, self.position(node), reason),
        }
        message
    }

    fn field_mask(
        &mut self,
        node: NodeId,
        desc: &MessageDescriptor,
        at: &At<'_>,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(desc.clone());
        let Some(Guess::Text(text)) = self.guess(node) else {
            self.wrong_type(node, at, "text with field names between commas");
            return message;
        };
        let paths = text.split(',').filter(|path| !path.is_empty()).map(|path| {
            let snake = |c: char| match c.is_ascii_uppercase() {
                true => ['_', c.to_ascii_lowercase()].iter().collect::<String>(),
                false => c.to_string(),
            };
            Value::String(path.chars().map(snake).collect())
        });
        message.set_field_by_number(1, Value::List(paths.collect()));
        message
    }

    fn enumeration(&mut self, node: NodeId, desc: &EnumDescriptor, at: &At<'_>) -> Option<Value> {
        let text = match self.guess(node) {
            Some(Guess::Int(number)) => return Some(Value::EnumNumber(number)),
            Some(Guess::Text(text)) => text,
            _ => {
                self.wrong_type(node, at, &format!("one of {}", names(desc)));
                return None;
            }
        };
        let found = desc.get_value_by_name(&text).or_else(|| {
            desc.values()
                .find(|value| value.name().eq_ignore_ascii_case(&text))
        });
        let number = found
            .map(|value| value.number())
            .or_else(|| text.parse().ok());
        if number.is_none() {
            let reason = format!("{} is not one of {}", quoted(&text), names(desc));
            self.problem(ProblemKind::WrongEnum, at, self.position(node), reason);
        }
        number.map(Value::EnumNumber)
    }

    fn scalar(&mut self, node: NodeId, kind: &Kind, at: &At<'_>) -> Option<Value> {
        let value = self.guess(node).and_then(|guess| match kind {
            Kind::Bool => bool_of(&guess),
            Kind::Double => float_of(&guess).map(Value::F64),
            Kind::Float => {
                let number = float_of(&guess)?;
                let narrow = number as f32;
                (number.is_finite() == narrow.is_finite()).then_some(Value::F32(narrow))
            }
            Kind::String => match guess {
                Guess::Text(text) => Some(Value::String(text.into_owned())),
                _ => None,
            },
            Kind::Bytes => match guess {
                Guess::Text(text) => wkt::base64(&text).map(|bytes| Value::Bytes(bytes.into())),
                _ => None,
            },
            _ => integer_of(integer(&guess)?, kind),
        });
        if value.is_none() {
            let hint = match (kind, self.guess(node)) {
                (Kind::String, Some(Guess::Int(_) | Guess::Bool(_))) => " (put it in quotes)",
                _ => "",
            };
            self.wrong_type(node, at, &format!("{}{hint}", expected(kind)));
        }
        value
    }

    fn unknown_field(&mut self, entry: &Entry, desc: &MessageDescriptor, at: &At<'_>) {
        let here = at.field(&entry.key);
        let reason = if entry.key.as_ref() == "<<" {
            "merge keys (<<) are not part of Envoy's language".to_owned()
        } else if desc.reserved_names().any(|name| name == &*entry.key) {
            format!("{} has this field no longer", desc.full_name())
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

fn is_wrapper(name: &str) -> bool {
    name.strip_prefix("google.protobuf.").is_some_and(|rest| {
        [
            "Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes",
        ]
        .iter()
        .any(|kind| rest.strip_suffix("Value") == Some(kind))
    })
}

fn holds_lists(kind: &Kind) -> bool {
    matches!(kind, Kind::Message(desc)
        if matches!(desc.full_name(), "google.protobuf.Value" | "google.protobuf.ListValue"))
}

fn names(desc: &EnumDescriptor) -> String {
    let names: Vec<_> = desc.values().map(|value| value.name().to_owned()).collect();
    names.join(", ")
}

fn bool_of(guess: &Guess<'_>) -> Option<Value> {
    match guess {
        Guess::Bool(value) => Some(Value::Bool(*value)),
        Guess::Text(text) => quoted_bool(text).map(Value::Bool),
        _ => None,
    }
}

fn float_of(guess: &Guess<'_>) -> Option<f64> {
    match guess {
        Guess::Int(number) => Some((*number).into()),
        Guess::Text(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text_float(text),
        },
        _ => None,
    }
}

fn integer(guess: &Guess<'_>) -> Option<i128> {
    match guess {
        Guess::Int(number) => Some((*number).into()),
        Guess::Text(text) => text_integer(text),
        _ => None,
    }
}

fn integer_of(number: i128, kind: &Kind) -> Option<Value> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => number.try_into().ok().map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => number.try_into().ok().map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => number.try_into().ok().map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => number.try_into().ok().map(Value::U64),
        _ => None,
    }
}

fn map_key(text: &str, kind: &Kind) -> Option<MapKey> {
    match kind {
        Kind::String => Some(MapKey::String(text.to_owned())),
        Kind::Bool => text.parse().ok().map(MapKey::Bool),
        kind => integer_of(text.parse().ok()?, kind)?.into_map_key(),
    }
}

fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::String => "text".to_owned(),
        Kind::Bytes => "text in base64".to_owned(),
        Kind::Float | Kind::Double => "a number".to_owned(),
        Kind::Uint32 | Kind::Fixed32 => format!("an integer from 0 to {}", u32::MAX),
        Kind::Uint64 | Kind::Fixed64 => format!("an integer from 0 to {}", u64::MAX),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "an integer of 32 bits".to_owned(),
        _ => "an integer of 64 bits".to_owned(),
    }
}
