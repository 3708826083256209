use std::fmt::Write as _;

use super::{
    Ask, Page,
    routes::{ParameterKind, ROUTES},
};

pub(super) fn list() -> String {
    let mut out = String::new();
    for route in ROUTES {
        let post = if route.mutates { " (POST)" } else { "" };
        let _ = writeln!(out, "  {}{post}: {}", route.path, route.what);
        for parameter in route.parameters {
            let _ = write!(out, "      {}: {}", parameter.name, parameter.what);
            if let ParameterKind::OneOf(words) = parameter.kind {
                let _ = write!(out, "; One of ({})", words.join(", "));
            }
            out.push('\n');
        }
    }
    out
}

pub(super) fn page(_: &Ask<'_>) -> Page {
    Page::text("admin commands are:\n".to_owned() + &list())
}
