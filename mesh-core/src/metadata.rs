use std::{collections::BTreeMap, fmt, fmt::Write as _};

/// What a config states about a route, a cluster or an endpoint, for whoever knows the namespace.
///
/// # Envoy
/// `core.v3.Metadata.filter_metadata`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(BTreeMap<Box<str>, MetadataValue>);

/// Any JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(Box<str>),
    /// A list.
    List(Vec<Self>),
    /// An object; its keys are sorted.
    Struct(BTreeMap<Box<str>, Self>),
}

impl Metadata {
    /// By namespace, each an object.
    #[must_use]
    pub const fn new(namespaces: BTreeMap<Box<str>, MetadataValue>) -> Self {
        Self(namespaces)
    }

    /// What stands at the end of a path: a namespace, then a key of each object on the way.
    #[must_use]
    pub fn get<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&MetadataValue> {
        let mut path = path.into_iter();
        let namespace = self.0.get(path.next()?)?;
        path.try_fold(namespace, |value, key| match value {
            MetadataValue::Struct(fields) => fields.get(key),
            _ => None,
        })
    }
}

/// As JSON.
impl fmt::Display for MetadataValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) if value.is_finite() => write!(f, "{value}"),
            Self::Number(_) => f.write_str("null"),
            Self::Text(text) => string(f, text),
            Self::List(items) => {
                f.write_char('[')?;
                separated(f, items, |f, item| write!(f, "{item}"))?;
                f.write_char(']')
            }
            Self::Struct(fields) => {
                f.write_char('{')?;
                separated(f, fields, |f, (key, value)| {
                    string(f, key)?;
                    write!(f, ":{value}")
                })?;
                f.write_char('}')
            }
        }
    }
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            f.write_char(',')?;
        }
        write(f, item)?;
    }
    Ok(())
}

fn string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Metadata, MetadataValue as V};

    #[test]
    fn a_path_leads_to_a_value_which_prints_as_json() {
        let list = V::List(vec![
            V::Number(1.0),
            V::Bool(true),
            V::Null,
            V::Text("a\"\n".into()),
        ]);
        let inner = V::Struct(BTreeMap::from([("list".into(), list)]));
        let outer = V::Struct(BTreeMap::from([("in".into(), inner)]));
        let metadata = Metadata::new(BTreeMap::from([("ns".into(), outer)]));
        let at = |path: &str| metadata.get(path.split(':')).map(ToString::to_string);
        let list = r#"[1,true,null,"a\"\u000a"]"#;
        assert_eq!(at("ns:in:list").as_deref(), Some(list));
        assert_eq!(at("ns:in"), Some(format!("{{\"list\":{list}}}")));
        for nothing in ["other", "ns:out", "ns:in:list:0", ""] {
            assert_eq!(at(nothing), None, "{nothing}");
        }
    }
}
