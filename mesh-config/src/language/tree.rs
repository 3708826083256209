//! A document as a tree of nodes that know their line and column.

use super::error::Position;
use super::path::{self, PathStep};
use super::scalar::Scalar;

/// Index of a node in its [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(pub(super) u32);

/// One value of the document.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) content: Content,
}

/// What a [`Node`] holds. An alias is no node: it is a second reference to the anchored one.
#[derive(Debug)]
pub(crate) enum Content {
    Scalar(Scalar),
    List(Box<[NodeId]>),
    Map(Box<[Entry]>),
}

/// A key and its value. Of equal keys only the last is here.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) position: Position,
    pub(crate) value: NodeId,
}

/// The first document of a YAML stream.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    root: NodeId,
}

impl Tree {
    pub(super) fn new(nodes: Vec<Node>, root: NodeId) -> Self {
        Self { nodes, root }
    }

    pub(crate) fn root(&self) -> NodeId {
        self.root
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        // Ids come from this tree's reader only and trees never shrink.
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn content(&self, id: NodeId) -> &Content {
        &self.node(id).content
    }

    /// Where the value at `path` stands: its key if it has one. When the path leads out of the
    /// document, as that of a missing field does, its nearest ancestor.
    pub(crate) fn find(&self, path: &str) -> Position {
        let mut at = self.root;
        let mut position = self.node(at).position;
        for step in path::parse(path) {
            let found = match (&step, self.content(self.unwrapped(at))) {
                (PathStep::Field(name), Content::Map(entries)) => {
                    entry(entries, |key| same_field(key, name))
                }
                (PathStep::Key(name), Content::Map(entries)) => entry(entries, |key| key == name),
                (PathStep::Index(index), Content::List(items)) => items
                    .get(*index)
                    .map(|item| (*item, self.node(*item).position)),
                // One value may stand for a list of one.
                (PathStep::Index(0), _) => Some((at, position)),
                _ => None,
            };
            let Some((next, place)) = found else { break };
            (at, position) = (next, place);
        }
        position
    }

    /// The map that a `TypedStruct` spells out, or the node itself.
    fn unwrapped(&self, id: NodeId) -> NodeId {
        let Content::Map(entries) = self.content(id) else {
            return id;
        };
        let typed_struct = entry(entries, |key| key == "@type").is_some_and(|(node, _)| {
            matches!(self.content(node), Content::Scalar(s) if s.text().ends_with(".TypedStruct"))
        });
        let value = entry(entries, |key| key == "value");
        value
            .filter(|_| typed_struct)
            .map_or(id, |(value, _)| value)
    }

    /// Every text that follows one of `keys`, in any map of the document.
    pub(crate) fn texts_of<'t>(&'t self, keys: &'t [&str]) -> impl Iterator<Item = &'t str> {
        self.nodes
            .iter()
            .filter_map(|node| match &node.content {
                Content::Map(entries) => Some(entries),
                _ => None,
            })
            .flatten()
            .filter(|entry| keys.contains(&&*entry.key))
            .filter_map(|entry| match self.content(entry.value) {
                Content::Scalar(scalar) => Some(scalar.text()),
                _ => None,
            })
    }
}

fn entry(entries: &[Entry], matches: impl Fn(&str) -> bool) -> Option<(NodeId, Position)> {
    let found = entries.iter().find(|entry| matches(&entry.key))?;
    Some((found.value, found.position))
}

/// Whether a key of the document, in snake or camel case, means the field of that proto name.
fn same_field(key: &str, name: &str) -> bool {
    key == name || {
        let mut name = name.chars();
        let mut expected = || match name.next() {
            Some('_') => name.next().map(|c| c.to_ascii_uppercase()),
            other => other,
        };
        key.chars().all(|c| expected() == Some(c)) && expected().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn camel_case_keys_name_snake_case_fields() {
        assert!(same_field("connectTimeout", "connect_timeout"));
        assert!(same_field("connect_timeout", "connect_timeout"));
        assert!(!same_field("connectTimeou", "connect_timeout"));
        assert!(!same_field("connectTimeoutx", "connect_timeout"));
        assert!(!same_field("ConnectTimeout", "connect_timeout"));
    }
}
