//! The page that people click on.

use std::fmt::Write as _;

use super::{
    Ask, Page,
    routes::{Parameter, ParameterKind, ROUTES, Route},
};

const HEAD: &str = "<!DOCTYPE html>
<html lang='en'>
<head>
<title>mesh admin</title>
<style>
body { font-family: sans-serif; margin: 1em; }
table { border-collapse: collapse; }
td { padding: 4px 12px 4px 4px; vertical-align: top; text-align: left; }
tr.route { border-top: 1px solid #ddd; }
td.option { padding-left: 24px; color: #555; }
form { margin: 0; }
a, button { color: #069; }
button { background: none; border: none; padding: 0; font: inherit; text-decoration: underline; cursor: pointer; }
</style>
</head>
<body>
<table>
";

pub(super) fn page(_: &Ask<'_>) -> Page {
    let mut out = HEAD.to_owned();
    for (number, route) in ROUTES.iter().enumerate() {
        write_route(&mut out, number, route);
    }
    out.push_str("</table>\n</body>\n</html>\n");
    Page::html(out)
}

/// A link; a button where it changes something or may be asked something.
fn write_route(out: &mut String, number: usize, route: &Route) {
    let name = route.path.trim_start_matches('/');
    let path = if name.is_empty() { "./" } else { name };
    let shown = if name.is_empty() { "/" } else { name };
    out.push_str("<tr class='route'><td>");
    if route.mutates || !route.parameters.is_empty() {
        let method = if route.mutates { "post" } else { "get" };
        let _ = write!(
            out,
            "<form id='f{number}' action='{path}' method='{method}'><button>{shown}</button></form>"
        );
    } else {
        let _ = write!(out, "<a href='{path}'>{shown}</a>");
    }
    let _ = writeln!(out, "</td><td>{}</td></tr>", escape(route.what));
    for parameter in route.parameters {
        out.push_str("<tr><td class='option'>");
        write_input(out, number, parameter);
        let _ = writeln!(
            out,
            " {}</td><td class='option'>{}</td></tr>",
            parameter.name,
            escape(parameter.what)
        );
    }
}

fn write_input(out: &mut String, form: usize, parameter: &Parameter) {
    let name = parameter.name;
    match parameter.kind {
        ParameterKind::Flag => {
            let _ = write!(out, "<input type='checkbox' form='f{form}' name='{name}'>");
        }
        ParameterKind::Text => {
            let _ = write!(out, "<input type='text' form='f{form}' name='{name}'>");
        }
        ParameterKind::OneOf(words) => {
            let _ = write!(out, "<select form='f{form}' name='{name}'>");
            for word in words {
                let _ = write!(out, "<option>{word}</option>");
            }
            out.push_str("</select>");
        }
    }
}

/// As text within a page.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A page of preformatted text.
pub(super) fn preformatted(text: &str) -> Page {
    let head = HEAD.trim_end().trim_end_matches("<table>");
    Page::html(format!(
        "{head}<p><a href='./'>admin</a></p>\n<pre>{}</pre>\n</body>\n</html>\n",
        escape(text)
    ))
}
