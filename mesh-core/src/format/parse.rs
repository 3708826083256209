use std::fmt;

use super::{Piece, operator::Operator};

/// What is wrong with a format string, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    position: usize,
    reason: String,
}

impl FormatError {
    /// The byte at which the faulty operator begins, from 0.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// What is wrong with it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.position)
    }
}

impl std::error::Error for FormatError {}

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(percent) = rest.find('%') {
        literal.push_str(&rest[..percent]);
        let position = text.len() - rest.len() + percent;
        let after = &rest[percent + 1..];
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let (operator, left) =
            operator(after).map_err(|reason| FormatError { position, reason })?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
        }
        pieces.push(Piece::Operator(operator));
        rest = left;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces)
}

/// `text` follows the opening percent sign; returns what follows the closing one.
fn operator(text: &str) -> Result<(Operator, &str), String> {
    let end = text
        .find(|c: char| !matches!(c, 'A'..='Z' | '0'..='9' | '_'))
        .ok_or("operator without a closing percent sign")?;
    let (name, mut rest) = text.split_at(end);
    if name.is_empty() {
        return Err("percent sign without a command (a literal one is written %%)".to_owned());
    }
    let mut parameters = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (given, after) = inside
            .split_once(')')
            .ok_or("parameters without a closing parenthesis")?;
        parameters = Some(given);
        rest = after;
    }
    let mut length = None;
    if let Some(after) = rest.strip_prefix(':') {
        let end = after
            .find('%')
            .ok_or("operator without a closing percent sign")?;
        let digits = &after[..end];
        // `parse` alone would take a plus sign.
        length = Some(
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse().ok())
                .flatten()
                .ok_or_else(|| format!("\"{digits}\" is not a length"))?,
        );
        rest = &after[end..];
    }
    let rest = rest
        .strip_prefix('%')
        .ok_or("operator without a closing percent sign")?;
    Ok((Operator::parse(name, parameters, length)?, rest))
}
