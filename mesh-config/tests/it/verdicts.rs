//! Which snippets are taken and which refused, held against what real Envoy 1.40.0 said of them.
//!
//! `verdicts/cases.txt` has one case per `###` line: its name, the base of `verdicts/bases.txt` that
//! it is put into (at `%%`), and the verdict of `envoy --mode validate`. A fourth part is our own
//! verdict, where it differs on purpose, and the reason.

use mesh_config::language::{ConfigError, Loaded, Source, load_bootstrap};

/// A section of either file: what follows `###`, and the lines below it.
struct Section {
    head: Vec<String>,
    lines: Vec<String>,
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.split('\n') {
        if let Some(head) = line.strip_prefix("### ") {
            sections.push(Section {
                head: head.split('|').map(|part| part.trim().to_owned()).collect(),
                lines: Vec::new(),
            });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line.to_owned());
        }
    }
    for section in &mut sections {
        while section.lines.last().is_some_and(String::is_empty) {
            section.lines.pop();
        }
    }
    sections
}

fn cases() -> Vec<Section> {
    sections(include_str!("verdicts/cases.txt"))
}

/// The document of a case.
fn document(case: &Section) -> String {
    let bases = sections(include_str!("verdicts/bases.txt"));
    let base = bases
        .iter()
        .find(|base| base.head[0] == case.head[1])
        .unwrap_or_else(|| panic!("no base {}", case.head[1]));
    let mut text = String::new();
    for line in &base.lines {
        match line.strip_suffix("%%") {
            Some(indent) => case
                .lines
                .iter()
                .for_each(|l| text.extend([indent, l, "\n"])),
            None => text.extend([line, "\n"]),
        }
    }
    text
}

fn load(case: &Section) -> Result<Loaded, ConfigError> {
    load_bootstrap(&Source::text(case.head[0].as_str(), document(case)))
}

#[test]
fn every_snippet_is_judged_as_envoy_judges_it_or_differs_on_purpose() {
    let mut wrong = Vec::new();
    for case in cases() {
        let envoy = match case.head[2].as_str() {
            "taken" => true,
            "refused" => false,
            other => panic!("{}: no verdict {other}", case.head[0]),
        };
        let result = load(&case);
        let differs = result.is_ok() != envoy;
        if differs != (case.head.len() > 3) {
            let ours = result.map_or_else(|error| error.to_string(), |_| "taken".to_owned());
            wrong.push(format!(
                "{}: envoy {}, ours: {ours}",
                case.head[0], case.head[2]
            ));
        }
    }
    assert!(cases().len() > 300);
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases().len(),
        wrong.join("\n")
    );
}
