use std::time::{Duration, Instant};

/// A wait longer than this is taken for this: a year. Configs and clients may ask for more than a clock
/// can add up.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(WAIT_MAX)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{WAIT_MAX, after, millis};

    #[test]
    fn waits_beyond_all_clocks_are_a_year() {
        let now = mesh_core::clock::now();
        assert_eq!(after(now, Duration::MAX), now + WAIT_MAX);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
