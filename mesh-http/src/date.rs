//! The `date` header, made anew each second.

use std::cell::Cell;

use http::HeaderValue;

thread_local! {
    static DATE: Cell<(u64, [u8; 29])> = const { Cell::new((0, [0; 29])) };
}

/// The text of now.
pub(crate) fn text() -> [u8; 29] {
    let now = mesh_core::clock::wall();
    let seconds = now
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let (made, mut text) = DATE.get();
    if made != seconds {
        let fresh = httpdate::fmt_http_date(now);
        text.copy_from_slice(&fresh.as_bytes()[..29]);
        DATE.set((seconds, text));
    }
    text
}

/// The value of now.
pub(crate) fn value() -> HeaderValue {
    HeaderValue::from_bytes(&text()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
