//! Single values: scalars, enums, and the short forms of the well-known types.

use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::decode::Decoder;
use super::error::{ProblemKind, quoted};
use super::path::At;
use super::scalar::{Guess, quoted_bool, text_float, text_integer};
use super::tree::{Content, NodeId};
use super::wkt;

impl Decoder<'_> {
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

    pub(super) fn enumeration(
        &mut self,
        node: NodeId,
        desc: &EnumDescriptor,
        at: &At<'_>,
    ) -> Option<Value> {
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

    pub(super) fn scalar(&mut self, node: NodeId, kind: &Kind, at: &At<'_>) -> Option<Value> {
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

pub(super) fn map_key(text: &str, kind: &Kind) -> Option<MapKey> {
    match kind {
        Kind::String => Some(MapKey::String(text.to_owned())),
        Kind::Bool => text.parse().ok().map(MapKey::Bool),
        kind => integer_of(text.parse().ok()?, kind)?.into_map_key(),
    }
}

pub(super) fn expected(kind: &Kind) -> String {
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
