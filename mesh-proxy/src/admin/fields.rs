//! Field masks over JSON: only some of its fields.

use serde_json::{Map, Value};

/// The fields of `value` at `paths`, each `a.b.c`; `None` when there is none of them.
pub(super) fn apply(value: &Value, paths: &[&str]) -> Option<Value> {
    let mut out = Map::new();
    for path in paths {
        let steps: Vec<&str> = path.split('.').map(str::trim).collect();
        copy(value, &steps, &mut out);
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn copy(from: &Value, path: &[&str], into: &mut Map<String, Value>) {
    let Some((step, rest)) = path.split_first() else {
        return;
    };
    let Some(found) = from.get(step) else {
        return;
    };
    if rest.is_empty() {
        into.insert((*step).to_owned(), found.clone());
        return;
    }
    let mut inner = match into.remove(*step) {
        Some(Value::Object(inner)) => inner,
        _ => Map::new(),
    };
    copy(found, rest, &mut inner);
    if !inner.is_empty() {
        if let Some(name) = found.get("@type") {
            inner.insert("@type".to_owned(), name.clone());
        }
        into.insert((*step).to_owned(), Value::Object(inner));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::apply;

    #[test]
    fn only_what_is_asked_for_is_left() {
        let value = json!({"a": {"@type": "t", "b": 1, "c": {"d": 2}, "e": 3}, "f": 4});
        let paths = ["a.b", "a.c.d"];
        let wanted = json!({"a": {"b": 1, "c": {"d": 2}, "@type": "t"}});
        assert_eq!(apply(&value, &paths), Some(wanted));
        assert_eq!(apply(&value, &["f"]), Some(json!({"f": 4})));
        assert_eq!(apply(&value, &["a.x", "f.y"]), None);
    }
}
