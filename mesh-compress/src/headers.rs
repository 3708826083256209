//! What the layers read and write.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, Entry, UPGRADE, VARY,
    },
};

use crate::{Coding, Scope};

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// All values of a list, joined.
pub(crate) fn list(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter();
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.any(|value| {
        let value = value.to_str().unwrap_or_default();
        let mut tokens = value.split(',');
        tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
    })
}

pub(crate) fn forbids_transform(headers: &HeaderMap) -> bool {
    has_token(headers, &CACHE_CONTROL, "no-transform")
}

pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

/// Whether a message may be shorter than it must be.
pub(crate) fn is_too_short(headers: &HeaderMap, scope: &Scope) -> bool {
    let length = text(headers, &CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    length.is_some_and(|length| length < scope.min_content_length)
}

pub(crate) fn is_allowed_type(headers: &HeaderMap, scope: &Scope) -> bool {
    scope.allows(text(headers, &CONTENT_TYPE))
}

/// Says that the body is coded: its length and a strong tag are no longer true.
pub(crate) fn set_coding(headers: &mut HeaderMap, coding: Coding) {
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.token()));
}

pub(crate) fn soften_etag(headers: &mut HeaderMap, weaken: bool) {
    let Entry::Occupied(mut etag) = headers.entry(ETAG) else {
        return;
    };
    let value = etag.get().as_bytes();
    if value.len() > 2 && value[..2].eq_ignore_ascii_case(b"w/") {
        return;
    }
    let weak = HeaderValue::from_bytes(&[b"W/", value].concat());
    match weak {
        Ok(weak) if weaken => {
            etag.insert(weak);
        }
        _ => {
            etag.remove();
        }
    }
}

/// Tells caches that another client may get another coding.
pub(crate) fn vary(headers: &mut HeaderMap) {
    const ACCEPT_ENCODING: &str = "Accept-Encoding";
    match list(headers, &VARY) {
        None => {
            headers.insert(VARY, HeaderValue::from_static(ACCEPT_ENCODING));
        }
        Some(_) if has_token(headers, &VARY, "*") => {}
        Some(_) if has_token(headers, &VARY, ACCEPT_ENCODING) => {}
        Some(list) => {
            if let Ok(value) = HeaderValue::from_str(&format!("{list}, {ACCEPT_ENCODING}")) {
                headers.insert(VARY, value);
            }
        }
    }
}

/// Takes the coding off the end of the list, if it is the last that was applied.
pub(crate) fn take_coding(headers: &mut HeaderMap, coding: Coding) -> bool {
    let Some(codings) = list(headers, &CONTENT_ENCODING) else {
        return false;
    };
    let (rest, last) = codings.rsplit_once(',').unwrap_or(("", &codings));
    let last = last.trim();
    let same = last.eq_ignore_ascii_case(coding.token())
        || (coding == Coding::Gzip && last.eq_ignore_ascii_case("x-gzip"));
    if !same {
        return false;
    }
    let rest = rest.trim();
    match HeaderValue::from_str(rest) {
        Ok(rest) if !rest.is_empty() => {
            headers.insert(CONTENT_ENCODING, rest);
        }
        _ => {
            headers.remove(CONTENT_ENCODING);
        }
    }
    headers.remove(CONTENT_LENGTH);
    true
}
