//! What a client accepts: `accept-encoding`, as Envoy reads it.

/// What comes of comparing what a client accepts with what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The candidate at that place, named by the client.
    Named(usize),
    /// The first candidate: the client takes anything.
    Wildcard(usize),
    /// The client prefers the body as it is.
    Identity,
    /// Nothing that the client names is there.
    NotValid,
}

/// A coding that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub token: &'a str,
    /// Whether it wins over others that the client likes as much.
    pub choose_first: bool,
}

/// The candidate that the client likes best. Of several that it likes equally, the one that it names first
/// counts, unless a later one is to be chosen first. Of candidates with one name, the first counts.
#[must_use]
pub fn choose(accept_encoding: &str, candidates: &[Candidate<'_>]) -> Choice {
    let find = |token: &str| {
        let same = |candidate: &Candidate<'_>| candidate.token.eq_ignore_ascii_case(token);
        candidates.iter().position(same)
    };
    let mut best: Option<(Choice, f32, bool)> = None;
    for (token, quality) in accept_encoding.split(',').filter_map(parse) {
        let (choice, first) = if token == "*" && !candidates.is_empty() {
            (Choice::Wildcard(0), false)
        } else if token.eq_ignore_ascii_case("identity") {
            (Choice::Identity, false)
        } else if let Some(place) = find(token) {
            (Choice::Named(place), candidates[place].choose_first)
        } else {
            continue;
        };
        let better = match best {
            None => quality > 0.0,
            Some((_, most, chosen_first)) => {
                quality > most || (quality == most && first && !chosen_first)
            }
        };
        if better {
            best = Some((choice, quality, first));
        }
    }
    best.map_or(Choice::NotValid, |(choice, ..)| choice)
}

/// A coding and how much the client likes it; `None` for what makes no sense.
fn parse(item: &str) -> Option<(&str, f32)> {
    let (token, parameters) = item.split_once(';').unwrap_or((item, ""));
    let token = token.trim();
    let quality = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("q")
            .then_some(value.trim())
    });
    let quality = match quality {
        None => 1.0,
        Some(text) => text
            .parse::<f32>()
            .ok()
            .filter(|q| (0.0..=1.0).contains(q))?,
    };
    (!token.is_empty()).then_some((token, quality))
}
