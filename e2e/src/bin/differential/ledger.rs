//! The differences that are meant, each with its reason.

use anyhow::{Context, Result, bail};

/// One row of the ledger: `*` in a scenario or fact stands for anything.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) scenario: String,
    pub(crate) fact: String,
    pub(crate) reason: String,
    pub(crate) used: bool,
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: Vec<Entry>,
}

impl Ledger {
    /// Reads the rows of the Markdown tables whose columns are scenario, fact and reason.
    ///
    /// # Errors
    /// When a row has other columns, or no reason.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let row = line.trim();
            if !row.starts_with('|') || row.starts_with("|-") || row.starts_with("| scenario") {
                continue;
            }
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [scenario, fact, reason] = cells[..] else {
                bail!("ledger line {}: not three columns", number + 1);
            };
            if scenario.is_empty() || fact.is_empty() || reason.len() < 10 {
                bail!(
                    "ledger line {}: a column is empty or says nothing",
                    number + 1
                );
            }
            entries.push(Entry {
                scenario: scenario.trim_matches('`').to_owned(),
                fact: fact.trim_matches('`').to_owned(),
                reason: reason.to_owned(),
                used: false,
            });
        }
        Ok(Self { entries })
    }

    pub(crate) fn read(path: &std::path::Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text)
    }

    /// The reason for a difference, if it is meant.
    pub(crate) fn reason(&mut self, scenario: &str, fact: &str) -> Option<&str> {
        let mut reason = None;
        // Every row that covers it counts as used, so that overlapping rows do not look stale.
        for entry in &mut self.entries {
            if matches(&entry.scenario, scenario) && matches(&entry.fact, fact) {
                entry.used = true;
                reason.get_or_insert(entry.reason.as_str());
            }
        }
        reason
    }

    /// Rows that covered nothing although one of these scenarios ran.
    pub(crate) fn stale<'a>(&'a self, ran: &'a [&str]) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .iter()
            .filter(|e| !e.used && ran.iter().any(|name| matches(&e.scenario, name)))
    }
}

/// Whether `text` has this shape, in which `*` stands for anything.
pub(crate) fn matches(shape: &str, text: &str) -> bool {
    match shape.split_once('*') {
        None => shape == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|left| {
            (0..=left.len())
                .filter(|at| left.is_char_boundary(*at))
                .any(|at| matches(rest, &left[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Words before\n\
| scenario | fact | reason |\n\
|---|---|---|\n\
| `http/a` | `1.header.*` | because it is better so |\n\
| http/b | status | because it is better so |\n";

    #[test]
    fn a_row_excuses_what_its_shape_covers_and_nothing_else() {
        let mut ledger = Ledger::parse(TEXT).unwrap();
        assert!(ledger.reason("http/a", "1.header.server").is_some());
        assert!(ledger.reason("http/a", "2.header.server").is_none());
        assert!(ledger.reason("http/ab", "1.header.server").is_none());
    }

    #[test]
    fn a_row_that_excuses_nothing_is_stale_once_its_scenario_ran() {
        let mut ledger = Ledger::parse(TEXT).unwrap();
        let _ = ledger.reason("http/a", "1.header.server");
        assert_eq!(ledger.stale(&["http/a"]).count(), 0);
        assert_eq!(ledger.stale(&["http/a", "http/b"]).count(), 1);
    }

    #[test]
    fn a_row_without_a_reason_is_refused() {
        assert!(Ledger::parse("| http/a | status | |").is_err());
        assert!(Ledger::parse("| http/a | status |").is_err());
    }
}
