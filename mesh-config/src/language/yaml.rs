//! From YAML text (JSON is a subset) to a [`Tree`], within bounds.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::error::{Position, Problem, ProblemKind, shortened};
use super::scalar::{Scalar, Style};
use super::tree::{Content, Entry, Node, NodeId, Tree};

/// Bytes of one document. A larger one is refused before it is parsed.
pub const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// Nodes and keys of one document, each counted as often as aliases repeat it. More are refused.
pub const NODES_MAX: usize = 300_000;

/// Bytes of all scalars and keys, each counted as often as aliases repeat it. More are refused.
pub const TEXT_BYTES_MAX: usize = 2 * DOCUMENT_BYTES_MAX;

/// Lists and maps inside each other, aliases followed. Deeper nesting is refused.
pub const DEPTH_MAX: usize = 100;

/// Reads the first document of `text`; what follows it is ignored, as Envoy ignores it.
pub(crate) fn read(text: &str) -> Result<Tree, Problem> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(too_large(
            None,
            format!("more than {DOCUMENT_BYTES_MAX} bytes"),
        ));
    }
    let options = granit_parser::options! {
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| not_yaml(&error))?;
        if reader.event(event, span)? == Progress::Done {
            break;
        }
    }
    let Some((root, _)) = reader.root else {
        return Err(syntax(None, "the document is empty"));
    };
    Ok(Tree::new(reader.nodes, root))
}

#[derive(PartialEq)]
enum Progress {
    More,
    Done,
}

#[derive(Default)]
struct Reader {
    nodes: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Option<(NodeId, Size)>>,
    root: Option<(NodeId, Size)>,
}

/// A list or map whose end has not been read.
struct Open {
    position: Position,
    anchor: usize,
    size: Size,
    kind: Kind,
}

enum Kind {
    List(Vec<NodeId>),
    Map {
        entries: Vec<Entry>,
        key: Option<(Box<str>, Position)>,
        /// Tagged `!ignore`: the value is read, so that its anchors can be used, and dropped.
        ignored: bool,
    },
}

/// What a value amounts to when every alias in it is followed.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text: usize,
    depth: usize,
}

impl Size {
    fn of_scalar(text: &str) -> Self {
        Self {
            nodes: 1,
            text: text.len(),
            depth: 0,
        }
    }

    fn add(&mut self, child: Self) {
        self.nodes += child.nodes;
        self.text += child.text;
        self.depth = self.depth.max(child.depth + 1);
    }

    fn check(self, position: Position) -> Result<(), Problem> {
        let bound = if self.nodes > NODES_MAX {
            format!("more than {NODES_MAX} values")
        } else if self.text > TEXT_BYTES_MAX {
            format!("more than {TEXT_BYTES_MAX} bytes of text")
        } else if self.depth > DEPTH_MAX {
            format!("nesting deeper than {DEPTH_MAX} levels")
        } else {
            return Ok(());
        };
        Err(too_large(
            Some(position),
            format!("{bound}, aliases followed"),
        ))
    }
}

impl Reader {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<Progress, Problem> {
        let position = position(&span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(&text, style, anchor, tag.as_deref(), position)?
            }
            Event::SequenceStart(_, anchor, _) => {
                self.start(Kind::List(Vec::new()), anchor, position)?
            }
            Event::MappingStart(_, anchor, _) => {
                let kind = Kind::Map {
                    entries: Vec::new(),
                    key: None,
                    ignored: false,
                };
                self.start(kind, anchor, position)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(position)?,
            Event::Alias(anchor) => match self.anchors.get(&anchor).copied().flatten() {
                Some((node, size)) => self.alias(node, size, position)?,
                None => {
                    return Err(syntax(
                        Some(position),
                        "an alias stands inside what it repeats",
                    ));
                }
            },
            Event::DocumentEnd => return Ok(Progress::Done),
            _ => {}
        }
        Ok(Progress::More)
    }

    fn start(&mut self, kind: Kind, anchor: usize, position: Position) -> Result<(), Problem> {
        if self.wants_key() {
            return Err(syntax(
                Some(position),
                "a key must be text, not a list or a map",
            ));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        let size = Size {
            nodes: 1,
            ..Size::default()
        };
        self.open.push(Open {
            position,
            anchor,
            size,
            kind,
        });
        Ok(())
    }

    fn end(&mut self, at: Position) -> Result<(), Problem> {
        let Some(open) = self.open.pop() else {
            return Err(syntax(Some(at), "an end without a start"));
        };
        let content = match open.kind {
            Kind::List(items) => Content::List(items.into()),
            Kind::Map { entries, .. } => Content::Map(last_of_each(entries).into()),
        };
        self.add(content, open.size, open.anchor, open.position)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        position: Position,
    ) -> Result<(), Problem> {
        let ignore = tag.is_some_and(|tag| tag.original() == "!ignore");
        let style = match (style, tag) {
            (ScalarStyle::Plain, None) => Style::Plain,
            // Any tag but `!` lets the type be guessed, quotes or not.
            (_, Some(tag)) if tag.original() != "!" => Style::Tagged,
            _ => Style::Quoted,
        };
        let scalar = Scalar::new(text, style);
        if !self.wants_key() {
            return self.add(
                Content::Scalar(scalar),
                Size::of_scalar(text),
                anchor,
                position,
            );
        }
        if anchor != 0 {
            let node = self.push(Content::Scalar(Scalar::new(text, style)), position);
            self.anchors
                .insert(anchor, Some((node, Size::of_scalar(text))));
        }
        self.key(scalar, ignore, position)
    }

    fn alias(&mut self, node: NodeId, size: Size, position: Position) -> Result<(), Problem> {
        if !self.wants_key() {
            return self.attach(node, size, position);
        }
        let Some(Content::Scalar(scalar)) = self.nodes.get(node.0 as usize).map(|n| &n.content)
        else {
            return Err(syntax(
                Some(position),
                "a key must be text, not a list or a map",
            ));
        };
        let scalar = Scalar::new(scalar.text(), Style::Quoted);
        self.key(scalar, false, position)
    }

    fn key(&mut self, scalar: Scalar, ignore: bool, position: Position) -> Result<(), Problem> {
        let text: Box<str> = if scalar.is_null() {
            "null".into()
        } else {
            scalar.text().into()
        };
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        open.size.add(Size::of_scalar(&text));
        open.size.check(position)?;
        if let Kind::Map { key, ignored, .. } = &mut open.kind {
            *key = Some((text, position));
            *ignored = ignore;
        }
        Ok(())
    }

    /// Whether the next value is the key of an open map.
    fn wants_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                kind: Kind::Map { key: None, .. },
                ..
            })
        )
    }

    fn push(&mut self, content: Content, position: Position) -> NodeId {
        // Every node costs at least one byte of a document far smaller than u32::MAX.
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Node { position, content });
        id
    }

    fn add(
        &mut self,
        content: Content,
        size: Size,
        anchor: usize,
        position: Position,
    ) -> Result<(), Problem> {
        let node = self.push(content, position);
        if anchor != 0 {
            self.anchors.insert(anchor, Some((node, size)));
        }
        self.attach(node, size, position)
    }

    /// Puts a finished value where it belongs: a list, a map, or the root.
    fn attach(&mut self, node: NodeId, size: Size, position: Position) -> Result<(), Problem> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some((node, size));
            return size.check(position);
        };
        match &mut open.kind {
            Kind::List(items) => items.push(node),
            Kind::Map {
                entries,
                key,
                ignored,
            } => {
                if let Some((key, position)) = key.take().filter(|_| !*ignored) {
                    entries.push(Entry {
                        key,
                        position,
                        value: node,
                    });
                }
            }
        }
        open.size.add(size);
        open.size.check(position)
    }
}

/// Drops every entry whose key comes again later.
fn last_of_each(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut seen = HashSet::with_capacity(entries.len());
    let keep: Vec<bool> = entries
        .iter()
        .rev()
        .map(|entry| seen.insert(&*entry.key))
        .collect();
    let mut keep = keep.into_iter().rev();
    entries.retain(|_| keep.next().unwrap_or(true));
    entries
}

fn position(span: &Span) -> Position {
    let at = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position {
        line: at(span.start.line()).max(1),
        column: at(span.start.col()).saturating_add(1),
    }
}

fn not_yaml(error: &ScanError) -> Problem {
    let marker = error.marker();
    let at = position(&Span::new(*marker, *marker));
    // The parser's words may quote the document at length.
    let reason = shortened(&error.info(), 200).escape_debug().to_string();
    syntax(Some(at), format!("not YAML: {reason}"))
}

fn syntax(position: Option<Position>, reason: impl Into<String>) -> Problem {
    problem(ProblemKind::Syntax, position, reason.into())
}

fn too_large(position: Option<Position>, reason: String) -> Problem {
    problem(
        ProblemKind::TooLarge,
        position,
        format!("the document is too large: {reason}"),
    )
}

fn problem(kind: ProblemKind, position: Option<Position>, reason: String) -> Problem {
    Problem {
        kind,
        path: String::new(),
        position,
        reason,
    }
}
