//! Texts of the well-known types: durations, timestamps, base64.

/// Seconds of the longest duration that protobuf can write, some 10,000 years.
pub(crate) const DURATION_SECONDS_MAX: i64 = 315_576_000_000;

/// `"-1.5s"` to seconds and nanoseconds of the same sign.
pub(super) fn duration(text: &str) -> Result<(i64, i32), &'static str> {
    let number = text.strip_suffix('s').ok_or("must end in \"s\"")?;
    let (seconds, fraction) = match number.split_once('.') {
        Some((seconds, fraction)) => (seconds, Some(fraction)),
        None => (number, None),
    };
    let digits = seconds.strip_prefix('-').unwrap_or(seconds);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("must start with a whole number of seconds");
    }
    let whole: i64 = seconds.parse().map_err(|_| "is too long")?;
    if whole.abs() > DURATION_SECONDS_MAX {
        return Err("is too long");
    }
    let nanos = fraction.map_or(Ok(0), nanoseconds)?;
    Ok((
        whole,
        if seconds.starts_with('-') {
            -nanos
        } else {
            nanos
        },
    ))
}

fn nanoseconds(digits: &str) -> Result<i32, &'static str> {
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("must have one to nine digits after the point");
    }
    format!("{digits:0<9}").parse().map_err(|_| "is too long")
}

/// `"2026-01-31T12:00:00.5Z"`, or with an offset, to seconds and nanoseconds since 1970.
pub(super) fn timestamp(text: &str) -> Option<(i64, i32)> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let mark = |at: usize, expected: &str| text.get(at..at + 1) == Some(expected);
    let marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    if !marks.into_iter().all(|(at, expected)| mark(at, expected)) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_of(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit())?;
        nanos = nanoseconds(fraction.get(..end)?).ok()?;
        rest = fraction.get(end..)?;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds - offset(rest)?, nanos))
}

/// `Z`, `+01:00` or `-01:00` in seconds.
fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let two = |digits: &str| {
        (digits.len() == 2)
            .then(|| digits.parse::<u8>().ok())?
            .map(i64::from)
    };
    Some(sign * (two(hours)? * 3600 + two(minutes)? * 60))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Counts in years that start in March, so that the odd day of a leap year comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468
}

/// Base64 in either alphabet, padded or not.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = if text.len().is_multiple_of(4) {
        text.strip_suffix("==")
            .or_else(|| text.strip_suffix('='))
            .unwrap_or(text)
    } else {
        text
    };
    if digits.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in digits.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

/// The usual alphabet, padded.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0_u32, |group, byte| (group << 8) | u32::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for index in 0..4 {
            if index <= chunk.len() {
                out.push(char::from(
                    DIGITS[(group >> (18 - 6 * index)) as usize & 63],
                ));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// Seconds and nanoseconds as `"1.5s"`.
pub(super) fn duration_text(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let (seconds, nanos) = (seconds.unsigned_abs(), nanos.unsigned_abs());
    if nanos == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// Seconds and nanoseconds since 1970 as `"2026-01-31T12:00:00Z"`.
pub(super) fn timestamp_text(seconds: i64, nanos: i32) -> String {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The inverse of `days_since_1970`, over eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day % 3600 / 60, of_day % 60);
    let fraction = if nanos == 0 {
        String::new()
    } else {
        format!(".{nanos:09}")
    };
    let fraction = fraction.trim_end_matches('0');
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_with_a_unit() {
        assert_eq!(duration("0.25s"), Ok((0, 250_000_000)));
        assert_eq!(duration("-0.5s"), Ok((0, -500_000_000)));
        assert_eq!(duration("315576000000s"), Ok((DURATION_SECONDS_MAX, 0)));
        for wrong in [
            "",
            "s",
            "1",
            ".5s",
            "1.s",
            "1.s",
            "+1s",
            "--1s",
            "1S",
            "1.1234567890s",
            "315576000001s",
            "1 s",
            "1.-5s",
            "99999999999999999999s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for (seconds, nanos) in [(0, 0), (1, 5), (0, -500_000_000), (-3, 0), (7, 120_000_000)] {
            assert_eq!(
                duration(&duration_text(seconds, nanos)),
                Ok((seconds, nanos))
            );
        }
    }

    #[test]
    fn timestamps_count_from_1970() {
        assert_eq!(timestamp("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(timestamp("2000-03-01T00:00:00Z"), Some((951_868_800, 0)));
        assert_eq!(timestamp("1969-12-31T23:59:59.5Z"), Some((-1, 500_000_000)));
        assert_eq!(timestamp("1970-01-01T01:00:00+01:00"), Some((0, 0)));
        for wrong in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "1971-02-29T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00z",
            "1970-01-01T00:00:00.Z",
            "é970-01-01T00:00:00Z",
        ] {
            assert_eq!(timestamp(wrong), None, "{wrong}");
        }
        for seconds in [
            0,
            951_868_799,
            951_782_400,
            -62_135_596_800,
            253_402_300_799,
            1_709_164_800,
        ] {
            assert_eq!(timestamp(&timestamp_text(seconds, 0)), Some((seconds, 0)));
        }
    }

    #[test]
    fn base64_takes_both_alphabets_with_and_without_padding() {
        assert_eq!(base64("aGVsbG8=").as_deref(), Some(&b"hello"[..]));
        assert_eq!(base64("aGVsbG8").as_deref(), Some(&b"hello"[..]));
        assert_eq!(base64("_-8="), base64("/+8"));
        assert_eq!(base64("").as_deref(), Some(&b""[..]));
        for wrong in ["a", "aGVsb", "h!llo", "aGVsbG8==", "=", "aG=s"] {
            assert_eq!(base64(wrong), None, "{wrong}");
        }
        for text in ["", "a", "ab", "abc", "abcd"] {
            assert_eq!(
                base64(&to_base64(text.as_bytes())).as_deref(),
                Some(text.as_bytes())
            );
        }
    }
}
