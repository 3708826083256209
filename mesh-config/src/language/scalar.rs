//! What a YAML scalar means to Envoy: its YAML reader first guesses a type, then the field decides.

use std::borrow::Cow;

/// A scalar as written, and whether its type may be guessed.
#[derive(Debug)]
pub(crate) struct Scalar {
    text: Box<str>,
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes or tag: it may be nothing at all.
    Plain,
    /// With a tag other than `!`: guessed, but never nothing.
    Tagged,
    /// In quotes or a block, or tagged `!`: text.
    Quoted,
}

/// The guess.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Guess<'a> {
    Null,
    Bool(bool),
    /// Integers of 32 bits; larger ones and fractions stay text.
    Int(i32),
    Text(Cow<'a, str>),
}

impl Scalar {
    pub(crate) fn new(text: impl Into<Box<str>>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_null(&self) -> bool {
        self.style == Style::Plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }

    pub(crate) fn guess(&self) -> Guess<'_> {
        if self.style == Style::Quoted {
            return Guess::Text(Cow::Borrowed(&self.text));
        }
        if self.is_null() {
            return Guess::Null;
        }
        if let Some(value) = plain_bool(&self.text) {
            return Guess::Bool(value);
        }
        match plain_integer(&self.text) {
            Some(number) => i32::try_from(number).map_or_else(
                // What the field reads is the number, whatever base it was written in.
                |_| Guess::Text(Cow::Owned(number.to_string())),
                Guess::Int,
            ),
            None => Guess::Text(Cow::Borrowed(&self.text)),
        }
    }
}

/// YAML 1.1 truth values: in lower case, in upper case, or with a capital.
fn plain_bool(text: &str) -> Option<bool> {
    let rest = text.get(1..).unwrap_or_default();
    let lower = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase());
    let upper = |s: &str| s.bytes().all(|b| b.is_ascii_uppercase());
    if !(lower(text)
        || (text.starts_with(|c: char| c.is_ascii_uppercase()) && (lower(rest) || upper(rest))))
    {
        return None;
    }
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "true" | "on" => Some(true),
        "n" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// An integer in base ten, sixteen (`0x1f`) or, with a leading zero, eight.
fn plain_integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (base, digits) = if let Some(hex) = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        (16, hex)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, digits.get(1..)?)
    } else {
        (10, digits)
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, base).ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// A truth value in quotes, as the JSON reader takes it.
pub(super) fn quoted_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// An integer in text, as the JSON reader takes it: digits, or a float without a fraction.
pub(super) fn text_integer(text: &str) -> Option<i128> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(number.into());
    }
    let number = text_float(text).filter(|_| !text.contains(|c: char| c.is_ascii_whitespace()))?;
    // Floats are exact only up to here, and so is the JSON reader.
    let exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    exact.then_some(number as i128)
}

/// A finite float in text, in decimal or as a hexadecimal integer.
pub(super) fn text_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    if let Some(digits) = hex {
        return u32::from_str_radix(digits, 16).ok().map(f64::from);
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Guess<'static> {
        let scalar = Scalar::new(text, Style::Plain);
        match scalar.guess() {
            Guess::Text(text) => Guess::Text(Cow::Owned(text.into_owned())),
            Guess::Null => Guess::Null,
            Guess::Bool(value) => Guess::Bool(value),
            Guess::Int(number) => Guess::Int(number),
        }
    }

    fn text(text: &str) -> Guess<'static> {
        Guess::Text(Cow::Owned(text.to_owned()))
    }

    #[test]
    fn a_leading_zero_means_base_eight() {
        assert_eq!(plain("010"), Guess::Int(8));
        assert_eq!(plain("0"), Guess::Int(0));
        assert_eq!(plain("08"), text("08"));
        assert_eq!(plain("-010"), Guess::Int(-8));
        assert_eq!(plain("0o10"), text("0o10"));
    }

    #[test]
    fn integers_beyond_32_bits_are_text_in_base_ten() {
        assert_eq!(plain("2147483647"), Guess::Int(i32::MAX));
        assert_eq!(plain("0xffffffff"), text("4294967295"));
        assert_eq!(plain("99999999999999999999"), text("99999999999999999999"));
    }

    #[test]
    fn fractions_stay_as_written() {
        assert_eq!(plain("1.50"), text("1.50"));
        assert_eq!(plain("1e3"), text("1e3"));
    }

    #[test]
    fn truth_has_many_names_but_not_in_any_case() {
        for yes in ["y", "Y", "yes", "Yes", "YES", "true", "on", "ON"] {
            assert_eq!(plain(yes), Guess::Bool(true), "{yes}");
        }
        for no in ["n", "N", "no", "No", "False", "OFF"] {
            assert_eq!(plain(no), Guess::Bool(false), "{no}");
        }
        assert_eq!(plain("tRue"), text("tRue"));
        assert_eq!(plain("yEs"), text("yEs"));
    }

    #[test]
    fn quotes_make_text_and_tags_unmake_null() {
        assert_eq!(Scalar::new("5", Style::Quoted).guess(), text("5"));
        assert_eq!(Scalar::new("", Style::Tagged).guess(), text(""));
        assert_eq!(plain(""), Guess::Null);
        assert_eq!(plain("~"), Guess::Null);
    }

    #[test]
    fn text_is_an_integer_when_it_has_no_fraction() {
        assert_eq!(text_integer("010"), Some(10));
        assert_eq!(text_integer("1e3"), Some(1000));
        assert_eq!(text_integer("1024.0"), Some(1024));
        assert_eq!(text_integer("0x10"), Some(16));
        assert_eq!(text_integer("18446744073709551615"), Some(u64::MAX.into()));
        for wrong in ["", " 1", "1.5", "1e400", "nan", "x", "1_0"] {
            assert_eq!(text_integer(wrong), None, "{wrong}");
        }
    }
}
