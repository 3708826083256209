//! The pace of a body against a naive one that counts slices one by one.

use std::time::{Duration, Instant};

use mesh_core::clock;
use mesh_fault::{Pace, SLICES_PER_SECOND, Take};
use proptest::prelude::*;

const SLICE: Duration = Duration::from_micros(62_500);

/// Bytes that may go, slice by slice.
struct Naive {
    per_slice: u64,
    slices: u64,
    next: Instant,
}

impl Naive {
    fn take(&mut self, now: Instant, wanted: u64) -> Take {
        while self.next <= now {
            if self.slices == u64::from(SLICES_PER_SECOND) {
                self.next = now + SLICE;
                break;
            }
            self.slices += 1;
            self.next += SLICE;
        }
        if self.slices == 0 {
            return Take::NotBefore(self.next);
        }
        let mut bytes = 0;
        while self.slices > 0 && bytes < wanted {
            self.slices -= 1;
            bytes += self.per_slice;
        }
        Take::Bytes(bytes.min(wanted))
    }
}

#[derive(Debug, Clone)]
enum Event {
    Wait(Duration),
    /// To the moment that the last answer named.
    Obey,
    Take(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => (0u64..200_000_000).prop_map(|nanos| Event::Wait(Duration::from_nanos(nanos))),
        1 => (0u64..3).prop_map(|seconds| Event::Wait(Duration::from_secs(seconds))),
        2 => Just(Event::Obey),
        5 => (1u64..200_000).prop_map(Event::Take),
    ];
    prop::collection::vec(event, 1..100)
}

proptest! {
    #[test]
    fn model_pace_lets_through_what_counting_slices_does(kbps in 1u64..500, events in events()) {
        let start = clock::now();
        let mut pace = Pace::new(kbps.try_into().unwrap(), start);
        let mut naive = Naive { per_slice: kbps * 64, slices: 1, next: start + SLICE };
        let (mut now, mut not_before, mut sum) = (start, start, 0);
        for event in events {
            match event {
                Event::Wait(duration) => now += duration,
                Event::Obey => now = now.max(not_before),
                Event::Take(wanted) => {
                    let taken = pace.take(now, wanted);
                    prop_assert_eq!(taken, naive.take(now, wanted));
                    match taken {
                        Take::Bytes(bytes) => {
                            prop_assert!(bytes > 0 && bytes <= wanted);
                            sum += bytes;
                        }
                        Take::NotBefore(at) => {
                            prop_assert!(at > now && at <= now + SLICE);
                            not_before = at;
                        }
                    }
                }
            }
            // Never faster than the limit, but for the first slice.
            let limit = (now - start).as_secs_f64() * kbps as f64 * 1024.0 + (kbps * 64) as f64;
            prop_assert!(sum as f64 <= limit + 1.0, "{} of {}", sum, limit);
        }
    }
}
