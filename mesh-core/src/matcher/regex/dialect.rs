//! From RE2's syntax to that of Rust's `regex`.
//!
//! Both descend from the same engine and agree on most patterns. Where they read one pattern in two ways,
//! the pattern is rewritten so that Rust reads it as RE2 does; where RE2 refuses, so do we.

use std::{fmt::Write as _, iter::Peekable, str::Chars};

/// RE2's bound on `{n}`.
const REPEAT_MAX: u32 = 1000;

pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        chars: pattern.chars().peekable(),
        out: String::with_capacity(pattern.len() + 16),
        repeated: false,
    };
    while let Some(c) = translator.chars.next() {
        translator.item(c)?;
    }
    Ok(translator.out)
}

struct Translator<'a> {
    chars: Peekable<Chars<'a>>,
    out: String,
    /// The item before is a repetition, which must not be repeated again.
    repeated: bool,
}

impl Translator<'_> {
    fn item(&mut self, c: char) -> Result<(), String> {
        match c {
            '*' | '+' | '?' => return self.repetition(&c.to_string()),
            '{' => {
                if let Some(bounds) = self.bounds()? {
                    return self.repetition(&bounds);
                }
                self.out.push_str(r"\{");
            }
            '}' => self.out.push_str(r"\}"),
            '\\' => self.escape()?,
            '[' => self.class()?,
            '(' => self.group()?,
            _ => self.out.push(c),
        }
        self.repeated = false;
        Ok(())
    }

    fn repetition(&mut self, operator: &str) -> Result<(), String> {
        if self.repeated {
            return Err(format!("bad repetition operator \"{operator}\""));
        }
        self.out.push_str(operator);
        if self.chars.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        self.repeated = true;
        Ok(())
    }

    /// What follows `{`, if it is a count: `{2}`, `{2,}`, `{2,3}`. Otherwise the brace is a character.
    fn bounds(&mut self) -> Result<Option<String>, String> {
        let mut ahead = self.chars.clone();
        let inside: String = ahead.by_ref().take_while(|&c| c != '}').collect();
        // `take_while` also stops at the end: only a closed brace counts.
        let closed = self.chars.clone().nth(inside.chars().count()) == Some('}');
        let (low, high) = match inside.split_once(',') {
            Some((low, high)) => (low, Some(high)),
            None => (inside.as_str(), None),
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !closed || low.is_empty() || !digits(low) || !high.is_none_or(digits) {
            return Ok(None);
        }
        for bound in [Some(low), high].into_iter().flatten() {
            if !bound.is_empty() && bound.parse().map_or(true, |count: u32| count > REPEAT_MAX) {
                return Err(format!(
                    "repetition {{{inside}}} is larger than {REPEAT_MAX}"
                ));
            }
        }
        self.chars = ahead;
        Ok(Some(format!("{{{inside}}}")))
    }

    /// What follows a backslash, outside a class.
    fn escape(&mut self) -> Result<(), String> {
        let c = self.escaped()?;
        match c {
            'd' => self.out.push_str("[0-9]"),
            'D' => self.out.push_str("[^0-9]"),
            'w' => self.out.push_str("[0-9A-Za-z_]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            's' => self.out.push_str(r"[\t\n\f\r ]"),
            'S' => self.out.push_str(r"[^\t\n\f\r ]"),
            'b' if self.chars.peek() == Some(&'{') => {
                return Err("\\b{ is not supported".to_owned());
            }
            // ASCII in RE2. A negated boundary could split a character: only text that is not UTF-8
            // sees a difference.
            'b' => self.out.push_str(r"(?-u:\b)"),
            'B' => self.out.push_str(r"(?-u:\B)"),
            'A' | 'z' => self.push_escaped(c),
            'Q' => self.quotation(),
            _ => self.common_escape(c)?,
        }
        Ok(())
    }

    /// Escapes that mean the same inside and outside a class.
    fn common_escape(&mut self, c: char) -> Result<(), String> {
        match c {
            'a' | 'f' | 'n' | 'r' | 't' | 'v' => self.push_escaped(c),
            'p' | 'P' | 'x' => {
                self.push_escaped(c);
                // A name or number in braces must not be taken for a repetition.
                if self.chars.next_if_eq(&'{').is_some() {
                    self.out.push('{');
                    for c in self.chars.by_ref() {
                        self.out.push(c);
                        if c == '}' {
                            break;
                        }
                    }
                }
            }
            '0'..='7' => self.octal(c)?,
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => self.push_char(c),
            c => return Err(format!("unknown escape \"\\{c}\"")),
        }
        Ok(())
    }

    /// `\0`, `\07` and `\101` are characters; `\1` alone would be a back reference.
    fn octal(&mut self, first: char) -> Result<(), String> {
        let mut code = first as u32 - '0' as u32;
        let mut digits = 1;
        while digits < 3 {
            let Some(digit) = self.chars.next_if(|c| matches!(c, '0'..='7')) else {
                break;
            };
            code = code * 8 + digit as u32 - '0' as u32;
            digits += 1;
        }
        match char::from_u32(code) {
            Some(c) if first == '0' || digits > 1 => self.push_char(c),
            _ => return Err(format!("back reference \"\\{first}\"")),
        }
        Ok(())
    }

    /// `\Q…\E`: everything in between is literal.
    fn quotation(&mut self) {
        while let Some(c) = self.chars.next() {
            if c == '\\' && self.chars.next_if_eq(&'E').is_some() {
                return;
            }
            self.push_char(c);
        }
    }

    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if self.chars.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        self.out.push('?');
        match self.chars.peek() {
            Some('P' | '<') => {
                // A named group; Rust refuses what is not one.
                return Ok(());
            }
            _ => {
                for c in self.chars.by_ref() {
                    self.out.push(c);
                    match c {
                        'i' | 'm' | 's' | 'U' | '-' => {}
                        ':' | ')' => return Ok(()),
                        _ => return Err(format!("unknown group \"(?{c}\"")),
                    }
                }
            }
        }
        Err("missing closing parenthesis".to_owned())
    }

    /// What follows `[`.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.chars.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(c) = self.chars.next() else {
                return Err("missing closing ]".to_owned());
            };
            match c {
                ']' if !first => break,
                '[' if self.chars.peek() == Some(&':') => self.posix()?,
                '-' => self.class_dash(first),
                '\\' => self.class_escape()?,
                _ => self.push_char(c),
            }
            first = false;
        }
        self.out.push(']');
        Ok(())
    }

    /// A dash is a character at either end of a class, and a range between two characters.
    fn class_dash(&mut self, first: bool) {
        match self.chars.peek() {
            Some(']') => self.push_char('-'),
            _ if first => self.push_char('-'),
            _ => {
                self.out.push('-');
                // `[+--]` is a range up to the dash; to Rust, two dashes subtract.
                if self.chars.next_if_eq(&'-').is_some() {
                    self.push_char('-');
                }
            }
        }
    }

    fn class_escape(&mut self) -> Result<(), String> {
        // After the dash of a range only a character may stand; Rust refuses a set there.
        let c = self.escaped()?;
        match c {
            'd' => self.out.push_str("[0-9]"),
            'D' => self.out.push_str("[^0-9]"),
            'w' => self.out.push_str("[0-9A-Za-z_]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            's' => self.out.push_str(r"[\t\n\f\r ]"),
            'S' => self.out.push_str(r"[^\t\n\f\r ]"),
            _ => self.common_escape(c)?,
        }
        Ok(())
    }

    /// `[:alpha:]`; without the closing `:]`, the bracket is a character.
    fn posix(&mut self) -> Result<(), String> {
        let rest: String = self.chars.clone().take(12).collect();
        let Some(end) = rest.find(":]").filter(|&end| end > 0) else {
            self.push_char('[');
            return Ok(());
        };
        let name = &rest[1..end];
        if !name
            .trim_start_matches('^')
            .bytes()
            .all(|byte| byte.is_ascii_lowercase())
        {
            return Err(format!("unknown class \"[:{name}:]\""));
        }
        self.out.push('[');
        self.out.push_str(&rest[..end + 2]);
        // The name is ASCII, so that bytes are characters.
        self.chars.nth(end + 1);
        Ok(())
    }

    fn escaped(&mut self) -> Result<char, String> {
        self.chars
            .next()
            .ok_or_else(|| "trailing backslash".to_owned())
    }

    fn push_escaped(&mut self, c: char) {
        self.out.push('\\');
        self.out.push(c);
    }

    /// A character that must not be read as syntax.
    fn push_char(&mut self, c: char) {
        if c.is_ascii_alphanumeric() {
            self.out.push(c);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(self.out, "\\x{{{:x}}}", c as u32);
        }
    }
}

/// What every full match of `pattern` begins with, as far as that is easy to see.
pub(super) fn literal_prefix(pattern: &str) -> &str {
    let anchored = pattern.strip_prefix('^').unwrap_or(pattern);
    // An alternative anywhere may be one of the whole pattern.
    if pattern.contains('|') {
        return "";
    }
    let end = anchored
        .find([
            '\\', '.', '+', '*', '?', '(', ')', '[', ']', '{', '}', '^', '$',
        ])
        .unwrap_or(anchored.len());
    let literal = &anchored[..end];
    if anchored[end..].starts_with(['*', '?', '{', '+']) {
        // The last character is repeated, perhaps not at all.
        let last = literal.char_indices().next_back();
        return last.map_or("", |(last, _)| &literal[..last]);
    }
    literal
}
