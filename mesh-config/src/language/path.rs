//! Where in a message something is.

use std::fmt;

/// A place in a message, as a chain of borrowed steps from the root.
///
/// Building one costs no allocation; it is printed only when something is wrong there.
///
/// ```
/// use mesh_config::language::At;
///
/// let root = At::root();
/// let listeners = root.field("listeners");
/// let first = listeners.index(0);
/// assert_eq!(first.field("name").to_string(), "listeners[0].name");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// The message as a whole.
    pub const fn root() -> Self {
        Self {
            parent: None,
            step: Step::Root,
        }
    }

    /// The field `name`, by its proto name.
    pub const fn field(&'a self, name: &'a str) -> Self {
        Self {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// The item of a list.
    pub const fn index(&'a self, index: usize) -> Self {
        Self {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// The value of a map.
    pub const fn key(&'a self, key: &'a str) -> Self {
        Self {
            parent: Some(self),
            step: Step::Key(key),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => {
                let first = self.parent.is_none_or(|p| matches!(p.step, Step::Root));
                write!(f, "{}{name}", if first { "" } else { "." })
            }
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

/// One step of a printed path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathStep {
    Field(String),
    Index(usize),
    Key(String),
}

/// Takes a printed path apart again; stops at the first step that makes no sense.
pub(crate) fn parse(path: &str) -> Vec<PathStep> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let step = if let Some(inside) = rest.strip_prefix("[\"") {
            take_key(inside)
        } else if let Some(inside) = rest.strip_prefix('[') {
            inside
                .split_once(']')
                .and_then(|(digits, after)| Some((PathStep::Index(digits.parse().ok()?), after)))
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            (!name.is_empty()).then(|| (PathStep::Field(name.to_owned()), after))
        };
        let Some((step, after)) = step else { break };
        steps.push(step);
        rest = after;
    }
    steps
}

/// The key of `…"]`, and what follows. Only quotes and backslashes are taken back to what they were.
fn take_key(text: &str) -> Option<(PathStep, &str)> {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => key.push(chars.next()?.1),
            '"' => {
                return Some((
                    PathStep::Key(key),
                    text.get(index + 1..)?.strip_prefix(']')?,
                ));
            }
            _ => key.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_path_can_be_taken_apart() {
        let root = At::root();
        let (a, m) = (root.field("a"), root.field("m"));
        let one = a.index(1);
        assert_eq!(
            parse(&one.field("b").to_string()),
            [
                PathStep::Field("a".into()),
                PathStep::Index(1),
                PathStep::Field("b".into())
            ]
        );
        assert_eq!(
            parse(&m.key("x.\"y\"]").to_string()),
            [
                PathStep::Field("m".into()),
                PathStep::Key("x.\"y\"]".into())
            ]
        );
        assert_eq!(parse("a[x"), [PathStep::Field("a".into())]);
        assert!(parse("").is_empty());
    }
}
