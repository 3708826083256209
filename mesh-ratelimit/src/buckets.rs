use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use smallvec::SmallVec;

use crate::{
    Descriptor, DescriptorEntry, Entries, LocalRateLimitConfig, RequestView, TokenBucket,
    TokenBucketConfig, lru::Lru,
};

/// The live buckets of one config: the default one, one per descriptor, and one per value of a wildcard.
#[derive(Debug)]
pub(crate) struct Buckets {
    default: Option<Arc<TokenBucket>>,
    exact: HashMap<Box<[u8]>, Arc<TokenBucket>>,
    wildcards: Vec<Arc<Wildcard>>,
}

/// A descriptor with entries that match any value: a bucket for each combination that was seen.
#[derive(Debug)]
struct Wildcard {
    descriptor: Descriptor,
    max: usize,
    seen: Mutex<Lru<Arc<TokenBucket>>>,
}

/// What the buckets say about one request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// There were tokens; the bucket to show to the client, if any limits the request.
    Ok(Option<Arc<TokenBucket>>),
    /// This bucket had too few.
    Empty { bucket: Arc<TokenBucket>, left: u32 },
}

/// A key on the stack for usual descriptors.
type Key = SmallVec<[u8; 128]>;

/// Length before text, so that no two lists of texts have the same key.
fn push(key: &mut Key, text: &str) {
    key.extend_from_slice(&(text.len() as u32).to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}

fn entries_key<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Key {
    let mut key = Key::new();
    for (name, value) in entries {
        push(&mut key, name);
        push(&mut key, value);
    }
    key
}

fn config_key(entries: &[DescriptorEntry]) -> Key {
    entries_key(entries.iter().map(|e| (e.key.as_ref(), e.value.as_ref())))
}

impl Buckets {
    /// Full buckets, apart from those that `previous` has with the same owner and parameters.
    pub(crate) fn new(
        config: &LocalRateLimitConfig,
        previous: Option<&Self>,
        now: Instant,
    ) -> Self {
        let default = config.token_bucket.map(|bucket| {
            let old = previous.and_then(|p| p.default.as_ref());
            reuse(old, bucket, now)
        });
        let mut this = Self {
            default,
            exact: HashMap::new(),
            wildcards: Vec::new(),
        };
        let max = usize::try_from(config.max_dynamic_descriptors.get()).unwrap_or(usize::MAX);
        for descriptor in config.descriptors.as_slice() {
            if descriptor.is_wildcard() {
                let same = |w: &&Arc<Wildcard>| w.max == max && w.descriptor == *descriptor;
                let old = previous.and_then(|p| p.wildcards.iter().find(same));
                this.wildcards.push(old.map_or_else(
                    || Arc::new(Wildcard::new(descriptor.clone(), max)),
                    Arc::clone,
                ));
            } else {
                let key = config_key(&descriptor.entries);
                let old = previous.and_then(|p| p.exact.get(&key[..]));
                let bucket = reuse(old, descriptor.token_bucket, now);
                this.exact.insert(key.into_vec().into(), bucket);
            }
        }
        this
    }

    /// Takes the request's tokens, from the slowest bucket to the fastest, until one has too few. What
    /// was taken before that is gone, as in Envoy.
    pub(crate) fn take(
        &self,
        config: &LocalRateLimitConfig,
        request: &RequestView<'_>,
        now: Instant,
    ) -> Answer {
        let matched = if self.exact.is_empty() && self.wildcards.is_empty() {
            SmallVec::new()
        } else {
            self.matching(config, request, now)
        };
        for (bucket, hits) in &matched {
            if let Err(shortage) = bucket.take(now, *hits) {
                return Answer::Empty {
                    bucket: Arc::clone(bucket),
                    left: shortage.left,
                };
            }
        }
        let slowest = matched.into_iter().next().map(|(bucket, _)| bucket);
        if slowest.is_some() && !config.always_consume_default_token_bucket {
            return Answer::Ok(slowest);
        }
        let Some(default) = &self.default else {
            return Answer::Ok(slowest);
        };
        match default.take(now, 1) {
            Ok(_) => Answer::Ok(Some(slowest.unwrap_or_else(|| Arc::clone(default)))),
            Err(shortage) => Answer::Empty {
                bucket: Arc::clone(default),
                left: shortage.left,
            },
        }
    }

    /// The buckets of the request's descriptors and what each has to give, the slowest first.
    fn matching(
        &self,
        config: &LocalRateLimitConfig,
        request: &RequestView<'_>,
        now: Instant,
    ) -> SmallVec<[(Arc<TokenBucket>, u32); 4]> {
        let mut matched = SmallVec::new();
        let Some(rules) = config.rate_limits.rules(request) else {
            return matched;
        };
        for rule in rules.iter() {
            let bucket = rule
                .descriptor(request)
                .and_then(|entries| self.find(&entries, now));
            matched.extend(bucket.map(|bucket| (bucket, rule.hits_addend.get())));
        }
        matched.sort_by(|(a, _), (b, _)| a.config().rate().total_cmp(&b.config().rate()));
        matched
    }

    fn find(&self, entries: &Entries<'_>, now: Instant) -> Option<Arc<TokenBucket>> {
        let key = entries_key(entries.iter().map(|(k, v)| (k.as_ref(), v.as_ref())));
        if let Some(bucket) = self.exact.get(&key[..]) {
            return Some(Arc::clone(bucket));
        }
        self.wildcards
            .iter()
            .find(|wildcard| wildcard.matches(entries))
            .map(|wildcard| wildcard.bucket(&key, now))
    }
}

fn reuse(
    old: Option<&Arc<TokenBucket>>,
    config: TokenBucketConfig,
    now: Instant,
) -> Arc<TokenBucket> {
    old.filter(|old| *old.config() == config)
        .map_or_else(|| Arc::new(TokenBucket::new(config, now)), Arc::clone)
}

impl Wildcard {
    fn new(descriptor: Descriptor, max: usize) -> Self {
        Self {
            descriptor,
            max,
            seen: Mutex::new(Lru::new(max)),
        }
    }

    fn matches(&self, entries: &Entries<'_>) -> bool {
        let configured = &self.descriptor.entries;
        configured.len() == entries.len()
            && configured.iter().zip(entries).all(|(want, (key, value))| {
                *want.key == **key && (want.value.is_empty() || *want.value == **value)
            })
    }

    fn bucket(&self, key: &[u8], now: Instant) -> Arc<TokenBucket> {
        // A panic under this lock would have left a consistent map behind: go on with it.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(TokenBucket::new(self.descriptor.token_bucket, now));
        Arc::clone(seen.get_or_insert_with(key, make))
    }
}
