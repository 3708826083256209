use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use mesh_core::{Rng, clock};

use crate::dns::{
    Answer, DnsDiscovery, DnsError, FailureRefreshRate, LOOKUP_INTERVAL_MIN, Refresh,
    RefreshConfig, TTL_MAX, Update,
};

fn answer(ttl_s: u64, last_bytes: &[u8]) -> Result<Answer, DnsError> {
    Ok(Answer {
        addresses: last_bytes.iter().map(|&n| [10, 0, 0, n].into()).collect(),
        ttl: Duration::from_secs(ttl_s),
    })
}

fn last_bytes(refresh: &Refresh) -> Vec<u8> {
    let last = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    refresh.addresses().iter().map(last).collect()
}

/// One lookup that ends at `now`; says how long after that the next is due.
fn lookup(
    refresh: &mut Refresh,
    now: Instant,
    result: Result<Answer, DnsError>,
    random: u64,
) -> (Update, Duration) {
    refresh.on_start();
    assert_eq!(refresh.next_deadline(), None);
    let update = refresh.on_end(now, result, random);
    (update, refresh.next_deadline().unwrap() - now)
}

/// The delay after a success with this TTL.
fn delay(config: &RefreshConfig, ttl_s: u64, random: u64) -> Duration {
    let now = clock::now();
    let mut refresh = Refresh::new(config.clone(), now);
    lookup(&mut refresh, now, answer(ttl_s, &[1]), random).1
}

const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn the_first_lookup_is_due_at_once_and_settles_even_when_it_fails() {
    let now = clock::now();
    let mut refresh = Refresh::new(RefreshConfig::default(), now);
    assert_eq!(refresh.next_deadline(), Some(now));
    assert!(!refresh.is_settled());
    let (update, _) = lookup(&mut refresh, now, Err(DnsError::NotFound), 0);
    assert_eq!(update, Update::Failed);
    assert!(refresh.is_settled());
    assert_eq!(last_bytes(&refresh), []);
}

#[test]
fn strict_discovery_takes_the_set_of_addresses() {
    let now = clock::now();
    let mut refresh = Refresh::new(RefreshConfig::default(), now);
    let mut next = |bytes: &[u8]| {
        let update = lookup(&mut refresh, now, answer(1, bytes), 0).0;
        (update, last_bytes(&refresh))
    };
    assert_eq!(next(&[3, 1, 2, 1]), (Update::Changed, vec![1, 2, 3]));
    assert_eq!(next(&[2, 3, 1]), (Update::Unchanged, vec![1, 2, 3]));
    assert_eq!(next(&[2, 3]), (Update::Changed, vec![2, 3]));
    assert_eq!(next(&[]), (Update::Failed, vec![2, 3]));
}

#[test]
fn logical_discovery_takes_the_first_address() {
    let now = clock::now();
    let config = RefreshConfig {
        discovery: DnsDiscovery::Logical,
        ..RefreshConfig::default()
    };
    let mut refresh = Refresh::new(config, now);
    let mut next = |bytes: &[u8]| {
        let update = lookup(&mut refresh, now, answer(1, bytes), 0).0;
        (update, last_bytes(&refresh))
    };
    assert_eq!(next(&[3, 1, 2]), (Update::Changed, vec![3]));
    assert_eq!(next(&[3, 2]), (Update::Unchanged, vec![3]));
    assert_eq!(next(&[1, 3]), (Update::Changed, vec![1]));
}

#[test]
fn a_failure_keeps_the_addresses_and_says_why() {
    let now = clock::now();
    let mut refresh = Refresh::new(RefreshConfig::default(), now);
    lookup(&mut refresh, now, answer(1, &[1, 2]), 0);
    for error in [DnsError::NotFound, DnsError::NoRecords, DnsError::Timeout] {
        let (update, after) = lookup(&mut refresh, now, Err(error.clone()), 0);
        assert_eq!((update, after), (Update::Failed, secs(5)));
        assert_eq!(refresh.last_error(), Some(&error));
        assert_eq!(last_bytes(&refresh), [1, 2]);
    }
    let (update, _) = lookup(&mut refresh, now, answer(1, &[2, 1]), 0);
    assert_eq!((update, refresh.last_error()), (Update::Unchanged, None));
}

#[test]
fn the_ttl_counts_only_when_it_is_respected_and_not_zero() {
    let config = RefreshConfig::default();
    assert_eq!(delay(&config, 60, 0), secs(5));
    let config = RefreshConfig {
        respect_dns_ttl: true,
        ..config
    };
    assert_eq!(delay(&config, 60, 0), secs(60));
    assert_eq!(delay(&config, 1, 0), secs(1));
    assert_eq!(delay(&config, 0, 0), secs(5));
    assert_eq!(delay(&config, u64::from(u32::MAX), 0), TTL_MAX);
}

#[test]
fn jitter_adds_less_than_its_maximum() {
    let config = RefreshConfig {
        dns_jitter: millis(100),
        ..RefreshConfig::default()
    };
    assert_eq!(delay(&config, 1, 100), secs(5));
    assert_eq!(delay(&config, 1, 199), millis(5099));
    assert_eq!(delay(&RefreshConfig::default(), 1, 199), secs(5));
}

#[test]
fn failures_back_off_and_a_success_starts_over() {
    let now = clock::now();
    let config = RefreshConfig {
        dns_failure_refresh_rate: Some(FailureRefreshRate::new(secs(2), Some(secs(7))).unwrap()),
        ..RefreshConfig::default()
    };
    let mut refresh = Refresh::new(config, now);
    let mut fail = |random| lookup(&mut refresh, now, Err(DnsError::Timeout), random).1;
    // The largest delay below each interval.
    assert_eq!(fail(1999), millis(1999));
    assert_eq!(fail(3999), millis(3999));
    assert_eq!(fail(6999), millis(6999));
    assert_eq!(fail(6999), millis(6999));
    // The smallest would be none at all.
    assert_eq!(fail(0), LOOKUP_INTERVAL_MIN);
    lookup(&mut refresh, now, answer(1, &[1]), 0);
    // A whole base interval is none at all, and would be two seconds of any longer one.
    let (_, after) = lookup(&mut refresh, now, Err(DnsError::Timeout), 2000);
    assert_eq!(after, LOOKUP_INTERVAL_MIN);
    assert!(FailureRefreshRate::new(secs(2), Some(secs(1))).is_err());
}

#[test]
fn lookups_are_a_second_apart_unless_the_config_says_less() {
    let rng = Rng::seeded(3);
    for case in 0..2000 {
        let rate = millis(rng.below(4000));
        let base = (case % 2 == 0).then(|| millis(1 + rng.below(4000)));
        let config = RefreshConfig {
            dns_refresh_rate: rate,
            dns_failure_refresh_rate: base.map(|b| FailureRefreshRate::new(b, None).unwrap()),
            respect_dns_ttl: case % 3 == 0,
            dns_jitter: millis(rng.below(50)),
            ..RefreshConfig::default()
        };
        let shortest = base.unwrap_or(rate).min(rate).clamp(millis(1), secs(1));
        let now = clock::now();
        let mut refresh = Refresh::new(config.clone(), now);
        for _ in 0..20 {
            let result = if rng.below(2) == 0 {
                answer(rng.below(3), &[1])
            } else {
                Err(DnsError::Timeout)
            };
            let (_, after) = lookup(&mut refresh, now, result, rng.next_u64());
            assert!(after >= shortest, "{config:?}: {after:?}");
        }
    }
}
