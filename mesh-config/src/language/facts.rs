//! What the protos say about a message beyond its shape: rules, secrecy, retirement.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::rules::Rule;

/// The facts of one message type.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Its rules do not apply.
    pub(crate) unruled: bool,
    /// By field number, ascending.
    pub(crate) fields: Vec<FieldFacts>,
    /// Names of the oneofs of which a member must be set, each with the names of the members.
    pub(crate) required_oneofs: Vec<(String, Vec<FieldDescriptor>)>,
    /// Rules that are written in the protos and not understood here; a test keeps this empty.
    pub(crate) not_understood: Vec<String>,
}

/// The facts of one field.
#[derive(Debug)]
pub(crate) struct FieldFacts {
    pub(crate) field: FieldDescriptor,
    pub(crate) rule: Rule,
    /// Never to be shown.
    pub(crate) sensitive: bool,
    /// Retired: Envoy refuses it by default.
    pub(crate) refused: bool,
    /// Retired numbers of its enum.
    pub(crate) refused_numbers: Vec<i32>,
}

impl Facts {
    pub(crate) fn of(message: &MessageDescriptor) -> Self {
        let options = message.options();
        let mut facts = Self {
            unruled: flag(&options, "validate.disabled") || flag(&options, "validate.ignored"),
            fields: Vec::new(),
            required_oneofs: Vec::new(),
            not_understood: Vec::new(),
        };
        for field in message.fields() {
            let of_field = FieldFacts::of(field, &mut facts.not_understood);
            facts.fields.push(of_field);
        }
        facts.fields.sort_by_key(|facts| facts.field.number());
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            if flag(&oneof.options(), "validate.required") {
                let members = oneof.fields().collect();
                facts
                    .required_oneofs
                    .push((oneof.name().to_owned(), members));
            }
        }
        facts
    }

    pub(crate) fn field(&self, number: u32) -> Option<&FieldFacts> {
        let found = self
            .fields
            .binary_search_by_key(&number, |facts| facts.field.number());
        found.ok().and_then(|index| self.fields.get(index))
    }
}

impl FieldFacts {
    fn of(field: FieldDescriptor, not_understood: &mut Vec<String>) -> Self {
        let options = field.options();
        let mut problems = Vec::new();
        let rule = extension(&options, "validate.rules")
            .and_then(|rules| {
                rules
                    .as_message()
                    .map(|rules| Rule::of(rules, &mut problems))
            })
            .unwrap_or_default();
        not_understood.extend(
            problems
                .into_iter()
                .map(|rule| format!("{}: {rule}", field.full_name())),
        );
        let refused_numbers = match field.kind() {
            Kind::Enum(values) => values
                .values()
                .filter(|value| {
                    flag(
                        &value.options(),
                        "envoy.annotations.disallowed_by_default_enum",
                    )
                })
                .map(|value| value.number())
                .collect(),
            _ => Vec::new(),
        };
        Self {
            sensitive: flag(&options, "udpa.annotations.sensitive"),
            refused: flag(&options, "envoy.annotations.disallowed_by_default"),
            refused_numbers,
            rule,
            field,
        }
    }
}

fn flag(options: &DynamicMessage, name: &str) -> bool {
    extension(options, name)
        .and_then(|value| value.as_bool())
        .unwrap_or_default()
}

fn extension(options: &DynamicMessage, name: &str) -> Option<Value> {
    options
        .extensions()
        .find(|(extension, _)| extension.full_name() == name)
        .map(|(_, value)| value.clone())
}

#[cfg(test)]
mod tests {
    use crate::language::Language;

    #[test]
    fn every_rule_in_the_descriptor_set_is_understood() {
        let language = Language::full();
        let mut rules = 0;
        for message in language.messages() {
            let facts = language.facts(&message);
            assert_eq!(
                facts.not_understood,
                Vec::<String>::new(),
                "{}",
                message.full_name()
            );
            rules += facts.fields.iter().filter(|f| !f.rule.is_empty()).count();
        }
        assert!(rules > 1_000, "only {rules} rules survived the pruning");
    }

    #[test]
    fn secrets_and_retired_fields_are_marked() {
        let language = Language::full();
        let facts = |name| language.facts(&language.message(name).expect("known"));
        let certificate = facts("envoy.extensions.transport_sockets.tls.v3.TlsCertificate");
        assert!(certificate.field(2).is_some_and(|key| key.sensitive));
        assert!(certificate.field(1).is_some_and(|chain| !chain.sensitive));
        let refused = language
            .messages()
            .flat_map(|message| {
                language
                    .facts(&message)
                    .fields
                    .iter()
                    .map(|f| f.refused)
                    .collect::<Vec<_>>()
            })
            .filter(|refused| *refused)
            .count();
        assert!(refused >= 1);
    }
}
