use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::FractionalPercent;

/// A value of a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeValue {
    /// A number; a whole one is an integer too.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// A share.
    Fraction(FractionalPercent),
    /// Anything else.
    Text(Arc<str>),
}

impl RuntimeValue {
    /// What a text stands for: a number, a truth value, a fractional percent as
    /// `{"numerator": 5, "denominator": "MILLION"}`, or itself.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let trimmed = text.trim();
        if let Some(number) = trimmed.parse().ok().filter(|n: &f64| n.is_finite()) {
            return Self::Number(number);
        }
        match trimmed {
            _ if trimmed.eq_ignore_ascii_case("true") => Self::Bool(true),
            _ if trimmed.eq_ignore_ascii_case("false") => Self::Bool(false),
            _ => fraction(trimmed).map_or_else(|| Self::Text(text.into()), Self::Fraction),
        }
    }

    fn integer(&self) -> Option<u64> {
        match self {
            // The largest whole numbers that are exact.
            Self::Number(n) if n.fract() == 0.0 && (0.0..9e15).contains(n) => Some(*n as u64),
            _ => None,
        }
    }

    fn fraction(&self) -> Option<FractionalPercent> {
        match self {
            Self::Fraction(fraction) => Some(*fraction),
            // Envoy: whatever exceeds 100 means always.
            _ => self
                .integer()
                .map(|n| FractionalPercent::percent(n.min(100) as u32)),
        }
    }
}

impl fmt::Display for RuntimeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(text),
            Self::Fraction(share) => write!(
                f,
                "{{\"numerator\":{},\"denominator\":\"{}\"}}",
                share.numerator(),
                denominator_name(share.denominator())
            ),
        }
    }
}

const fn denominator_name(denominator: u32) -> &'static str {
    match denominator {
        10_000 => "TEN_THOUSAND",
        1_000_000 => "MILLION",
        _ => "HUNDRED",
    }
}

/// `{numerator: 5, denominator: MILLION}`, with or without quotes; anything else is none.
fn fraction(text: &str) -> Option<FractionalPercent> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    let (mut numerator, mut denominator) = (0, "HUNDRED");
    for pair in inside.split(',') {
        let (key, value) = pair.split_once(':')?;
        let value = value.trim().trim_matches('"');
        match key.trim().trim_matches('"') {
            "numerator" => numerator = value.parse().ok()?,
            "denominator" => denominator = value,
            _ => return None,
        }
    }
    match denominator {
        "HUNDRED" => Some(FractionalPercent::percent(numerator)),
        "TEN_THOUSAND" => Some(FractionalPercent::ten_thousandth(numerator)),
        "MILLION" => Some(FractionalPercent::millionth(numerator)),
        _ => None,
    }
}

const NONE: u64 = u64::MAX;

/// What counts for one key, in each form that somebody may ask for. Each reader reads one of them, so that
/// no order between them matters.
pub(super) struct Slot {
    pub(super) key: Arc<str>,
    /// Numerator above, denominator below; [`NONE`] when it is no share.
    fraction: AtomicU64,
    integer: AtomicU64,
}

impl Slot {
    pub(super) fn new(key: Arc<str>) -> Self {
        Self {
            key,
            fraction: AtomicU64::new(NONE),
            integer: AtomicU64::new(NONE),
        }
    }

    pub(super) fn set(&self, value: Option<&RuntimeValue>) {
        let fraction = value.and_then(RuntimeValue::fraction);
        let packed = fraction
            .map(|share| u64::from(share.numerator()) << 32 | u64::from(share.denominator()));
        self.fraction
            .store(packed.unwrap_or(NONE), Ordering::Relaxed);
        let integer = value.and_then(RuntimeValue::integer);
        self.integer
            .store(integer.unwrap_or(NONE), Ordering::Relaxed);
    }

    pub(super) fn fraction(&self) -> Option<FractionalPercent> {
        let packed = self.fraction.load(Ordering::Relaxed);
        let (numerator, denominator) = ((packed >> 32) as u32, packed as u32);
        match denominator {
            100 => Some(FractionalPercent::percent(numerator)),
            10_000 => Some(FractionalPercent::ten_thousandth(numerator)),
            1_000_000 => Some(FractionalPercent::millionth(numerator)),
            _ => None,
        }
    }

    pub(super) fn integer(&self) -> Option<u64> {
        Some(self.integer.load(Ordering::Relaxed)).filter(|&n| n != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::RuntimeValue;
    use crate::FractionalPercent;

    #[test]
    fn texts_become_what_they_look_like() {
        assert_eq!(RuntimeValue::text("1.5"), RuntimeValue::Number(1.5));
        assert_eq!(RuntimeValue::text(" 3 "), RuntimeValue::Number(3.0));
        assert_eq!(RuntimeValue::text("TRUE"), RuntimeValue::Bool(true));
        assert_eq!(
            RuntimeValue::text("{numerator: 5, denominator: MILLION}"),
            RuntimeValue::Fraction(FractionalPercent::millionth(5))
        );
        for text in [
            "inf",
            "nan",
            "{",
            "{}",
            "{a: 1}",
            "{numerator: -1}",
            "{numerator: 1, denominator: TEN}",
        ] {
            assert_eq!(
                RuntimeValue::text(text),
                RuntimeValue::Text(text.into()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in [
            "7",
            "1.5",
            "false",
            "x y",
            r#"{"numerator":4,"denominator":"TEN_THOUSAND"}"#,
        ] {
            assert_eq!(RuntimeValue::text(text).to_string(), text);
        }
    }
}
