//! The rules that the protos themselves carry (`[(validate.rules) = …]`).

mod bounds;
mod text;

use prost_reflect::{DynamicMessage, MapKey, Value};

use bounds::Bounds;
use text::TextRule;

/// The rule of one field, of the items of a list, or of the keys or values of a map.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    /// A message must be set.
    pub(crate) required: bool,
    /// Nothing inside the message is checked.
    pub(crate) skip: bool,
    check: Check,
}

#[derive(Debug, Default)]
enum Check {
    #[default]
    Nothing,
    Bool(bool),
    Integer(Bounds<i128>),
    Float(Bounds<f64>),
    /// Nanoseconds.
    Duration(Bounds<i128>),
    Text(Box<TextRule>),
    Bytes(Bounds<i128>),
    Enum(EnumRule),
    List(Box<ListRule>),
    Map(Box<MapRule>),
    Any(AnyRule),
}

#[derive(Debug, Default)]
struct EnumRule {
    defined_only: bool,
    numbers: Bounds<i128>,
}

#[derive(Debug, Default)]
struct ListRule {
    items: Bounds<i128>,
    unique: bool,
    item: Rule,
}

#[derive(Debug, Default)]
struct MapRule {
    pairs: Bounds<i128>,
    key: Rule,
    value: Rule,
}

#[derive(Debug, Default)]
struct AnyRule {
    among: Vec<String>,
    not_among: Vec<String>,
}

/// Something a rule objects to, below the value it was asked about.
pub(crate) enum Objection {
    Whole(String),
    Item(usize, String),
    Key(String, String),
}

impl Rule {
    /// Reads a `validate.FieldRules`; what it cannot read is named in `not_understood`.
    pub(crate) fn of(rules: &DynamicMessage, not_understood: &mut Vec<String>) -> Self {
        let mut rule = Self::default();
        for (field, value) in rules.fields() {
            let Some(inner) = value.as_message() else {
                continue;
            };
            rule.read(field.name(), inner, not_understood);
        }
        rule
    }

    fn read(&mut self, kind: &str, rules: &DynamicMessage, not_understood: &mut Vec<String>) {
        let mut check = match kind {
            "message" => Check::Nothing,
            "bool" => Check::Bool(false),
            "float" | "double" => Check::Float(Bounds::default()),
            "duration" => Check::Duration(Bounds::default()),
            "string" => Check::Text(Box::default()),
            "bytes" => Check::Bytes(Bounds::default()),
            "enum" => Check::Enum(EnumRule::default()),
            "repeated" => Check::List(Box::default()),
            "map" => Check::Map(Box::default()),
            "any" => Check::Any(AnyRule::default()),
            "timestamp" => {
                not_understood.push(kind.to_owned());
                Check::Nothing
            }
            _ => Check::Integer(Bounds::default()),
        };
        for (field, value) in rules.fields() {
            let name = field.name();
            let understood = match (&mut check, name) {
                (_, "required") => set(&mut self.required, value),
                (Check::Nothing, "skip") => set(&mut self.skip, value),
                (Check::Bool(expected), "const") => {
                    *expected = value.as_bool().unwrap_or_default();
                    true
                }
                (Check::Integer(bounds) | Check::Duration(bounds), _) => bounds.read(name, value),
                (Check::Float(bounds), _) => bounds.read(name, value),
                (Check::Text(text), _) => text.read(name, value),
                (Check::Bytes(length), _) => length.read_length(name, value),
                (Check::Enum(rule), "defined_only") => set(&mut rule.defined_only, value),
                (Check::Enum(rule), _) => rule.numbers.read(name, value),
                (Check::List(rule), _) => rule.read(name, value, not_understood),
                (Check::Map(rule), _) => rule.read(name, value, not_understood),
                (Check::Any(rule), _) => rule.read(name, value),
                _ => false,
            };
            if !understood {
                not_understood.push(format!("{kind}.{name}"));
            }
        }
        if !matches!(check, Check::Nothing) {
            self.check = check;
        }
    }

    /// Whether it asks for nothing.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        !self.required && !self.skip && matches!(self.check, Check::Nothing)
    }

    /// Whether it has a word on values, and not only on whether they are there.
    pub(crate) fn checks_values(&self) -> bool {
        !matches!(self.check, Check::Nothing)
    }

    /// What the rule has against a value. Messages inside are not looked into, save for the
    /// well-known ones that a rule is about.
    pub(crate) fn objections(&self, value: &Value, object: &mut dyn FnMut(Objection)) {
        match (&self.check, value) {
            (Check::List(rule), Value::List(items)) => rule.objections(items, object),
            (Check::Map(rule), Value::Map(entries)) => {
                if let Some(reason) = rule.pairs.objection(entries.len() as i128, "entries") {
                    object(Objection::Whole(reason));
                }
                for (key, value) in entries {
                    let name = key_text(key);
                    let reason = rule
                        .key
                        .objection(&key_value(key))
                        .map(|r| format!("the key {r}"));
                    for reason in reason.into_iter().chain(rule.value.objection(value)) {
                        object(Objection::Key(name.clone(), reason));
                    }
                }
            }
            _ => {
                if let Some(reason) = self.objection(value) {
                    object(Objection::Whole(reason));
                }
            }
        }
    }

    /// The first objection to a single value.
    fn objection(&self, value: &Value) -> Option<String> {
        match &self.check {
            Check::Nothing | Check::List(_) | Check::Map(_) => None,
            Check::Bool(expected) => {
                let value = unwrap(value);
                (value.as_bool()? != *expected).then(|| format!("must be {expected}"))
            }
            Check::Integer(bounds) => bounds.objection(integer(&unwrap(value))?, ""),
            Check::Float(bounds) => bounds.objection(float(&unwrap(value))?, ""),
            Check::Duration(bounds) => bounds.duration_objection(nanoseconds(value.as_message()?)),
            Check::Text(rule) => rule.objection(unwrap(value).as_str()?),
            Check::Bytes(length) => {
                length.objection(unwrap(value).as_bytes()?.len() as i128, "bytes long")
            }
            // Whether a number is defined only its field knows: see `defined_only`.
            Check::Enum(rule) => rule.numbers.objection(value.as_enum_number()?.into(), ""),
            Check::Any(rule) => rule.objection(value.as_message()?),
        }
    }

    /// Whether the enum value, the items or the map values must be defined ones.
    pub(crate) fn defined_only(&self) -> bool {
        match &self.check {
            Check::Enum(rule) => rule.defined_only,
            Check::List(rule) => rule.item.defined_only(),
            Check::Map(rule) => rule.value.defined_only(),
            _ => false,
        }
    }

    /// Whether the messages in this list or map are not to be looked into.
    pub(crate) fn skips_items(&self) -> bool {
        match &self.check {
            Check::List(rule) => rule.item.skip,
            Check::Map(rule) => rule.value.skip,
            _ => self.skip,
        }
    }
}

impl ListRule {
    fn read(&mut self, name: &str, value: &Value, not_understood: &mut Vec<String>) -> bool {
        match (name, value) {
            ("unique", value) => set(&mut self.unique, value),
            ("items", Value::Message(rules)) => {
                self.item = Rule::of(rules, not_understood);
                true
            }
            _ => self.items.read_count(name, value),
        }
    }

    fn objections(&self, items: &[Value], object: &mut dyn FnMut(Objection)) {
        if let Some(reason) = self.items.objection(items.len() as i128, "items") {
            object(Objection::Whole(reason));
        }
        for (index, item) in items.iter().enumerate() {
            if let Some(reason) = self.item.objection(item) {
                object(Objection::Item(index, reason));
            }
        }
        if self.unique {
            let mut seen = std::collections::HashSet::new();
            for (index, item) in items.iter().enumerate() {
                // Only scalars carry this rule; their debug form tells them apart.
                if !seen.insert(format!("{item:?}")) {
                    object(Objection::Item(
                        index,
                        "must not repeat an earlier item".into(),
                    ));
                }
            }
        }
    }
}

impl MapRule {
    fn read(&mut self, name: &str, value: &Value, not_understood: &mut Vec<String>) -> bool {
        match (name, value) {
            ("keys", Value::Message(rules)) => {
                self.key = Rule::of(rules, not_understood);
                true
            }
            ("values", Value::Message(rules)) => {
                self.value = Rule::of(rules, not_understood);
                true
            }
            _ => self.pairs.read_count(name, value),
        }
    }
}

impl AnyRule {
    fn read(&mut self, name: &str, value: &Value) -> bool {
        let list = match name {
            "in" => &mut self.among,
            "not_in" => &mut self.not_among,
            _ => return false,
        };
        *list = value
            .as_list()
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        true
    }

    fn objection(&self, any: &DynamicMessage) -> Option<String> {
        let url = any.get_field_by_name("type_url")?;
        let url = url.as_str()?;
        if !self.among.is_empty() && !self.among.iter().any(|other| other == url) {
            return Some(format!("its type must be one of {}", self.among.join(", ")));
        }
        let excluded = self.not_among.iter().any(|other| other == url);
        excluded.then(|| format!("its type must not be any of {}", self.not_among.join(", ")))
    }
}

fn set(flag: &mut bool, value: &Value) -> bool {
    *flag = value.as_bool().unwrap_or_default();
    true
}

/// The value inside a wrapper such as `google.protobuf.UInt32Value`, or the value itself.
fn unwrap(value: &Value) -> std::borrow::Cow<'_, Value> {
    match value {
        Value::Message(wrapper) => wrapper
            .get_field_by_number(1)
            .unwrap_or(std::borrow::Cow::Borrowed(value)),
        _ => std::borrow::Cow::Borrowed(value),
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::I32(number) => Some((*number).into()),
        Value::I64(number) => Some((*number).into()),
        Value::U32(number) => Some((*number).into()),
        Value::U64(number) => Some((*number).into()),
        Value::EnumNumber(number) => Some((*number).into()),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::F32(number) => Some((*number).into()),
        Value::F64(number) => Some(*number),
        _ => None,
    }
}

/// All of a `google.protobuf.Duration`.
pub(crate) fn nanoseconds(duration: &DynamicMessage) -> i128 {
    let part = |number| {
        let value = duration.get_field_by_number(number);
        value.and_then(|value| integer(&value)).unwrap_or_default()
    };
    part(1) * 1_000_000_000 + part(2)
}

/// A map key as text.
pub(crate) fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
        MapKey::String(value) => value.clone(),
    }
}

fn key_value(key: &MapKey) -> Value {
    match key {
        MapKey::Bool(value) => Value::Bool(*value),
        MapKey::I32(value) => Value::I32(*value),
        MapKey::I64(value) => Value::I64(*value),
        MapKey::U32(value) => Value::U32(*value),
        MapKey::U64(value) => Value::U64(*value),
        MapKey::String(value) => Value::String(value.clone()),
    }
}
