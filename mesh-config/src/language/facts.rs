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
    /// Bytes that one takes in memory, in generated and in dynamic form; an estimate.
    pub(crate) bytes: usize,
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

/// Bytes of a dynamic message with a few fields: most of them a node of its tree of fields.
const DYNAMIC_BYTES: usize = 900;

/// Bytes of the generated struct of a message: messages in it lie in place, save where that would
/// never end.
fn generated_bytes(message: &MessageDescriptor, outer: &mut Vec<String>) -> usize {
    outer.push(message.full_name().to_owned());
    let mut field_bytes = |field: &FieldDescriptor| match field.kind() {
        _ if field.is_map() => 48,
        _ if field.is_list() => 24,
        Kind::Message(inner) if outer.iter().any(|name| name == inner.full_name()) => 8,
        Kind::Message(inner) => generated_bytes(&inner, outer),
        Kind::String | Kind::Bytes => 24,
        Kind::Bool => 1,
        Kind::Double | Kind::Int64 | Kind::Uint64 => 8,
        _ => 4,
    };
    let mut bytes = 8;
    for field in message
        .fields()
        .filter(|field| field.containing_oneof().is_none())
    {
        bytes += field_bytes(&field);
    }
    for oneof in message.oneofs() {
        bytes += oneof
            .fields()
            .map(|field| field_bytes(&field))
            .max()
            .unwrap_or_default();
    }
    outer.pop();
    bytes
}

impl Facts {
    pub(crate) fn of(message: &MessageDescriptor) -> Self {
        let options = message.options();
        let mut facts = Self {
            unruled: flag(&options, "validate.disabled") || flag(&options, "validate.ignored"),
            fields: Vec::new(),
            required_oneofs: Vec::new(),
            bytes: DYNAMIC_BYTES + generated_bytes(message, &mut Vec::new()),
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
    use super::generated_bytes;
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
    fn the_size_of_generated_structs_is_estimated_well() {
        use envoy_types::pb::envoy::config;
        let language = Language::full();
        for (name, bytes) in [
            (
                "bootstrap.v3.Bootstrap",
                size_of::<config::bootstrap::v3::Bootstrap>(),
            ),
            (
                "cluster.v3.Cluster",
                size_of::<config::cluster::v3::Cluster>(),
            ),
            (
                "listener.v3.Listener",
                size_of::<config::listener::v3::Listener>(),
            ),
            ("route.v3.Route", size_of::<config::route::v3::Route>()),
            (
                "endpoint.v3.LbEndpoint",
                size_of::<config::endpoint::v3::LbEndpoint>(),
            ),
        ] {
            let desc = language
                .message(&format!("envoy.config.{name}"))
                .expect("known");
            let estimate = generated_bytes(&desc, &mut Vec::new());
            assert!(
                estimate * 3 > bytes * 2 && estimate < bytes * 3 / 2,
                "{name}: {estimate} for {bytes}"
            );
        }
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
