//! Path normalisation.

use anyhow::Result;

use crate::ask::{get, head, raw};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

pub(super) fn groups() -> Vec<Group> {
    let with = |name: &'static str, fields: &'static str| Hcm {
        name,
        fields,
        ..Hcm::default()
    };
    let bootstrap = Bootstrap::default()
        .listener(&with("main", ""))
        .listener(&with("normal", "normalize_path: true"))
        .listener(&with("merge", "merge_slashes: true"))
        .listener(&with("both", "normalize_path: true\nmerge_slashes: true"))
        .listener(&with(
            "reject",
            "path_with_escaped_slashes_action: REJECT_REQUEST",
        ))
        .listener(&with(
            "redirect",
            "path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT",
        ))
        .listener(&with(
            "forward",
            "normalize_path: true\npath_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
        ))
        .cluster("a", &["a"], "");
    vec![group(
        bootstrap,
        [
            ("http/paths_as_they_come", |run| paths(run, "main")),
            ("http/paths_normalised", |run| paths(run, "normal")),
            ("http/paths_with_merged_slashes", |run| paths(run, "merge")),
            ("http/paths_normalised_and_merged", |run| paths(run, "both")),
            ("http/escaped_slashes_rejected", |run| {
                slashes(run, "reject")
            }),
            ("http/escaped_slashes_redirected", |run| {
                slashes(run, "redirect")
            }),
            ("http/escaped_slashes_forwarded", |run| {
                slashes(run, "forward")
            }),
        ],
    )]
}

fn paths(run: &mut Run<'_>, listener: &str) -> Result<()> {
    for path in [
        "/a/./b/../c",
        "/a/b/..",
        "/a/b/.",
        "/../../a",
        "/a//b///c",
        "//a",
        "/a/%2e%2e/b",
        "/%61%7e%41",
        "/a%2fb%2Fc",
        "/a%5cb",
        "/a\\b",
        "/a%20b%c3%a9",
        "/a%zz",
        "/a%00b",
        "/a/../b?x=/../y//z",
        "/a/b;p=1/../c",
        "/...",
    ] {
        run.send(get(path).on(listener))?;
    }
    for target in ["/a#f", "http://x.example/a/../b", "/\u{e9}/../b"] {
        run.send(raw(head("GET", target) + "\r\n").on(listener))?;
    }
    run.counters(&[&format!(
        "http.{listener}.downstream_rq_failed_path_normalization"
    )])
}

fn slashes(run: &mut Run<'_>, listener: &str) -> Result<()> {
    for path in [
        "/a%2Fb",
        "/a%2fb",
        "/a%5Cb",
        "/a%5cb",
        "/a%252fb",
        "/a?x=%2f",
        "/a%2f..%2fb",
    ] {
        run.send(get(path).on(listener).fate())?;
    }
    run.counters(&[
        &format!("http.{listener}.downstream_rq_failed_path_normalization"),
        &format!("http.{listener}.downstream_rq_redirected_with_normalized_path"),
    ])
}
