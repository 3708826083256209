//! From a file to a bootstrap.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use prost::Message;
use prost_reflect::DynamicMessage;

use super::decode::decode;
use super::dump::to_json;
use super::error::{ConfigError, Position, Problem, ProblemKind, Problems};
use super::pool::Language;
use super::support::{SupportTable, UnsupportedReport};
use super::tree::Tree;
use super::validate::validate;
use super::yaml::{self, DOCUMENT_BYTES_MAX};

/// The text of a config, and what to call it in errors.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    text: String,
}

impl Source {
    /// A text that did not come from a file, such as a command line argument.
    pub fn text(name: impl Into<Arc<str>>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// The text of a file. At most [`DOCUMENT_BYTES_MAX`] bytes are read, whatever the file is.
    ///
    /// # Errors
    /// When it cannot be read, is larger than that, or is not UTF-8.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let name: Arc<str> = path.display().to_string().into();
        let fail = |kind, position, reason: String| {
            let problem = Problem {
                kind,
                path: String::new(),
                position,
                reason,
            };
            ConfigError::new(Arc::clone(&name), problem)
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path);
        let read = file.and_then(|file| {
            file.take(DOCUMENT_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
        });
        read.map_err(|error| fail(ProblemKind::Unreadable, None, error.to_string()))?;
        if bytes.len() > DOCUMENT_BYTES_MAX {
            let reason = format!("the document is too large: more than {DOCUMENT_BYTES_MAX} bytes");
            return Err(fail(ProblemKind::TooLarge, None, reason));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let sound = error
                .as_bytes()
                .get(..error.utf8_error().valid_up_to())
                .unwrap_or_default();
            let lines = sound.iter().filter(|byte| **byte == b'\n').count();
            let position = Position {
                line: u32::try_from(lines + 1).unwrap_or(u32::MAX),
                column: 1,
            };
            fail(ProblemKind::Syntax, Some(position), "not UTF-8".to_owned())
        })?;
        Ok(Self { name, text })
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn content(&self) -> &str {
        &self.text
    }
}

/// A bootstrap that Envoy's language has no objection to, with all that later phases need.
#[derive(Debug)]
pub struct Loaded {
    /// The bootstrap in generated types. Each `Any` in it holds bytes of a type that is known.
    pub bootstrap: Bootstrap,
    /// The same as a dynamic message.
    pub message: DynamicMessage,
    /// The messages that it is made of.
    pub language: Language,
    source: Arc<str>,
    /// Where things stand in a text; none when it came over the wire.
    tree: Option<Tree>,
    checksum: u64,
}

/// Reads a bootstrap in YAML or JSON: strict about names, types and the protos' own rules, lenient
/// about spelling where Envoy is.
///
/// # Errors
/// With the file, path, line and reason of everything that is wrong (the first 32 problems).
pub fn load_bootstrap(source: &Source) -> Result<Loaded, ConfigError> {
    let fail = |problem| ConfigError::new(Arc::clone(&source.name), problem);
    let tree = yaml::read(&source.text).map_err(fail)?;
    let named = tree.texts_of(&["@type", "type_url", "typeUrl"]);
    let language = Language::reaching(named.map(super::any::type_name));
    let desc = language
        .message(super::BOOTSTRAP)
        .expect("every language has a bootstrap");

    let mut problems = Problems::new();
    let message = decode(&language, &tree, &desc, &mut problems);
    if problems.is_empty() {
        validate(&language, &message, &mut problems);
        problems.locate(|path| Some(tree.find(path)));
    }
    problems.into_result(Arc::clone(&source.name))?;

    let bootstrap = Bootstrap::decode(message.encode_to_vec().as_slice()).map_err(|error| {
        fail(Problem {
            kind: ProblemKind::TooLarge,
            path: String::new(),
            position: None,
            reason: format!("the document cannot be held: {error}"),
        })
    })?;
    Ok(Loaded {
        bootstrap,
        message,
        language,
        source: Arc::clone(&source.name),
        tree: Some(tree),
        checksum: checksum(source.text.as_bytes()),
    })
}

/// Reads a message of that full name in YAML or JSON, as leniently as a bootstrap, and gives its bytes. What is in
/// it is looked at when it is used.
///
/// # Errors
/// With the file, path, line and reason of everything that is wrong (the first 32 problems).
pub fn load_message(
    source: &Source,
    full_name: &str,
    language: &Language,
) -> Result<Vec<u8>, ConfigError> {
    let fail = |problem| ConfigError::new(Arc::clone(&source.name), problem);
    let unknown = || Problem {
        kind: ProblemKind::Invalid,
        path: String::new(),
        position: None,
        reason: format!("there is no message {full_name}"),
    };
    let tree = yaml::read(&source.text).map_err(fail)?;
    let desc = language.message(full_name).ok_or_else(|| fail(unknown()))?;
    let mut problems = Problems::new();
    let message = decode(language, &tree, &desc, &mut problems);
    problems.into_result(Arc::clone(&source.name))?;
    Ok(message.encode_to_vec())
}

/// FNV-1a: tells texts apart, and is the same on every machine. No protection against forgery.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Loaded {
    /// One resource that came over the wire, its bootstrap left empty. It keeps the same rules; fields that are
    /// not known are passed over, as what comes over the wire may be newer.
    ///
    /// # Errors
    /// With the path and reason of every rule that is broken.
    pub fn resource(
        name: &str,
        full_name: &str,
        body: &[u8],
        language: &Language,
    ) -> Result<Self, ConfigError> {
        let source: Arc<str> = name.into();
        let message = language.decode(full_name, body).map_err(|reason| {
            let problem = Problem {
                kind: ProblemKind::Invalid,
                path: String::new(),
                position: None,
                reason,
            };
            ConfigError::new(Arc::clone(&source), problem)
        })?;
        let mut problems = Problems::new();
        validate(language, &message, &mut problems);
        problems.into_result(Arc::clone(&source))?;
        Ok(Self {
            bootstrap: Bootstrap::default(),
            message,
            language: language.clone(),
            source,
            tree: None,
            checksum: checksum(body),
        })
    }

    /// What errors call the source.
    pub fn source_name(&self) -> &str {
        &self.source
    }

    /// Names this very text in logs: a checksum of it.
    pub fn version(&self) -> String {
        format!("{:016x}", self.checksum)
    }

    /// Where the value at a field path stands in the source; for a path that leads nowhere, as that
    /// of a missing field does, where its nearest ancestor stands. None when it came over the wire.
    pub fn position(&self, path: &str) -> Option<Position> {
        Some(self.tree.as_ref()?.find(path))
    }

    /// The error that the problems found by a conversion amount to, with their lines.
    ///
    /// # Errors
    /// When at least one problem was pushed.
    pub fn check(&self, mut problems: Problems) -> Result<(), ConfigError> {
        problems.locate(|path| self.position(path));
        problems.into_result(Arc::clone(&self.source))
    }

    /// What the bootstrap asks for and `table` does not enforce.
    pub fn unsupported(&self, table: &SupportTable) -> UnsupportedReport {
        table.report(&self.language, &self.message, |path| self.position(path))
    }

    /// The bootstrap as JSON with proto field names, without secrets.
    pub fn to_json(&self) -> serde_json::Value {
        to_json(&self.language, &self.message)
    }
}
