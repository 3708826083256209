//! A year of rotations, with clocks that differ and events that are late, lost or out of order.

use std::time::{Duration, SystemTime};

use mesh_tls::{
    SecretError, Validity,
    rotation::{ChainPolicy, HELD_MAX, Held, Rotation, Standing},
};
use proptest::prelude::*;

use crate::support::{hours, now};

/// A leaf that remembers only who signed it and when it is good.
#[derive(Debug, Clone, PartialEq)]
struct Toy {
    issuer: u32,
    validity: Validity,
}

/// Roots, with their ends.
type Roots = Vec<(u32, SystemTime)>;

impl Held for Toy {
    type Trust = Roots;

    fn validity(&self) -> Validity {
        self.validity
    }

    fn subject(&self) -> String {
        "toy".to_owned()
    }

    fn reaches(&self, trust: &Roots, now: SystemTime) -> Result<(), String> {
        let known = trust
            .iter()
            .any(|(root, end)| *root == self.issuer && *end >= now);
        if known {
            Ok(())
        } else {
            Err("unknown".to_owned())
        }
    }

    fn check_trust(trust: &Roots, now: SystemTime) -> Result<(), SecretError> {
        match trust.iter().map(|(_, end)| *end).max() {
            Some(end) if end >= now => Ok(()),
            _ => Err(SecretError::BundleExpired { not_after: now }),
        }
    }
}

fn toy(issuer: u32, from: SystemTime, to: SystemTime) -> Toy {
    Toy {
        issuer,
        validity: Validity {
            not_before: from,
            not_after: to,
        },
    }
}

fn plus(base: SystemTime, offset_hours: i64) -> SystemTime {
    if offset_hours < 0 {
        base - hours(offset_hours.unsigned_abs())
    } else {
        base + hours(offset_hours.unsigned_abs())
    }
}

#[test]
fn a_worse_secret_never_replaces_a_good_one() {
    let mut rotation = Rotation::new(ChainPolicy::MustReachTrust);
    let good = toy(1, now(), plus(now(), 10));
    rotation.on_trust(now(), 1, vec![(1, plus(now(), 99))]);
    assert!(rotation.on_identity(now(), 2, good.clone()).identity);
    assert_eq!(rotation.standing(), Standing::Good);
    for (sequence, bad, part) in [
        (3, toy(1, plus(now(), -9), plus(now(), -1)), "expired"),
        (
            4,
            toy(1, plus(now(), 1), plus(now(), 9)),
            "not valid before",
        ),
        (5, toy(2, now(), plus(now(), 20)), "does not reach"),
    ] {
        let change = rotation.on_identity(now(), sequence, bad);
        assert!(!change.identity);
        let why = change.refused.expect("a reason").to_string();
        assert!(why.contains(part), "{why}");
        assert_eq!(rotation.serving(), Some(&good));
    }
    let ended = rotation.on_trust(now(), 6, vec![(1, plus(now(), -1))]);
    assert!(!ended.trust && ended.refused.is_some());
    // Its time comes, and so does the root that it needs.
    assert_eq!(rotation.next_deadline(now()), Some(plus(now(), 1)));
    assert!(rotation.on_time(plus(now(), 1)).identity);
    assert_eq!(
        rotation.serving().unwrap().validity.not_after,
        plus(now(), 9)
    );
    let both = vec![(1, plus(now(), 99)), (2, plus(now(), 99))];
    assert!(rotation.on_trust(plus(now(), 1), 7, both).identity);
    assert_eq!(rotation.serving().unwrap().issuer, 2);
    // A bundle that forgets our issuer does not leave us without a certificate.
    let change = rotation.on_trust(plus(now(), 1), 8, vec![(3, plus(now(), 99))]);
    assert!(change.trust && !change.identity);
    assert_eq!(rotation.standing(), Standing::Untrusted);
    assert!(rotation.serving().is_some());
}

#[test]
fn without_anything_better_the_ended_one_stays() {
    let mut rotation = Rotation::new(ChainPolicy::Free);
    assert_eq!(rotation.standing(), Standing::Nothing);
    rotation.on_identity(now(), 1, toy(1, now(), plus(now(), 1)));
    assert!(!rotation.on_time(plus(now(), 2)).identity);
    assert_eq!(rotation.standing(), Standing::LastResort);
    assert!(rotation.serving().is_some());
    let next = toy(1, now(), plus(now(), 9));
    assert!(rotation.on_identity(plus(now(), 2), 2, next).identity);
    assert_eq!(rotation.standing(), Standing::Good);
    let mut first = Rotation::new(ChainPolicy::Free);
    let change = first.on_identity(now(), 1, toy(1, plus(now(), -2), plus(now(), -1)));
    assert!(change.identity, "peers see that it has ended");
    assert_eq!(first.standing(), Standing::LastResort);
}

#[test]
fn an_older_secret_that_comes_late_waits() {
    let mut rotation = Rotation::new(ChainPolicy::Free);
    let (long, short) = (toy(1, now(), plus(now(), 9)), toy(1, now(), plus(now(), 3)));
    rotation.on_identity(now(), 2, short.clone());
    let change = rotation.on_identity(now(), 1, long.clone());
    assert!(!change.identity && change.refused.is_none());
    assert_eq!(rotation.serving(), Some(&short));
    assert!(rotation.on_time(plus(now(), 4)).identity);
    assert_eq!(rotation.serving(), Some(&long));
    // A newer one is followed even if it was issued earlier: somebody rolled back.
    let back = toy(1, plus(now(), -5), plus(now(), 8));
    assert!(
        rotation
            .on_identity(plus(now(), 4), 3, back.clone())
            .identity
    );
    assert_eq!(rotation.serving(), Some(&back));
}

#[derive(Debug, Clone)]
enum Op {
    Leaf { issuer: u32, from: i64, lasts: i64 },
    Trust { roots: Vec<(u32, i64)> },
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..3u32, -30..30i64, 1..40i64)
            .prop_map(|(issuer, from, lasts)| Op::Leaf { issuer, from, lasts }),
        1 => prop::collection::vec((0..3u32, -5..60i64), 1..3).prop_map(|roots| Op::Trust { roots }),
        2 => (1..20u64).prop_map(Op::Wait),
    ]
}

proptest! {
    /// Against a reference that keeps everything that ever came, as long as that is not more than is held.
    #[test]
    fn model_the_newest_that_fits_is_served(
        ops in prop::collection::vec((op(), 0..3u64), 1..40),
        must in any::<bool>(),
    ) {
        let policy = if must { ChainPolicy::MustReachTrust } else { ChainPolicy::Free };
        let mut rotation = Rotation::new(policy);
        let mut time = now();
        let mut all: Vec<(u64, Toy)> = Vec::new();
        let mut trust: Option<(u64, Roots)> = None;
        let mut overflow = false;
        for (index, (op, late)) in ops.into_iter().enumerate() {
            // Some are late: their number is lower than that of their neighbours.
            let sequence = 1000 + index as u64 * 4 - late * 5;
            match op {
                Op::Wait(wait) => {
                    time += hours(wait);
                    rotation.on_time(time);
                }
                Op::Leaf { issuer, from, lasts } => {
                    let leaf = toy(issuer, plus(time, from), plus(time, from + lasts));
                    rotation.on_identity(time, sequence, leaf.clone());
                    if all.iter().all(|(known, _)| *known != sequence) {
                        all.push((sequence, leaf));
                    }
                    let alive = all.iter().filter(|(_, leaf)| leaf.validity.not_after >= time);
                    overflow |= alive.count() >= HELD_MAX;
                }
                Op::Trust { roots } => {
                    let roots: Roots = roots.into_iter().map(|(id, end)| (id, plus(time, end))).collect();
                    rotation.on_trust(time, sequence, roots.clone());
                    let newer = trust.as_ref().is_none_or(|(known, _)| *known < sequence);
                    let good = Toy::check_trust(&roots, time).is_ok();
                    if newer && (good || trust.is_none()) {
                        trust = Some((sequence, roots));
                    }
                }
            }
            all.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
            let ready = all.iter().find(|(_, leaf)| {
                leaf.validity.contains(time)
                    && (!must || trust.as_ref().is_some_and(|(_, t)| leaf.reaches(t, time).is_ok()))
            });
            if overflow {
                // Only what is held can be chosen; still, good beats bad.
                let serving_good = rotation.standing() == Standing::Good;
                let in_time = |leaf: &Toy| leaf.validity.contains(time);
                let bad = rotation.serving().is_none_or(|leaf| !in_time(leaf) || must);
                prop_assert!(serving_good || bad);
                continue;
            }
            match ready {
                Some((_, leaf)) => {
                    prop_assert_eq!(rotation.serving(), Some(leaf));
                    prop_assert_eq!(rotation.standing(), Standing::Good);
                }
                None => prop_assert_ne!(rotation.standing(), Standing::Good),
            }
        }
    }
}

/// What a CA sends out.
#[derive(Debug, Clone)]
enum Sent {
    Leaf(Toy),
    Bundle(Roots),
}

/// What the CA does, and what the network does to it.
#[derive(Debug, Clone)]
struct World {
    leaf_hours: u64,
    root_days: u64,
    skew_minutes: [i64; 2],
    /// Draws for delays and losses, used in turn.
    luck: Vec<u8>,
}

const YEAR: u64 = 365 * 24;
/// The CA tells of a new root so long before it signs with it.
const OVERLAP: u64 = 72;
/// Bundles are sent so often.
const BUNDLE_EVERY: u64 = 6;
/// Delays are at most so long.
const DELAY_MAX: u64 = 5;

fn world() -> impl Strategy<Value = World> {
    (
        12..72u64,
        20..90u64,
        [-20..20i64, -20..20i64],
        prop::collection::vec(any::<u8>(), 64),
    )
        .prop_map(|(leaf_hours, root_days, skew_minutes, luck)| World {
            leaf_hours,
            root_days,
            skew_minutes,
            luck,
        })
}

struct Peer {
    rotation: Rotation<Toy>,
    skew: i64,
    inbox: Vec<(u64, u64, Sent)>,
    lost_in_a_row: [u32; 2],
    sequence: u64,
}

impl Peer {
    fn clock(&self, time: SystemTime) -> SystemTime {
        let skew = Duration::from_secs(self.skew.unsigned_abs() * 60);
        if self.skew < 0 {
            time - skew
        } else {
            time + skew
        }
    }

    /// Sends, unless it is lost; of one kind, never two in a row are.
    fn send(&mut self, hour: u64, luck: u8, what: Sent) {
        self.sequence += 1;
        let kind = usize::from(matches!(what, Sent::Bundle(_)));
        if luck.is_multiple_of(4) && self.lost_in_a_row[kind] == 0 {
            self.lost_in_a_row[kind] = 1;
            return;
        }
        self.lost_in_a_row[kind] = 0;
        let arrives = hour + u64::from(luck) % (DELAY_MAX + 1);
        self.inbox.push((arrives, self.sequence, what));
    }

    /// What has arrived by now, in any order.
    fn receive(&mut self, hour: u64, time: SystemTime) {
        let now = self.clock(time);
        let (here, later) = std::mem::take(&mut self.inbox)
            .into_iter()
            .partition(|(at, ..)| *at <= hour);
        self.inbox = later;
        let here: Vec<_> = here;
        for (_, sequence, what) in here.into_iter().rev() {
            match what {
                Sent::Leaf(leaf) => self.rotation.on_identity(now, sequence, leaf),
                Sent::Bundle(roots) => self.rotation.on_trust(now, sequence, roots),
            };
        }
        self.rotation.on_time(now);
    }
}

/// The roots of one hour: each signs for `life` hours, is known [`OVERLAP`] before, and ends when the last leaf
/// that it signed has.
fn roots_at(hour: u64, life: u64, leaf: u64) -> Roots {
    let newest = (hour + OVERLAP) / life;
    let known = (0..=newest).map(|root| (root, (root + 1) * life + leaf + DELAY_MAX));
    known
        .filter(|(_, end)| *end >= hour)
        .map(|(root, end)| (u32::try_from(root).unwrap(), now() + hours(end)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Never an expired secret while a valid one was delivered; and both peers understand each other at every
    /// hour of the year.
    #[test]
    fn model_a_year_of_rotations(world in world()) {
        let life = world.root_days * 24;
        let mut peers = world.skew_minutes.map(|skew| Peer {
            rotation: Rotation::new(ChainPolicy::MustReachTrust),
            skew,
            inbox: Vec::new(),
            lost_in_a_row: [0, 0],
            sequence: 0,
        });
        let mut luck = world.luck.iter().cycle();
        let renew = (world.leaf_hours / 4).max(1);
        for hour in 0..YEAR {
            let time = now() + hours(hour);
            for (index, peer) in peers.iter_mut().enumerate() {
                if hour.is_multiple_of(BUNDLE_EVERY) {
                    let roots = roots_at(hour, life, world.leaf_hours);
                    peer.send(hour, *luck.next().unwrap(), Sent::Bundle(roots));
                }
                if hour % renew == index as u64 % renew {
                    let signer = u32::try_from(hour / life).unwrap();
                    let leaf = toy(signer, time - hours(1), time + hours(world.leaf_hours));
                    peer.send(hour, *luck.next().unwrap(), Sent::Leaf(leaf));
                }
                peer.receive(hour, time);
            }
            // After the first deliveries, nobody is ever without.
            if hour < 2 * BUNDLE_EVERY + 2 * renew + DELAY_MAX {
                continue;
            }
            for (us, them) in [(0, 1), (1, 0)] {
                let (us, them) = (&peers[us], &peers[them]);
                prop_assert_eq!(us.rotation.standing(), Standing::Good, "hour {}", hour);
                let leaf = us.rotation.serving().unwrap();
                prop_assert!(leaf.validity.contains(us.clock(time)));
                // What we show, they accept: by their clock, with their roots.
                let theirs = them.clock(time);
                let roots = them.rotation.trust().unwrap();
                prop_assert!(leaf.validity.contains(theirs), "hour {}", hour);
                prop_assert!(leaf.reaches(roots, theirs).is_ok(), "hour {}", hour);
            }
        }
    }
}
