//! Whether a message keeps the rules of its protos, in nested `Any`s too.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};

use super::error::{Problem, ProblemKind, Problems};
use super::facts::FieldFacts;
use super::path::At;
use super::pool::Language;
use super::rules::{Objection, nanoseconds};
use super::visit::{Visitor, Walk, visit};
use super::wkt::DURATION_SECONDS_MAX;

/// Pushes every broken rule into `problems`.
pub(crate) fn validate(language: &Language, message: &DynamicMessage, problems: &mut Problems) {
    visit(language, message, &mut Validator { language, problems });
}

struct Validator<'a> {
    language: &'a Language,
    problems: &'a mut Problems,
}

impl Visitor for Validator<'_> {
    fn message(&mut self, at: &At<'_>, message: &DynamicMessage) -> Walk {
        let facts = self.language.facts(&message.descriptor());
        if facts.unruled {
            return Walk::Into;
        }
        for facts in &facts.fields {
            self.check(at, message, facts);
        }
        for (name, members) in &facts.required_oneofs {
            if !members.iter().any(|member| message.has_field(member)) {
                let names: Vec<_> = members.iter().map(FieldDescriptor::name).collect();
                self.broken(
                    at,
                    format!("one of {} must be set ({name})", names.join(", ")),
                );
            }
        }
        Walk::Into
    }

    fn field(
        &mut self,
        at: &At<'_>,
        message: &DynamicMessage,
        field: &FieldDescriptor,
        value: &Value,
    ) -> Walk {
        if field.full_name() == super::OPAQUE_FIELD {
            return Walk::Past;
        }
        match value {
            Value::Message(inner) => self.duration(at, inner),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Message(inner) = item {
                        self.duration(&at.index(index), inner);
                    }
                }
            }
            _ => {}
        }
        let facts = self.language.facts(&message.descriptor());
        let skipped = facts
            .field(field.number())
            .is_some_and(|facts| facts.rule.skips_items());
        if skipped { Walk::Past } else { Walk::Into }
    }
}

impl Validator<'_> {
    fn check(&mut self, at: &At<'_>, message: &DynamicMessage, facts: &FieldFacts) {
        let (field, rule) = (&facts.field, &facts.rule);
        let here = at.field(field.name());
        let set = message.has_field(field);
        // A member of a oneof is asked for only by the oneof.
        if rule.required && !set && field.containing_oneof().is_none() {
            return self.broken(&here, "must be set".to_owned());
        }
        if facts.refused && set {
            return self.broken(&here, "is retired and refused by default".to_owned());
        }
        // Fields with presence and rules are checked when set; others always, for zero is a value.
        if field.supports_presence() && !set {
            return;
        }
        if !rule.checks_values() && facts.refused_numbers.is_empty() {
            return;
        }
        let value = message.get_field(field);
        rule.objections(&value, &mut |objection| match objection {
            Objection::Whole(reason) => self.broken(&here, reason),
            Objection::Item(index, reason) => self.broken(&here.index(index), reason),
            Objection::Key(key, reason) => self.broken(&here.key(&key), reason),
        });
        self.enumeration(&here, facts, &value);
    }

    fn enumeration(&mut self, at: &At<'_>, facts: &FieldFacts, value: &Value) {
        let kind = match (facts.field.kind(), value) {
            (Kind::Message(pair), Value::Map(_)) if pair.is_map_entry() => {
                pair.map_entry_value_field().kind()
            }
            (kind, _) => kind,
        };
        let Kind::Enum(names) = kind else { return };
        let mut check = |at: &At<'_>, value: &Value| {
            let Some(number) = value.as_enum_number() else {
                return;
            };
            if facts.rule.defined_only() && names.get_value(number).is_none() {
                let known: Vec<_> = names
                    .values()
                    .map(|value| value.name().to_owned())
                    .collect();
                self.broken(
                    at,
                    format!("{number} is not the number of any of {}", known.join(", ")),
                );
            }
            if facts.refused_numbers.contains(&number) {
                self.broken(at, "is retired and refused by default".to_owned());
            }
        };
        match value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    check(&at.index(index), item);
                }
            }
            Value::Map(entries) => entries.values().for_each(|value| check(at, value)),
            value => check(at, value),
        }
    }

    /// Envoy has no use for negative durations, whatever the field.
    fn duration(&mut self, at: &At<'_>, message: &DynamicMessage) {
        if message.descriptor().full_name() != "google.protobuf.Duration" {
            return;
        }
        let nanoseconds = nanoseconds(message);
        if nanoseconds < 0 {
            self.broken(at, "a duration must not be negative".to_owned());
        } else if nanoseconds > i128::from(DURATION_SECONDS_MAX) * 1_000_000_000 {
            self.broken(
                at,
                format!("a duration must be at most {DURATION_SECONDS_MAX}s"),
            );
        }
    }

    fn broken(&mut self, at: &At<'_>, reason: String) {
        self.problems.push(Problem {
            kind: ProblemKind::BrokenRule,
            path: at.to_string(),
            position: None,
            reason,
        });
    }
}
