use smallvec::SmallVec;

use crate::{PathMatch, RouteMatch};

/// Which routes could match a path, in the order of the configuration.
///
/// Two radix trees hold what each route's path must begin with (one for routes that ignore case). On the
/// way along a path, every node's routes are candidates; the lists are sorted, and merging them gives the
/// first-match order back.
#[derive(Debug)]
pub(super) struct PathIndex {
    sensitive: Tree,
    insensitive: Tree,
}

impl PathIndex {
    pub(super) fn new<'a>(routes: impl Iterator<Item = &'a RouteMatch>) -> Self {
        let mut index = Self {
            sensitive: Tree::default(),
            insensitive: Tree::default(),
        };
        for (position, route) in (0u32..).zip(routes) {
            let (literal, whole) = match &route.path {
                PathMatch::Prefix(prefix) => (prefix.as_ref(), false),
                PathMatch::Path(path) => (path.as_ref(), true),
                PathMatch::PathSeparatedPrefix(prefix) => (prefix.as_str(), false),
                PathMatch::SafeRegex(regex) => (regex.literal_prefix(), false),
                PathMatch::Connect => ("", false),
            };
            let ignores_case = !route.case_sensitive
                && !matches!(route.path, PathMatch::SafeRegex(_) | PathMatch::Connect);
            if ignores_case {
                let lower = literal.to_ascii_lowercase();
                index.insensitive.insert(lower.as_bytes(), whole, position);
            } else {
                index.sensitive.insert(literal.as_bytes(), whole, position);
            }
        }
        index
    }

    pub(super) fn candidates(&self, path: &str) -> Candidates<'_> {
        let mut lists = Lists::new();
        self.sensitive.walk(path.as_bytes(), false, &mut lists);
        self.insensitive.walk(path.as_bytes(), true, &mut lists);
        Candidates { lists }
    }
}

type Lists<'a> = SmallVec<[&'a [u32]; 16]>;

/// Positions of routes, smallest first.
pub(super) struct Candidates<'a> {
    lists: Lists<'a>,
}

impl Candidates<'_> {
    pub(super) fn next(&mut self) -> Option<u32> {
        // A route is in one list only, and there are hardly more lists than segments in a path: looking
        // at all of them is cheaper than keeping a heap.
        let smallest = self
            .lists
            .iter_mut()
            .filter(|list| !list.is_empty())
            .min_by_key(|list| list[0])?;
        let (first, rest) = smallest.split_first()?;
        *smallest = rest;
        Some(*first)
    }
}

#[derive(Debug, Default)]
struct Tree {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    /// What leads here from the parent; empty at the root only.
    label: Box<[u8]>,
    /// Routes whose literal ends here and which may go on.
    open: Vec<u32>,
    /// Routes that are exactly this path.
    whole: Vec<u32>,
    /// By the first byte of their labels, which differ.
    children: Vec<Self>,
}

impl Tree {
    fn insert(&mut self, mut rest: &[u8], whole: bool, position: u32) {
        let mut node = &mut self.root;
        while let Some(first) = rest.first() {
            let place = node
                .children
                .binary_search_by_key(first, |child| child.label[0]);
            let place = match place {
                Ok(place) => place,
                Err(place) => {
                    let leaf = Node {
                        label: rest.into(),
                        ..Node::default()
                    };
                    node.children.insert(place, leaf);
                    place
                }
            };
            node = &mut node.children[place];
            let common = common_length(&node.label, rest);
            node.split(common);
            rest = &rest[common..];
        }
        if whole {
            node.whole.push(position);
        } else {
            node.open.push(position);
        }
    }

    fn walk<'a>(&'a self, mut rest: &[u8], fold: bool, lists: &mut Lists<'a>) {
        let mut node = &self.root;
        loop {
            if !node.open.is_empty() {
                lists.push(&node.open);
            }
            let Some(&first) = rest.first() else {
                if !node.whole.is_empty() {
                    lists.push(&node.whole);
                }
                return;
            };
            let first = if fold {
                first.to_ascii_lowercase()
            } else {
                first
            };
            let place = node
                .children
                .binary_search_by_key(&first, |child| child.label[0]);
            let Ok(place) = place else { return };
            node = &node.children[place];
            let Some(head) = rest.get(..node.label.len()) else {
                return;
            };
            let same = if fold {
                head.eq_ignore_ascii_case(&node.label)
            } else {
                head == &*node.label
            };
            if !same {
                return;
            }
            rest = &rest[node.label.len()..];
        }
    }
}

impl Node {
    /// Makes the label end after `length` bytes; what follows moves into a child.
    fn split(&mut self, length: usize) {
        if length == self.label.len() {
            return;
        }
        let (head, tail) = self.label.split_at(length);
        let (head, tail) = (head.into(), tail.into());
        let moved = std::mem::take(self);
        self.children.push(Self {
            label: tail,
            ..moved
        });
        self.label = head;
    }
}

fn common_length(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
