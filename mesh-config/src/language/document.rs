//! Documents of a language of somebody else's, parts of which are Envoy's messages.

use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use prost_reflect::DynamicMessage;

use super::decode::{Decoder, decode_part};
use super::error::{ConfigError, Position, Problem, ProblemKind, Problems, suggestion};
use super::load::Source;
use super::path::At;
use super::pool::Language;
use super::tree::{Content, NodeId, Tree};
use super::validate::validate;
use super::yaml;

/// A YAML or JSON document that somebody reads part by part, and whose parts know where they stand.
///
/// ```
/// use envoy_types::pb::envoy::config::core::v3::HeaderValue;
/// use mesh_config::language::{Document, Language, Problems, Source};
///
/// let source = Source::text("shop.yaml", "
/// shop:
///   sign: {key: name, value: open}
/// ");
/// let document = Document::read(&source, Language::reaching([]))?;
/// let mut problems = Problems::new();
/// let mut top = document.root().fields(&mut problems).unwrap();
/// let mut shop = top.take("shop").unwrap().fields(&mut problems).unwrap();
/// let sign = shop.take("sign").unwrap();
/// let sign: Option<HeaderValue> = sign.decode("envoy.config.core.v3.HeaderValue", &mut problems);
/// assert_eq!(sign.unwrap().value, "open");
/// shop.finish(&mut problems);
/// top.finish(&mut problems);
/// document.check(problems)?;
/// # Ok::<(), mesh_config::language::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Document {
    source: Arc<str>,
    tree: Tree,
    language: Language,
}

impl Document {
    /// Reads the text. `language` holds the messages of Envoy's that may be in it.
    ///
    /// # Errors
    /// When it is not YAML, or exceeds a bound.
    pub fn read(source: &Source, language: Language) -> Result<Self, ConfigError> {
        let name: Arc<str> = source.name().into();
        let tree =
            yaml::read(source.content()).map_err(|p| ConfigError::new(Arc::clone(&name), p))?;
        Ok(Self {
            source: name,
            tree,
            language,
        })
    }

    /// The whole.
    pub fn root(&self) -> Part<'_> {
        let node = self.tree.root();
        Part {
            document: self,
            node,
            path: String::new(),
            position: self.tree.node(node).position,
        }
    }

    /// Where the value at a path stands, or its nearest ancestor.
    pub fn position(&self, path: &str) -> Position {
        self.tree.find(path)
    }

    /// What errors call it.
    pub fn source_name(&self) -> &str {
        &self.source
    }

    /// The error that these problems amount to, each with its line.
    ///
    /// # Errors
    /// When at least one problem was pushed.
    pub fn check(&self, mut problems: Problems) -> Result<(), ConfigError> {
        problems.locate(|path| Some(self.tree.find(path)));
        problems.into_result(Arc::clone(&self.source))
    }
}

/// A value of a [`Document`].
#[derive(Debug, Clone)]
pub struct Part<'d> {
    document: &'d Document,
    node: NodeId,
    path: String,
    position: Position,
}

impl<'d> Part<'d> {
    /// The path to it, as in errors.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where it stands: its key, if it has one.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether nothing is there but the key.
    pub fn is_null(&self) -> bool {
        matches!(self.content(), Content::Scalar(scalar) if scalar.is_null())
    }

    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        matches!(self.content(), Content::Map(_))
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&'d str> {
        match self.content() {
            Content::Scalar(scalar) if !scalar.is_null() => Some(scalar.text()),
            _ => None,
        }
    }

    /// The items of a list. One value stands for a list of one, nothing for an empty one.
    pub fn items(&self) -> Vec<Self> {
        let Content::List(items) = self.content() else {
            return if self.is_null() {
                Vec::new()
            } else {
                vec![self.clone()]
            };
        };
        let item = |(index, node): (usize, &NodeId)| Self {
            document: self.document,
            node: *node,
            path: format!("{}[{index}]", self.path),
            position: self.document.tree.node(*node).position,
        };
        items.iter().enumerate().map(item).collect()
    }

    /// The keys of a map, and what they stand for. Anything else but nothing is a problem.
    pub fn entries(&self, problems: &mut Problems) -> Option<Vec<(&'d str, Self)>> {
        if self.is_null() {
            return Some(Vec::new());
        }
        let Content::Map(entries) = self.content() else {
            self.problem(problems, ProblemKind::WrongType, "expected a map");
            return None;
        };
        let entry = |entry: &'d super::tree::Entry| {
            let plain = !entry.key.is_empty() && !entry.key.contains(['.', '[', '"', '\\']);
            let path = match (plain, self.path.is_empty()) {
                (true, true) => entry.key.to_string(),
                (true, false) => format!("{}.{}", self.path, entry.key),
                (false, _) => format!("{}[{:?}]", self.path, entry.key),
            };
            let part = Self {
                document: self.document,
                node: entry.value,
                path,
                position: entry.position,
            };
            (&*entry.key, part)
        };
        Some(entries.iter().map(entry).collect())
    }

    /// The map as fields, to be taken one by one.
    pub fn fields(&self, problems: &mut Problems) -> Option<Fields<'d>> {
        let entries = self.entries(problems)?;
        Some(Fields {
            entries,
            known: Vec::new(),
        })
    }

    /// The value as the message of Envoy's with that full name. It keeps the rules of the protos.
    pub fn decode<M: Message + Default>(&self, name: &str, problems: &mut Problems) -> Option<M> {
        let desc = self.document.language.message(name);
        let Some(desc) = desc else {
            let reason = format!("{name} is not known here");
            self.problem(problems, ProblemKind::UnknownType, &reason);
            return None;
        };
        let read = |decoder: &mut Decoder<'_>, at: &At<'_>| decoder.message(self.node, &desc, at);
        let message = self.dynamic(read, problems)?;
        M::decode(message.encode_to_vec().as_slice()).ok()
    }

    /// The map as fields of that message, but for those in `others`, which belong to the caller. The rules of
    /// the protos are not asked: the message is only a part of one.
    pub fn decode_fields<M: Message + Default>(
        &self,
        name: &str,
        others: &[&str],
        problems: &mut Problems,
    ) -> Option<M> {
        let desc = self.document.language.message(name)?;
        let (root, mut found) = (At::root(), Problems::new());
        let Document { tree, language, .. } = self.document;
        let message = decode_part(language, tree, &mut found, |decoder| {
            decoder.fields_of(self.node, &desc, &self.at(&root), others)
        });
        let good = found.is_empty();
        problems.extend_below("", found);
        let message = good.then_some(message)?;
        M::decode(message.encode_to_vec().as_slice()).ok()
    }

    /// The value as a message whose type it names with `@type`.
    pub fn any(&self, problems: &mut Problems) -> Option<Any> {
        let desc = self.document.language.message("google.protobuf.Any")?;
        let read =
            |decoder: &mut Decoder<'_>, at: &At<'_>| decoder.any(self.node, &desc, at, false);
        let message = self.dynamic(read, problems)?;
        Any::decode(message.encode_to_vec().as_slice()).ok()
    }

    /// Adds a problem with this value.
    pub fn problem(&self, problems: &mut Problems, kind: ProblemKind, reason: &str) {
        problems.push(Problem {
            kind,
            path: self.path.clone(),
            position: Some(self.position),
            reason: reason.to_owned(),
        });
    }

    /// Adds a problem with this value: it cannot be used.
    pub fn invalid(&self, problems: &mut Problems, reason: impl AsRef<str>) {
        self.problem(problems, ProblemKind::Invalid, reason.as_ref());
    }

    fn dynamic(
        &self,
        read: impl FnOnce(&mut Decoder<'_>, &At<'_>) -> DynamicMessage,
        problems: &mut Problems,
    ) -> Option<DynamicMessage> {
        let Document { tree, language, .. } = self.document;
        let (root, mut found) = (At::root(), Problems::new());
        let message = decode_part(language, tree, &mut found, |decoder| {
            read(decoder, &self.at(&root))
        });
        let good = found.is_empty();
        if good {
            let mut broken = Problems::new();
            validate(language, &message, &mut broken);
            found.extend_below(&self.path, broken);
            found.locate(|path| Some(tree.find(path)));
        }
        let good = good && found.is_empty();
        problems.extend_below("", found);
        good.then_some(message)
    }

    fn at<'a>(&'a self, root: &'a At<'a>) -> At<'a> {
        if self.path.is_empty() {
            *root
        } else {
            root.field(&self.path)
        }
    }

    fn content(&self) -> &'d Content {
        self.document.tree.content(self.node)
    }
}

/// The fields of a map, each of which is taken once; what is left at the end is not known.
#[derive(Debug)]
pub struct Fields<'d> {
    entries: Vec<(&'d str, Part<'d>)>,
    known: Vec<&'static str>,
}

impl<'d> Fields<'d> {
    /// The field of that name, unless it is not there or holds nothing.
    pub fn take(&mut self, name: &'static str) -> Option<Part<'d>> {
        self.known.push(name);
        let at = self.entries.iter().position(|(key, _)| *key == name)?;
        let (_, part) = self.entries.remove(at);
        (!part.is_null()).then_some(part)
    }

    /// Names every field that nobody has taken as a problem.
    pub fn finish(self, problems: &mut Problems) {
        for (key, part) in &self.entries {
            let close = suggestion(key, self.known.iter().copied());
            let known = if close.is_empty() {
                format!("; there are {}", self.known.join(", "))
            } else {
                close
            };
            let reason = format!("there is no such field here{known}");
            part.problem(problems, ProblemKind::UnknownField, &reason);
        }
    }
}
