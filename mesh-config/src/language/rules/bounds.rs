//! Rules on numbers: of values, of durations, of lengths and counts.

use std::fmt::Display;

use prost_reflect::Value;

use super::super::wkt::duration_text;
use super::{float, integer, nanoseconds};

/// Where a number may lie.
#[derive(Debug)]
pub(crate) struct Bounds<T> {
    exactly: Option<T>,
    lower: Option<Limit<T>>,
    upper: Option<Limit<T>>,
    among: Vec<T>,
    not_among: Vec<T>,
    zero_is_unset: bool,
}

#[derive(Clone, Copy, Debug)]
struct Limit<T> {
    at: T,
    inclusive: bool,
}

impl<T> Default for Bounds<T> {
    fn default() -> Self {
        Self {
            exactly: None,
            lower: None,
            upper: None,
            among: Vec::new(),
            not_among: Vec::new(),
            zero_is_unset: false,
        }
    }
}

/// A number that a rule can be about.
pub(crate) trait Number: Copy + PartialOrd + Default {
    fn of(value: &Value) -> Option<Self>;
}

impl Number for i128 {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Message(duration) => Some(nanoseconds(duration)),
            _ => integer(value),
        }
    }
}

impl Number for f64 {
    fn of(value: &Value) -> Option<Self> {
        float(value)
    }
}

impl<T: Number> Bounds<T> {
    /// Takes a rule on numbers; false when there is none of that name.
    pub(super) fn read(&mut self, name: &str, value: &Value) -> bool {
        let one = || T::of(value);
        let many = || {
            value
                .as_list()
                .map(|l| l.iter().filter_map(T::of).collect())
                .unwrap_or_default()
        };
        let limit = |inclusive| one().map(|at| Limit { at, inclusive });
        match name {
            "const" => self.exactly = one(),
            "gt" => self.lower = limit(false),
            "gte" => self.lower = limit(true),
            "lt" => self.upper = limit(false),
            "lte" => self.upper = limit(true),
            "in" => self.among = many(),
            "not_in" => self.not_among = many(),
            "ignore_empty" => self.zero_is_unset = value.as_bool().unwrap_or_default(),
            _ => return false,
        }
        true
    }

    fn broken(&self, number: T) -> Option<Broken<'_, T>> {
        if self.zero_is_unset && number == T::default() {
            return None;
        }
        if let Some(expected) = self.exactly.filter(|expected| *expected != number) {
            return Some(Broken::Exactly(expected));
        }
        let above = |limit: Limit<T>| number > limit.at || (limit.inclusive && number == limit.at);
        let below = |limit: Limit<T>| number < limit.at || (limit.inclusive && number == limit.at);
        match (self.lower, self.upper) {
            // Limits the wrong way round mean: anywhere but between them.
            (Some(lower), Some(upper)) if lower.at > upper.at => {
                if !above(lower) && !below(upper) {
                    return Some(Broken::Between(upper.at, lower.at));
                }
            }
            (lower, upper) => {
                if let Some(limit) = lower.filter(|limit| !above(*limit)) {
                    return Some(Broken::TooLow(limit));
                }
                if let Some(limit) = upper.filter(|limit| !below(*limit)) {
                    return Some(Broken::TooHigh(limit));
                }
            }
        }
        if !self.among.is_empty() && !self.among.contains(&number) {
            return Some(Broken::NotAmong(&self.among));
        }
        self.not_among
            .contains(&number)
            .then_some(Broken::Among(&self.not_among))
    }
}

impl<T: Number + Display> Bounds<T> {
    /// What the bounds have against a number of `unit`.
    pub(super) fn objection(&self, number: T, unit: &str) -> Option<String> {
        let words = self.broken(number)?.words(|number| number.to_string());
        Some(format!("{words} {unit}").trim_end().to_owned())
    }
}

impl Bounds<i128> {
    pub(super) fn duration_objection(&self, nanoseconds: i128) -> Option<String> {
        Some(self.broken(nanoseconds)?.words(|nanos| {
            let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            duration_text(
                i64::try_from(seconds).unwrap_or(i64::MAX),
                i32::try_from(rest).unwrap_or(0),
            )
        }))
    }

    /// Takes `min_items`, `max_pairs` and the like.
    pub(super) fn read_count(&mut self, name: &str, value: &Value) -> bool {
        match name {
            "min_items" | "min_pairs" => self.read("gte", value),
            "max_items" | "max_pairs" => self.read("lte", value),
            "ignore_empty" => self.read(name, value),
            _ => false,
        }
    }

    /// Takes `len`, `min_len` and `max_len`.
    pub(super) fn read_length(&mut self, name: &str, value: &Value) -> bool {
        match name {
            "len" => self.read("const", value),
            "min_len" => self.read("gte", value),
            "max_len" => self.read("lte", value),
            "ignore_empty" => self.read(name, value),
            _ => false,
        }
    }
}

enum Broken<'a, T> {
    Exactly(T),
    TooLow(Limit<T>),
    TooHigh(Limit<T>),
    Between(T, T),
    NotAmong(&'a [T]),
    Among(&'a [T]),
}

impl<T: Copy> Broken<'_, T> {
    fn words(&self, show: impl Fn(T) -> String) -> String {
        let list = |numbers: &[T]| {
            numbers
                .iter()
                .map(|n| show(*n))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Self::Exactly(expected) => format!("must be {}", show(*expected)),
            Self::TooLow(limit) if limit.inclusive => {
                format!("must be at least {}", show(limit.at))
            }
            Self::TooLow(limit) => format!("must be more than {}", show(limit.at)),
            Self::TooHigh(limit) if limit.inclusive => {
                format!("must be at most {}", show(limit.at))
            }
            Self::TooHigh(limit) => format!("must be less than {}", show(limit.at)),
            Self::Between(from, to) => {
                format!("must not be between {} and {}", show(*from), show(*to))
            }
            Self::NotAmong(numbers) => format!("must be one of {}", list(numbers)),
            Self::Among(numbers) => format!("must not be one of {}", list(numbers)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive_or_not_as_written() {
        let mut bounds = Bounds::<i128>::default();
        assert!(bounds.read("gt", &Value::U32(0)));
        assert!(bounds.read("lte", &Value::U32(5)));
        assert_eq!(
            bounds.objection(0, "").as_deref(),
            Some("must be more than 0")
        );
        assert_eq!(bounds.objection(1, ""), None);
        assert_eq!(bounds.objection(5, ""), None);
        assert_eq!(
            bounds.objection(6, "items").as_deref(),
            Some("must be at most 5 items")
        );
        assert!(!bounds.read("bogus", &Value::U32(5)));
    }

    #[test]
    fn not_a_number_is_within_no_bounds() {
        let mut bounds = Bounds::<f64>::default();
        bounds.read("gte", &Value::F64(0.0));
        assert!(bounds.objection(f64::NAN, "").is_some());
    }

    #[test]
    fn limits_the_wrong_way_round_exclude_what_is_between() {
        let mut bounds = Bounds::<i128>::default();
        bounds.read("gt", &Value::U32(10));
        bounds.read("lt", &Value::U32(5));
        assert_eq!(bounds.objection(4, ""), None);
        assert_eq!(bounds.objection(11, ""), None);
        assert_eq!(
            bounds.objection(7, "").as_deref(),
            Some("must not be between 5 and 10")
        );
    }

    #[test]
    fn zero_may_mean_unset() {
        let mut bounds = Bounds::<i128>::default();
        bounds.read("gte", &Value::U32(5));
        bounds.read("ignore_empty", &Value::Bool(true));
        assert_eq!(bounds.objection(0, ""), None);
        assert!(bounds.objection(1, "").is_some());
    }
}
