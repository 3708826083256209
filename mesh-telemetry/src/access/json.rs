use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use mesh_core::{
    Facts,
    format::{Format, FormatContext, Value},
};

use crate::escape::json_string;

/// How deep a template may nest; a deeper one is refused.
pub const JSON_DEPTH_MAX: usize = 32;

thread_local! {
    /// Memory for one value at a time, used again for the next.
    static SCRATCH: Cell<String> = const { Cell::new(String::new()) };
}

/// What a JSON log line is made of: any JSON, whose strings are format strings.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonTemplate {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A format string.
    String(String),
    /// A list.
    List(Vec<Self>),
    /// An object; keys come out sorted.
    Object(BTreeMap<String, Self>),
}

/// A compiled template: one JSON object per line.
///
/// A string that is a single operator which counts or measures becomes a number, and `null` when it is
/// unset; every other becomes a string. With `omit_empty_values`, what would be `null` is left out, and
/// so are objects in which nothing is left.
///
/// # Envoy
/// `SubstitutionFormatString.json_format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonFormat {
    root: Node,
    omit_empty: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Null,
    /// JSON that never changes.
    Text(Box<str>),
    Format(Format),
    List(Vec<Self>),
    /// Keys are written ahead, with quotes and colon.
    Object(Vec<(Box<str>, Self)>),
}

impl JsonFormat {
    /// Compiles an object.
    ///
    /// # Errors
    /// When a string of it is not a format string, or it nests deeper than [`JSON_DEPTH_MAX`].
    pub fn new(
        template: &BTreeMap<String, JsonTemplate>,
        omit_empty_values: bool,
    ) -> Result<Self, InvalidJsonFormat> {
        Ok(Self {
            root: object(template, omit_empty_values, JSON_DEPTH_MAX)?,
            omit_empty: omit_empty_values,
        })
    }

    /// Appends one line.
    pub fn write_with(&self, context: &FormatContext<'_>, facts: &Facts, out: &mut String) {
        let mut scratch = SCRATCH.take();
        let before = out.len();
        if !self.node(&self.root, context, facts, &mut scratch, out) {
            out.truncate(before);
            out.push_str("{}");
        }
        SCRATCH.set(scratch);
        out.push('\n');
    }

    /// Appends a value; says whether there was one.
    fn node(
        &self,
        node: &Node,
        context: &FormatContext<'_>,
        facts: &Facts,
        scratch: &mut String,
        out: &mut String,
    ) -> bool {
        match node {
            Node::Null if self.omit_empty => return false,
            Node::Null => out.push_str("null"),
            Node::Text(text) => out.push_str(text),
            Node::Format(format) => match format.value_with(context, facts, scratch) {
                Value::Unset if self.omit_empty => return false,
                Value::Unset => out.push_str("null"),
                Value::Number(number) => {
                    // Writing into a string does not fail.
                    let _ = write!(out, "{number}");
                }
                Value::Json(json) => out.push_str(json),
                Value::Text(text) => json_string(out, text),
            },
            Node::List(nodes) => {
                let items = nodes.iter().map(|node| ("", node));
                self.items(items, ['[', ']'], context, facts, scratch, out);
            }
            Node::Object(fields) => {
                let items = fields.iter().map(|(key, node)| (key.as_ref(), node));
                let any = self.items(items, ['{', '}'], context, facts, scratch, out);
                return any || !self.omit_empty;
            }
        }
        true
    }

    /// Appends a list or an object; says whether there is anything in it.
    fn items<'a>(
        &self,
        items: impl Iterator<Item = (&'a str, &'a Node)>,
        [open, close]: [char; 2],
        context: &FormatContext<'_>,
        facts: &Facts,
        scratch: &mut String,
        out: &mut String,
    ) -> bool {
        out.push(open);
        let mut first = true;
        for (key, node) in items {
            let before = out.len();
            if !first {
                out.push(',');
            }
            out.push_str(key);
            if self.node(node, context, facts, scratch, out) {
                first = false;
            } else {
                out.truncate(before);
            }
        }
        out.push(close);
        !first
    }

    pub(super) fn for_each(&self, f: &mut impl FnMut(&Format)) {
        self.root.for_each(f);
    }

    pub(super) fn for_each_mut(&mut self, f: &mut impl FnMut(&mut Format)) {
        self.root.for_each_mut(f);
    }
}

fn object(
    fields: &BTreeMap<String, JsonTemplate>,
    omit: bool,
    depth: usize,
) -> Result<Node, InvalidJsonFormat> {
    let fields = fields.iter().map(|(key, value)| {
        let mut text = String::new();
        json_string(&mut text, key);
        text.push(':');
        let node = compile(value, omit, depth).map_err(|error| error.within(key))?;
        Ok((text.into(), node))
    });
    fields.collect::<Result<_, _>>().map(Node::Object)
}

fn compile(template: &JsonTemplate, omit: bool, depth: usize) -> Result<Node, InvalidJsonFormat> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(InvalidJsonFormat::new(format!(
            "nested deeper than {JSON_DEPTH_MAX}"
        )));
    };
    Ok(match template {
        JsonTemplate::Null => Node::Null,
        JsonTemplate::Bool(value) => Node::Text(value.to_string().into()),
        JsonTemplate::Number(value) if value.is_finite() => Node::Text(value.to_string().into()),
        JsonTemplate::Number(_) => Node::Null,
        JsonTemplate::String(text) => {
            let format = Format::parse(text).map_err(|e| InvalidJsonFormat::new(e.to_string()))?;
            Node::Format(format.omit_empty_values(omit))
        }
        JsonTemplate::List(items) => {
            let items = items.iter().enumerate().map(|(i, item)| {
                compile(item, omit, depth).map_err(|error| error.within(&i.to_string()))
            });
            Node::List(items.collect::<Result<_, _>>()?)
        }
        JsonTemplate::Object(fields) => object(fields, omit, depth)?,
    })
}

/// A template that cannot be compiled, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidJsonFormat {
    path: String,
    reason: String,
}

impl InvalidJsonFormat {
    const fn new(reason: String) -> Self {
        Self {
            path: String::new(),
            reason,
        }
    }

    fn within(mut self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.path = format!("{key}{dot}{}", self.path);
        self
    }

    /// The keys that lead to the fault, joined by dots.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for InvalidJsonFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for InvalidJsonFormat {}

impl Node {
    fn for_each(&self, f: &mut impl FnMut(&Format)) {
        match self {
            Self::Null | Self::Text(_) => {}
            Self::Format(format) => f(format),
            Self::List(nodes) => nodes.iter().for_each(|node| node.for_each(f)),
            Self::Object(fields) => fields.iter().for_each(|(_, node)| node.for_each(f)),
        }
    }

    fn for_each_mut(&mut self, f: &mut impl FnMut(&mut Format)) {
        match self {
            Self::Null | Self::Text(_) => {}
            Self::Format(format) => f(format),
            Self::List(nodes) => nodes.iter_mut().for_each(|node| node.for_each_mut(f)),
            Self::Object(fields) => fields.iter_mut().for_each(|(_, node)| node.for_each_mut(f)),
        }
    }
}
