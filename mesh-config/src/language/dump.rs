//! A message as JSON for people and for `/config_dump`: proto names, `Any` spelled out, no secrets.

use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, ReflectMessage, Value};
use serde_json::{Map, Value as Json, json};

use super::pool::Language;
use super::rules::key_text;
use super::visit::{AnyParts, VISIT_DEPTH_MAX};
use super::wkt::{duration_text, timestamp_text, to_base64};

/// What stands in place of a secret.
const REDACTED: &str = "[redacted]";

/// `message` as JSON. Fields that the protos mark as sensitive read `[redacted]`, as does all that
/// is inside them; an `Any` of a type that is not known here keeps its type and loses its value,
/// which might be one. Keys of maps are sorted, so equal messages give equal text.
pub fn to_json(language: &Language, message: &DynamicMessage) -> Json {
    Dumper { language }.message(message, false, 0)
}

/// Takes out of `message` what [`to_json`] redacts.
pub(super) fn leave_out_secrets(language: &Language, message: &mut DynamicMessage, depth: usize) {
    if depth > VISIT_DEPTH_MAX {
        message.clear();
        return;
    }
    if let Some(any) = AnyParts::of(message) {
        let inner = any.unpack(language).map(|mut inner| {
            leave_out_secrets(language, &mut inner, depth + 1);
            inner.encode_to_vec()
        });
        let bytes = Value::Bytes(inner.unwrap_or_default().into());
        message.set_field_by_number(2, bytes);
        return;
    }
    let facts = language.facts(&message.descriptor());
    let set: Vec<_> = message.fields().map(|(field, _)| field).collect();
    for field in set {
        let facts = facts.field(field.number());
        if facts.is_some_and(|facts| facts.sensitive) {
            message.clear_field(&field);
            continue;
        }
        let inside: Vec<&mut Value> = match message.get_field_mut(&field) {
            Value::List(list) => list.iter_mut().collect(),
            Value::Map(map) => map.values_mut().collect(),
            value => vec![value],
        };
        for value in inside {
            if let Value::Message(inner) = value {
                leave_out_secrets(language, inner, depth + 1);
            }
        }
    }
}

struct Dumper<'a> {
    language: &'a Language,
}

impl Dumper<'_> {
    fn message(&self, message: &DynamicMessage, secret: bool, depth: usize) -> Json {
        if depth > VISIT_DEPTH_MAX {
            return json!("[too deep]");
        }
        if let Some(any) = AnyParts::of(message) {
            return self.any(&any, secret, depth);
        }
        match self.short_form(message, secret, depth) {
            Some(json) => json,
            None => Json::Object(self.fields(message, secret, depth)),
        }
    }

    fn fields(&self, message: &DynamicMessage, secret: bool, depth: usize) -> Map<String, Json> {
        let facts = self.language.facts(&message.descriptor());
        let mut object = Map::new();
        for (field, value) in message.fields() {
            let secret = secret
                || facts
                    .field(field.number())
                    .is_some_and(|facts| facts.sensitive);
            let json = self.value(value, &field.kind(), secret, depth + 1);
            object.insert(field.name().to_owned(), json);
        }
        object
    }

    fn any(&self, any: &AnyParts, secret: bool, depth: usize) -> Json {
        let mut object = Map::new();
        if !any.type_url.is_empty() {
            object.insert("@type".to_owned(), json!(any.type_url));
        }
        match any.unpack(self.language) {
            Some(inner) => match self.short_form(&inner, secret, depth + 1) {
                Some(json) => {
                    object.insert("value".to_owned(), json);
                }
                None if AnyParts::of(&inner).is_some() => {
                    object.insert("value".to_owned(), self.message(&inner, secret, depth + 1));
                }
                None => object.extend(self.fields(&inner, secret, depth + 1)),
            },
            None if any.bytes.is_empty() => {}
            None => {
                object.insert("value".to_owned(), json!(REDACTED));
            }
        }
        Json::Object(object)
    }

    /// The form of well-known types that are not written as objects with their fields.
    fn short_form(&self, message: &DynamicMessage, secret: bool, depth: usize) -> Option<Json> {
        let desc = message.descriptor();
        let name = desc.full_name().strip_prefix("google.protobuf.")?;
        let number = |field| {
            let value = message.get_field_by_number(field);
            value
                .as_deref()
                .and_then(|v| v.as_i64().or_else(|| v.as_i32().map(i64::from)))
                .unwrap_or_default()
        };
        let nanos = || i32::try_from(number(2)).unwrap_or_default();
        Some(match name {
            "Duration" | "Timestamp" if secret => json!(REDACTED),
            "Duration" => json!(duration_text(number(1), nanos())),
            "Timestamp" => json!(timestamp_text(number(1), nanos())),
            "FieldMask" => {
                let paths = message.get_field_by_number(1)?;
                let paths: Vec<_> = paths.as_list()?.iter().filter_map(Value::as_str).collect();
                json!(paths.join(","))
            }
            "Value" => match message.fields().next() {
                Some((field, value)) => self.value(value, &field.kind(), secret, depth + 1),
                None => Json::Null,
            },
            "Struct" | "ListValue" => {
                let field = desc.get_field(1)?;
                self.value(&message.get_field(&field), &field.kind(), secret, depth + 1)
            }
            "Empty" | "Any" => return None,
            _ if name.ends_with("Value") => {
                let field = desc.get_field(1)?;
                self.value(&message.get_field(&field), &field.kind(), secret, depth + 1)
            }
            _ => return None,
        })
    }

    fn value(&self, value: &Value, kind: &Kind, secret: bool, depth: usize) -> Json {
        match value {
            Value::Message(inner) => self.message(inner, secret, depth),
            Value::List(items) => items
                .iter()
                .map(|item| self.value(item, kind, secret, depth))
                .collect(),
            Value::Map(entries) => {
                let kind = match kind {
                    Kind::Message(pair) if pair.is_map_entry() => {
                        pair.map_entry_value_field().kind()
                    }
                    other => other.clone(),
                };
                let mut entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| (key_text(key), value))
                    .collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                let value = |value| self.value(value, &kind, secret, depth);
                Json::Object(
                    entries
                        .into_iter()
                        .map(|(key, v)| (key, value(v)))
                        .collect(),
                )
            }
            Value::EnumNumber(_) if is_null(kind) => Json::Null,
            _ if secret => json!(REDACTED),
            Value::EnumNumber(number) => match kind {
                Kind::Enum(desc) => desc
                    .get_value(*number)
                    .map_or_else(|| json!(number), |value| json!(value.name())),
                _ => json!(number),
            },
            Value::Bool(value) => json!(value),
            Value::I32(number) => json!(number),
            Value::U32(number) => json!(number),
            // Numbers beyond 53 bits would not survive a JSON reader.
            Value::I64(number) => json!(number.to_string()),
            Value::U64(number) => json!(number.to_string()),
            Value::F32(number) => float(f64::from(*number)),
            Value::F64(number) => float(*number),
            Value::String(text) => json!(text),
            Value::Bytes(bytes) => json!(to_base64(bytes)),
        }
    }
}

fn is_null(kind: &Kind) -> bool {
    matches!(kind, Kind::Enum(desc) if desc.full_name() == "google.protobuf.NullValue")
}

fn float(number: f64) -> Json {
    if number.is_nan() {
        json!("NaN")
    } else if number.is_infinite() {
        json!(if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        })
    } else if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        json!(number as i64)
    } else {
        json!(number)
    }
}
