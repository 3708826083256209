//! What is wrong with a config, and where.

use std::fmt;
use std::sync::Arc;

/// Problems kept per config; the rest are only counted.
pub const PROBLEMS_MAX: usize = 32;

/// A place in a document: line and column, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The kind of a [`Problem`], for those who react to it rather than print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The file could not be read.
    Unreadable,
    /// Not YAML, or YAML that Envoy's language has no use for.
    Syntax,
    /// The document exceeds one of the named bounds.
    TooLarge,
    /// A field that its message does not have.
    UnknownField,
    /// An `@type` that is not known here.
    UnknownType,
    /// A value of the wrong shape for its field.
    WrongType,
    /// A name that its enum does not have.
    WrongEnum,
    /// Two members of one oneof.
    OneofTwice,
    /// A value that breaks a rule of the protos.
    BrokenRule,
    /// A value that only the conversion into a policy's config can refuse.
    Invalid,
}

/// One thing that is wrong with a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// Field path from the root, such as `static_resources.clusters[0].name`; empty for the root.
    pub path: String,
    /// Where the value stands in the file, when it came from a file.
    pub position: Option<Position>,
    /// What is wrong, in lower case and without a full stop. Holds no secrets.
    pub reason: String,
}

/// Everything that is wrong with one config; at least one [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    source: Arc<str>,
    problems: Vec<Problem>,
    left_out: usize,
}

impl ConfigError {
    /// An error with a single problem.
    pub fn new(source: impl Into<Arc<str>>, problem: Problem) -> Self {
        Self {
            source: source.into(),
            problems: vec![problem],
            left_out: 0,
        }
    }

    /// The name of the file, or of whatever the config came from.
    pub fn source_name(&self) -> &str {
        &self.source
    }

    /// The problems in the order in which they were found, at most [`PROBLEMS_MAX`].
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many further problems were found and left out.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.source)?;
            if let Some(position) = problem.position {
                write!(f, "{position}:")?;
            }
            if !problem.path.is_empty() {
                write!(f, " {}:", problem.path)?;
            }
            write!(f, " {}", problem.reason)?;
        }
        if self.left_out > 0 {
            write!(f, "\n{}: and {} more problems", self.source, self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A bounded list of problems under collection.
///
/// Conversions push into one of these and go on, so that a user sees all mistakes at once.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
    left_out: usize,
}

impl Problems {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a problem, or counts it when the list is full.
    pub fn push(&mut self, problem: Problem) {
        if self.list.len() < PROBLEMS_MAX {
            self.list.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    /// Adds a problem that a conversion found at `path`.
    pub fn invalid(&mut self, path: impl fmt::Display, reason: impl Into<String>) {
        self.push(Problem {
            kind: ProblemKind::Invalid,
            path: path.to_string(),
            position: None,
            reason: reason.into(),
        });
    }

    /// Adds those of a part, whose paths begin at `path`.
    pub(crate) fn extend_below(&mut self, path: &str, part: Self) {
        self.left_out += part.left_out;
        for mut problem in part.list {
            problem.path = match (path.is_empty(), problem.path.is_empty()) {
                (true, _) => problem.path,
                (false, true) => path.to_owned(),
                (false, false) if problem.path.starts_with('[') => {
                    format!("{path}{}", problem.path)
                }
                (false, false) => format!("{path}.{}", problem.path),
            };
            self.push(problem);
        }
    }

    /// Whether further problems are only counted, so that it is no use to word them well.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= PROBLEMS_MAX
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems so far.
    pub fn as_slice(&self) -> &[Problem] {
        &self.list
    }

    /// Fills in the position of every problem that has none yet.
    pub(crate) fn locate(&mut self, find: impl Fn(&str) -> Option<Position>) {
        for problem in &mut self.list {
            if problem.position.is_none() {
                problem.position = find(&problem.path);
            }
        }
    }

    /// The error that these problems amount to, or nothing.
    ///
    /// # Errors
    /// When at least one problem was pushed.
    pub fn into_result(self, source: impl Into<Arc<str>>) -> Result<(), ConfigError> {
        if self.list.is_empty() {
            return Ok(());
        }
        Err(ConfigError {
            source: source.into(),
            problems: self.list,
            left_out: self.left_out,
        })
    }
}

/// Text from a config as it may appear in an error: quoted, escaped, and cut when it is long.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text, 60))
}

/// At most `characters_max` characters of a text.
pub(crate) fn shortened(text: &str, characters_max: usize) -> String {
    let mut shown: String = text.chars().take(characters_max).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// `, did you mean …?` when one of `candidates` is close to `name`, else nothing.
pub(crate) fn suggestion<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    /// Longer names are never compared: the cost is quadratic.
    const COMPARED_MAX: usize = 256;
    let length = name.chars().count();
    if length > COMPARED_MAX {
        return String::new();
    }
    let allowed = (length / 4).clamp(1, 4);
    candidates
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= allowed)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map_or_else(String::new, |(_, found)| {
            format!(", did you mean {found:?}?")
        })
}

/// How many letters must be put in, taken out or replaced to make `a` of `b`, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (right, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = *cell;
            before = replaced.min(before + 1).min(diagonal + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits_and_ignores_case() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("Name", "name"), 0);
        assert_eq!(distance("connect_timout", "connect_timeout"), 1);
    }

    #[test]
    fn only_a_close_name_is_suggested() {
        let names = ["connect_timeout", "name", "type"];
        assert_eq!(
            suggestion("conect_timeout", names.into_iter()),
            ", did you mean \"connect_timeout\"?"
        );
        assert_eq!(suggestion("bogus", names.into_iter()), "");
    }

    #[test]
    fn problems_beyond_the_bound_are_counted() {
        let mut problems = Problems::new();
        for index in 0..PROBLEMS_MAX + 3 {
            problems.invalid(index, "wrong");
        }
        let error = problems.into_result("f").expect_err("problems");
        assert_eq!(error.problems().len(), PROBLEMS_MAX);
        assert_eq!(error.left_out(), 3);
        assert!(error.to_string().ends_with("f: and 3 more problems"));
    }

    #[test]
    fn long_and_odd_text_is_cut_and_escaped() {
        let shown = quoted(&"x\n".repeat(100));
        assert!(shown.len() < 120, "{shown}");
        assert!(!shown.contains('\n'));
    }
}
