use std::fmt::Write as _;

use super::{Ask, Page, ROUTES};

pub(super) fn list() -> String {
    let mut out = String::new();
    for route in ROUTES.iter().skip(1) {
        let _ = writeln!(out, "  {}: {}", route.path, route.what);
    }
    out
}

pub(super) fn page(_: &Ask<'_>) -> Page {
    Page::text("admin commands are:\n".to_owned() + &list())
}
