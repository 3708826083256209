//! Compares arms and prints what came out.

use std::collections::{BTreeMap, HashMap};

use crate::ledger::Ledger;
use crate::observe::Facts;
use crate::suite::Outcome;

/// Lines printed about one scenario that differs; the rest is only counted.
const LINES_MAX: usize = 60;

/// What became of a run.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) failures: usize,
    same: usize,
    ledgered: usize,
    facts: usize,
    by_feature: BTreeMap<String, [usize; 3]>,
}

/// Prints what a single arm did.
pub(crate) fn print_arm(outcomes: &[Outcome], verbose: bool) -> Verdict {
    let mut verdict = Verdict::default();
    for outcome in outcomes {
        println!("\n{} ({:.2} s)", outcome.name, outcome.took.as_secs_f32());
        for (facts, changed) in outcome.arms.iter().zip(&outcome.changed) {
            print_facts(facts);
            if verbose {
                changed.iter().for_each(|line| println!("  changed {line}"));
            }
            for problem in &facts.problems {
                println!("  PROBLEM {problem}");
            }
            verdict.count(outcome.name, !facts.problems.is_empty(), false, facts);
        }
    }
    verdict
}

/// One line for each thing that facts are about: a response, an attempt, a line of the log.
fn print_facts(facts: &Facts) {
    let mut last = (String::new(), String::new());
    for (name, value) in &facts.list {
        let mut parts = name.splitn(3, '.');
        let (step, second) = (parts.next().unwrap_or(name), parts.next());
        let (subject, fact) = match (second, parts.next()) {
            (Some(subject), Some(fact)) if subject != "header" => (subject, fact),
            (Some(fact), None) => ("response", fact),
            _ => (
                "response",
                name.split_once('.').map_or("", |(_, rest)| rest),
            ),
        };
        let now = (step.to_owned(), subject.to_owned());
        if last.0 != now.0 {
            print!("\n  {step}{}", step_of(facts, name));
        }
        if last != now {
            print!("\n      {subject}:");
        }
        print!(" {fact}={value}");
        last = now;
    }
    println!();
}

/// Compares the first two arms of each scenario.
pub(crate) fn compare(
    outcomes: &[Outcome],
    arms: [&str; 2],
    ledger: &mut Ledger,
    verbose: bool,
) -> Verdict {
    let lines_max = if verbose { usize::MAX } else { LINES_MAX };
    let mut verdict = Verdict::default();
    for outcome in outcomes {
        let [left, right] = &outcome.arms[..] else {
            continue;
        };
        let mut meant = 0;
        let mut lines = Vec::new();
        for (fact, [a, b]) in differences(left, right) {
            if ledger.reason(outcome.name, &fact).is_some() {
                meant += 1;
                continue;
            }
            lines.push(format!("    {fact}{}", step_of(left, &fact)));
            for (arm, value) in arms.iter().zip([a, b]) {
                lines.push(format!("      {arm:<6} {value}"));
            }
        }
        // An expectation is about Envoy, the first arm; the second is held against the first.
        lines.extend(left.problems.iter().map(|p| format!("    scenario: {p}")));
        let word = match (lines.is_empty(), meant) {
            (false, _) => "DIFFERS".to_owned(),
            (true, 0) => "same".to_owned(),
            (true, _) => format!("same, but for {meant} in the ledger"),
        };
        let (facts, took) = (left.list.len(), outcome.took.as_secs_f32());
        println!(
            "{:<52} {facts:>5} facts {took:>6.2} s  {word}",
            outcome.name
        );
        lines
            .iter()
            .take(lines_max)
            .for_each(|line| println!("{line}"));
        if let Some(more @ 1..) = lines.len().checked_sub(lines_max) {
            println!("    … and {more} more lines");
        }
        verdict.count(outcome.name, !lines.is_empty(), meant > 0, left);
    }
    let ran: Vec<_> = outcomes.iter().map(|outcome| outcome.name).collect();
    for entry in ledger.stale(&ran) {
        println!(
            "stale ledger row: {} {} no longer differs ({})",
            entry.scenario, entry.fact, entry.reason
        );
        verdict.failures += 1;
    }
    verdict
}

impl Verdict {
    fn count(&mut self, name: &str, failed: bool, ledgered: bool, facts: &Facts) {
        let feature = name.split('/').next().unwrap_or(name).to_owned();
        let row = self.by_feature.entry(feature).or_default();
        let (total, column) = match (failed, ledgered) {
            (true, _) => (&mut self.failures, 2),
            (false, true) => (&mut self.ledgered, 1),
            (false, false) => (&mut self.same, 0),
        };
        *total += 1;
        row[column] += 1;
        self.facts += facts.list.len();
    }

    /// Prints the table of features and the closing line.
    pub(crate) fn print(&self) {
        println!(
            "\n{:<12} {:>6} {:>9} {:>8}",
            "feature", "same", "ledgered", "differs"
        );
        for (feature, [same, ledgered, differs]) in &self.by_feature {
            println!("{feature:<12} {same:>6} {ledgered:>9} {differs:>8}");
        }
        println!(
            "differential: {} scenarios, {} facts: {} same, {} with differences in the ledger, {} failures",
            self.by_feature.values().flatten().sum::<usize>(),
            self.facts,
            self.same,
            self.ledgered,
            self.failures
        );
    }
}

/// Facts that only one side has, or that differ, in the order of the left side.
fn differences(left: &Facts, right: &Facts) -> Vec<(String, [String; 2])> {
    let values =
        |facts: &Facts| -> HashMap<String, String> { facts.list.iter().cloned().collect() };
    let (a, b) = (values(left), values(right));
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in left.list.iter().chain(&right.list) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let absent = || "(absent)".to_owned();
    names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .map(|name| {
            let side = |values: &HashMap<String, String>| values.get(name).cloned();
            let pair = [side(&a), side(&b)].map(|value| value.unwrap_or_else(absent));
            (name.clone(), pair)
        })
        .collect()
}

/// What the number at the start of a fact's name stands for.
fn step_of(facts: &Facts, fact: &str) -> String {
    fact.split('.')
        .next()
        .and_then(|number| number.parse::<usize>().ok())
        .and_then(|number| facts.steps.get(number.checked_sub(1)?))
        .map(|label| format!("    <- {label}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(list: &[(&str, &str)]) -> Facts {
        let mut facts = Facts::default();
        for (name, value) in list {
            facts.add(*name, *value);
        }
        facts
    }

    #[test]
    fn a_fact_that_one_side_lacks_is_a_difference() {
        let left = facts(&[("1.status", "200"), ("1.header.a", "x")]);
        let right = facts(&[("1.status", "200"), ("1.header.b", "x")]);
        let names: Vec<_> = differences(&left, &right)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["1.header.a", "1.header.b"]);
    }

    fn judged(right: &[(&str, &str)], ledger: &str) -> usize {
        let outcome = Outcome {
            name: "http/a",
            arms: vec![facts(&[("1.status", "200")]), facts(right)],
            changed: Vec::new(),
            took: std::time::Duration::ZERO,
        };
        let mut ledger = Ledger::parse(ledger).unwrap();
        compare(&[outcome], ["envoy", "mesh"], &mut ledger, false).failures
    }

    #[test]
    fn a_difference_fails_unless_the_ledger_has_it() {
        let row = "| http/a | 1.status | because it is better so |";
        assert_eq!(judged(&[("1.status", "200")], ""), 0);
        assert_eq!(judged(&[("1.status", "503")], ""), 1);
        assert_eq!(judged(&[("1.status", "503")], row), 0);
    }

    #[test]
    fn a_row_without_a_difference_fails() {
        let row = "| http/* | 1.* | because it is better so |";
        assert_eq!(judged(&[("1.status", "200")], row), 1);
    }

    #[test]
    fn an_expectation_about_envoy_that_does_not_hold_fails() {
        let mut left = facts(&[]);
        left.problems.push("expected 200, got 404".to_owned());
        let outcome = Outcome {
            name: "http/a",
            arms: vec![left, facts(&[])],
            changed: Vec::new(),
            took: std::time::Duration::ZERO,
        };
        let verdict = compare(&[outcome], ["envoy", "mesh"], &mut Ledger::default(), false);
        assert_eq!(verdict.failures, 1);
    }
}
