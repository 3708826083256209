use std::{
    fmt::Write as _,
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use super::sink::{Sink, Trusted};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// What `%START_TIME%` prints when no format is given.
pub(super) const DEFAULT: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

/// A compiled `strftime` format, in UTC, with Envoy's `%f` and `%1f` to `%9f`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimeFormat(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// Text at the start, or behind a fraction.
    Literal(Box<str>),
    Seconds(Seconds),
    /// So many digits of the second's fraction.
    Fraction(u8),
}

/// Neighbours that stay the same for a second, with their text for the one that was asked for last: a log
/// prints the same second many thousand times.
#[derive(Debug, Default)]
struct Seconds {
    parts: Vec<Part>,
    last: Mutex<Option<(u64, String)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Year,
    YearShort,
    Month,
    MonthName { short: bool },
    Day { pad: char },
    DayOfYear,
    WeekdayName { short: bool },
    WeekdayNumber,
    Hour,
    HourOfTwelve,
    Half,
    Minute,
    Second,
    Epoch,
}

impl TimeFormat {
    /// Compiles `text`; `Err` is the reason.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut this = Self(Vec::new());
        this.push_all(text)?;
        Ok(this)
    }

    fn push_all(&mut self, text: &str) -> Result<(), String> {
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            let specifier = chars.next().ok_or("time format ends with a percent sign")?;
            if let Some(text) = constant(specifier) {
                literal.push_str(text);
                continue;
            }
            self.push_literal(&mut literal);
            match specifier {
                'F' => self.push_all("%Y-%m-%d")?,
                'T' => self.push_all("%H:%M:%S")?,
                'R' => self.push_all("%H:%M")?,
                'D' => self.push_all("%m/%d/%y")?,
                // Abseil's seconds with a fraction: `%E3S`.
                'E' => self.push_all(&seconds(&mut chars)?)?,
                'f' => self.0.push(Piece::Fraction(9)),
                '1'..='9' if chars.next() == Some('f') => {
                    self.0.push(Piece::Fraction(specifier as u8 - b'0'));
                }
                _ => self.push(
                    part(specifier)
                        .ok_or_else(|| format!("unknown time specifier \"%{specifier}\""))?,
                ),
            }
        }
        self.push_literal(&mut literal);
        Ok(())
    }

    fn push_literal(&mut self, literal: &mut String) {
        if !literal.is_empty() {
            self.push(Part::Literal(std::mem::take(literal).into()));
        }
    }

    fn push(&mut self, part: Part) {
        match (self.0.last_mut(), part) {
            (Some(Piece::Seconds(seconds)), part) => seconds.parts.push(part),
            (_, Part::Literal(text)) => self.0.push(Piece::Literal(text)),
            (_, part) => self.0.push(Piece::Seconds(Seconds {
                parts: vec![part],
                last: Mutex::default(),
            })),
        }
    }

    /// Appends `time`. A time before 1970 is printed as 1970.
    pub(super) fn write<S: Sink>(&self, time: SystemTime, out: &mut S) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.trusted(text),
                Piece::Seconds(seconds) => seconds.write(since.as_secs(), out),
                Piece::Fraction(digits) => {
                    let unit = 10u32.pow(9 - u32::from(*digits));
                    let value = u64::from(since.subsec_nanos() / unit);
                    padded(out, value, usize::from(*digits), '0');
                }
            }
        }
    }
}

impl Seconds {
    fn write<S: Sink>(&self, epoch: u64, out: &mut S) {
        // Another thread may just use the text: then it is made once more.
        let Ok(mut last) = self.last.try_lock() else {
            return self.make(epoch, out);
        };
        if let Some((of, text)) = &*last
            && *of == epoch
        {
            return out.trusted(text);
        }
        let mut text = last.take().map_or_else(String::new, |(_, text)| text);
        text.clear();
        self.make(epoch, &mut text);
        out.trusted(&text);
        *last = Some((epoch, text));
    }

    fn make<S: Sink>(&self, epoch: u64, out: &mut S) {
        let date = Date::new(epoch);
        self.parts.iter().for_each(|part| date.write(part, out));
    }
}

/// The text is made again when it is needed.
impl Clone for Seconds {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            last: Mutex::default(),
        }
    }
}

impl PartialEq for Seconds {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for Seconds {}

fn seconds(chars: &mut std::str::Chars<'_>) -> Result<String, &'static str> {
    match (chars.next(), chars.next()) {
        (Some(digits @ '1'..='9'), Some('S')) => Ok(format!("%S.%{digits}f")),
        _ => Err("%E must be followed by a digit and S"),
    }
}

const fn constant(specifier: char) -> Option<&'static str> {
    Some(match specifier {
        '%' => "%",
        'n' => "\n",
        't' => "\t",
        'z' => "+0000",
        'Z' => "UTC",
        _ => return None,
    })
}

const fn part(specifier: char) -> Option<Part> {
    Some(match specifier {
        'Y' => Part::Year,
        'y' => Part::YearShort,
        'm' => Part::Month,
        'B' => Part::MonthName { short: false },
        'b' | 'h' => Part::MonthName { short: true },
        'd' => Part::Day { pad: '0' },
        'e' => Part::Day { pad: ' ' },
        'j' => Part::DayOfYear,
        'A' => Part::WeekdayName { short: false },
        'a' => Part::WeekdayName { short: true },
        'w' => Part::WeekdayNumber,
        'H' => Part::Hour,
        'I' => Part::HourOfTwelve,
        'p' => Part::Half,
        'M' => Part::Minute,
        'S' => Part::Second,
        's' => Part::Epoch,
        _ => return None,
    })
}

/// `time` as event logs print it: RFC 3339 in UTC, with milliseconds unless they are zero. A time before
/// 1970 is printed as 1970.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = Date::new(since.as_secs());
    let second = date.second_of_day;
    let mut out = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        date.year,
        date.month,
        date.day,
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
    if since.subsec_millis() > 0 {
        // Writing to a string cannot fail.
        let _ = write!(out, ".{:03}", since.subsec_millis());
    }
    out.push('Z');
    out
}

/// A point in time as people write it, in UTC and the Gregorian calendar.
struct Date {
    epoch: u64,
    year: u64,
    month: u64,
    day: u64,
    day_of_year: u64,
    weekday: u64,
    second_of_day: u64,
}

impl Date {
    fn new(epoch: u64) -> Self {
        let days = epoch / 86_400;
        // Count from 0000-03-01, so that the leap day is the last day of a "year", and in cycles of
        // 400 years, which are all equally long (146,097 days).
        let shifted = days + 719_468;
        let (era, in_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
        let from_march = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * from_march + 2) / 153;
        let day = from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        // March 1 is day 60 or 61 of its year; January and February belong to the "year" before.
        let day_of_year = if month > 2 {
            from_march + 60 + u64::from(leap)
        } else {
            from_march - 305
        };
        Self {
            epoch,
            year,
            month,
            day,
            day_of_year,
            weekday: (days + 4) % 7,
            second_of_day: epoch % 86_400,
        }
    }

    fn write<S: Sink>(&self, part: &Part, out: &mut S) {
        let hour = self.second_of_day / 3_600;
        match part {
            Part::Literal(text) => out.trusted(text),
            Part::Year => padded(out, self.year, 4, '0'),
            Part::YearShort => padded(out, self.year % 100, 2, '0'),
            Part::Month => padded(out, self.month, 2, '0'),
            Part::MonthName { short } => name(out, MONTHS[self.month as usize - 1], *short),
            Part::Day { pad } => padded(out, self.day, 2, *pad),
            Part::DayOfYear => padded(out, self.day_of_year, 3, '0'),
            Part::WeekdayName { short } => name(out, DAYS[self.weekday as usize], *short),
            Part::WeekdayNumber => padded(out, self.weekday, 1, '0'),
            Part::Hour => padded(out, hour, 2, '0'),
            Part::HourOfTwelve => padded(out, (hour + 11) % 12 + 1, 2, '0'),
            Part::Half => out.trusted(if hour < 12 { "AM" } else { "PM" }),
            Part::Minute => padded(out, self.second_of_day / 60 % 60, 2, '0'),
            Part::Second => padded(out, self.second_of_day % 60, 2, '0'),
            Part::Epoch => padded(out, self.epoch, 1, '0'),
        }
    }
}

fn name<S: Sink>(out: &mut S, name: &str, short: bool) {
    out.trusted(if short { &name[..3] } else { name });
}

/// Appends `value` with at least `width` characters.
fn padded<S: Sink>(out: &mut S, mut value: u64, width: usize, pad: char) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    while digits.len() - start < width {
        start -= 1;
        digits[start] = pad as u8;
    }
    if let Ok(text) = std::str::from_utf8(&digits[start..]) {
        out.trusted(text);
    }
}

/// Appends a number in decimal.
pub(super) fn number<S: Sink>(out: &mut S, value: i64) {
    match u64::try_from(value) {
        Ok(value) => padded(out, value, 1, '0'),
        Err(_) => {
            // Writing to a sink cannot fail.
            let _ = write!(Trusted(out), "{value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{DEFAULT, TimeFormat, rfc3339};

    fn show(format: &str, secs: u64, nanos: u32) -> String {
        let mut out = String::new();
        TimeFormat::parse(format)
            .unwrap()
            .write(UNIX_EPOCH + Duration::new(secs, nanos), &mut out);
        out
    }

    #[test]
    fn the_default_prints_milliseconds_in_utc() {
        assert_eq!(
            show(DEFAULT, 1_795_196_515, 176_999_999),
            "2026-11-20T17:41:55.176Z"
        );
        assert_eq!(show(DEFAULT, 0, 0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn the_text_of_a_second_is_not_kept_for_the_next() {
        let format = TimeFormat::parse(DEFAULT).unwrap();
        for (secs, text) in [
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
        ] {
            let mut out = String::new();
            format.write(UNIX_EPOCH + Duration::from_secs(secs), &mut out);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn every_specifier_prints_what_strftime_prints() {
        let secs = 951_782_400; // 2000-02-29, a leap day in a century divisible by 400.
        assert_eq!(
            show("%F %T|%D %R|%a %A|%b %B %h|%e|%j|%w|%y", secs, 0),
            "2000-02-29 00:00:00|02/29/00 00:00|Tue Tuesday|Feb February Feb|29|060|2|00"
        );
        assert_eq!(
            show("%I%p %s.%9f %f %1f %z %Z %%", secs + 13 * 3_600, 12_345_678),
            "01PM 951829200.012345678 012345678 0 +0000 UTC %"
        );
        assert_eq!(show("%I%p %E3S", secs, 1_000_000), "12AM 00.001");
        assert_eq!(show("%e", 0, 0), " 1");
    }

    #[test]
    fn event_logs_leave_out_milliseconds_that_are_zero() {
        let show = |millis| rfc3339(UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(show(1_795_198_193_366), "2026-11-20T18:09:53.366Z");
        assert_eq!(show(1_000), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut last = (1970, 1, 0, 0);
        for day in 0..146_097 {
            let date = super::Date::new(day * 86_400);
            let next = (date.year, date.month, date.day, date.day_of_year);
            let same_month = (last.0, last.1, last.2 + 1, last.3 + 1);
            let next_month = (last.0, last.1 + 1, 1, last.3 + 1);
            let next_year = (last.0 + 1, 1, 1, 1);
            assert!(
                next == same_month || next == next_month || next == next_year && last.1 == 12,
                "{last:?} -> {next:?}"
            );
            assert!(next.2 <= 31 && (next.1 != 2 || next.2 <= 29), "{next:?}");
            last = next;
        }
        assert_eq!(last, (2369, 12, 31, 365));
    }

    #[test]
    fn an_unknown_specifier_is_an_error() {
        assert_eq!(
            TimeFormat::parse("%Q").unwrap_err(),
            "unknown time specifier \"%Q\""
        );
        assert!(TimeFormat::parse("%Y%").is_err());
        assert!(TimeFormat::parse("%0f").is_err());
        assert!(TimeFormat::parse("%3S").is_err());
    }
}
