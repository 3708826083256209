use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::HeaderValue;
use mesh_core::clock;
use mesh_ratelimit::{
    Action, Descriptor, Descriptors, InvalidDescriptors, LocalRateLimit, LocalRateLimitConfig,
    RateLimitRule, RateLimits, RequestView, TokenBucketConfig, Verdict,
};
use mesh_testkit::request;

fn bucket(tokens: u32) -> TokenBucketConfig {
    // So slow that nothing comes back during a test.
    TokenBucketConfig::new(tokens, 1, Duration::from_secs(3_600)).unwrap()
}

/// The descriptor `(user, <x-user>)`.
fn by_user() -> RateLimitRule {
    RateLimitRule::new(vec![Action::RequestHeaders {
        header_name: "x-user".parse().unwrap(),
        descriptor_key: Arc::from("user"),
        skip_if_absent: false,
    }])
}

fn by_path() -> RateLimitRule {
    RateLimitRule::new(vec![Action::RequestHeaders {
        header_name: ":path".parse().unwrap(),
        descriptor_key: Arc::from("path"),
        skip_if_absent: false,
    }])
}

fn limit(
    default: Option<u32>,
    descriptors: Vec<Descriptor>,
    rules: Vec<RateLimitRule>,
    change: impl FnOnce(&mut LocalRateLimitConfig),
) -> LocalRateLimit {
    let mut config = LocalRateLimitConfig {
        token_bucket: default.map(bucket),
        descriptors: Descriptors::new(descriptors).unwrap(),
        rate_limits: RateLimits::from(rules),
        ..LocalRateLimitConfig::per_second(1).unwrap()
    };
    change(&mut config);
    LocalRateLimit::new(config, clock::now())
}

fn decide(limit: &LocalRateLimit, user: Option<&str>, path: &str) -> Verdict {
    let mut request = request(&format!("http://a{path}"));
    if let Some(user) = user {
        request
            .headers_mut()
            .insert("x-user", HeaderValue::from_str(user).unwrap());
    }
    limit.decide(&RequestView::new(&request), clock::now(), || 0)
}

/// How many of ten requests are let through.
fn passed(limit: &LocalRateLimit, user: Option<&str>, path: &str) -> usize {
    (0..10)
        .filter(|_| matches!(decide(limit, user, path), Verdict::Ok(_)))
        .count()
}

#[test]
fn a_matching_descriptor_has_a_bucket_of_its_own() {
    let limit = limit(
        Some(4),
        vec![Descriptor::new([("user", "ann")], bucket(2))],
        vec![by_user()],
        |config| config.always_consume_default_token_bucket = false,
    );
    assert_eq!(passed(&limit, Some("ann"), "/"), 2);
    assert_eq!(passed(&limit, Some("bob"), "/"), 4);
    assert_eq!(passed(&limit, None, "/"), 0);
}

#[test]
fn the_default_bucket_is_taken_from_too_unless_told_otherwise() {
    let descriptors = vec![Descriptor::new([("user", "ann")], bucket(5))];
    let limit = limit(Some(3), descriptors, vec![by_user()], |_| {});
    assert_eq!(passed(&limit, Some("ann"), "/"), 3);
    // Ten requests of ann took her five, three of which passed; the default is empty.
    assert_eq!(passed(&limit, None, "/"), 0);
}

#[test]
fn the_slowest_bucket_is_asked_first_and_a_refusal_spares_the_others() {
    let limit = limit(
        None,
        vec![
            Descriptor::new([("path", "/x")], TokenBucketConfig::per_second(7).unwrap()),
            Descriptor::new([("user", "ann")], bucket(2)),
        ],
        vec![by_path(), by_user()],
        |_| {},
    );
    assert_eq!(passed(&limit, Some("ann"), "/x"), 2);
    let Verdict::Refused { quota, left } = decide(&limit, Some("ann"), "/x") else {
        panic!("it should be refused");
    };
    assert_eq!((quota.limit(), left), (2, 0));
    // Her eight refusals took nothing from the path's bucket: 7 - 2 are left for others.
    assert_eq!(passed(&limit, None, "/x"), 5);
}

#[test]
fn a_wildcard_gives_each_value_its_bucket() {
    let limit = limit(
        Some(100),
        vec![
            Descriptor::new([("user", "")], bucket(3)),
            Descriptor::new([("user", "vip")], bucket(9)),
        ],
        vec![by_user()],
        |_| {},
    );
    assert_eq!(passed(&limit, Some("ann"), "/"), 3);
    assert_eq!(passed(&limit, Some("bob"), "/"), 3);
    assert_eq!(passed(&limit, Some("ann"), "/"), 0);
    assert_eq!(passed(&limit, Some("vip"), "/"), 9);
}

#[test]
fn a_wildcard_matches_only_the_same_keys_and_count() {
    let both = RateLimitRule::new(
        [by_user().actions, by_path().actions]
            .into_iter()
            .flatten()
            .collect(),
    );
    let limit = limit(
        Some(5),
        vec![Descriptor::new([("user", ""), ("path", "/x")], bucket(1))],
        vec![both],
        |_| {},
    );
    assert_eq!(passed(&limit, Some("ann"), "/x"), 1);
    assert_eq!(passed(&limit, Some("bob"), "/x"), 1);
    // Another path matches nothing: the default has 5 - 2 left.
    assert_eq!(passed(&limit, Some("ann"), "/y"), 3);
}

#[test]
fn a_wildcard_does_not_match_a_longer_descriptor() {
    let both = RateLimitRule::new(
        [by_user().actions, by_path().actions]
            .into_iter()
            .flatten()
            .collect(),
    );
    let descriptors = vec![Descriptor::new([("user", "")], bucket(1))];
    let limit = limit(Some(5), descriptors, vec![both], |_| {});
    assert_eq!(passed(&limit, Some("ann"), "/x"), 5);
}

#[test]
fn a_wildcard_forgets_the_value_unused_for_longest() {
    let limit = limit(
        None,
        vec![Descriptor::new([("user", "")], bucket(1))],
        vec![by_user()],
        |config| config.max_dynamic_descriptors = NonZeroU32::new(2).unwrap(),
    );
    assert_eq!(passed(&limit, Some("a"), "/"), 1);
    assert_eq!(passed(&limit, Some("b"), "/"), 1);
    assert_eq!(passed(&limit, Some("a"), "/"), 0);
    // c takes the place of b; a stays empty.
    assert_eq!(passed(&limit, Some("c"), "/"), 1);
    assert_eq!(passed(&limit, Some("a"), "/"), 0);
    assert_eq!(passed(&limit, Some("b"), "/"), 1);
}

#[test]
fn a_request_can_take_more_than_one_token() {
    let rule = RateLimitRule {
        hits_addend: NonZeroU32::new(3).unwrap(),
        ..by_user()
    };
    let descriptors = vec![Descriptor::new([("user", "ann")], bucket(7))];
    let limit = limit(Some(100), descriptors, vec![rule], |_| {});
    assert_eq!(passed(&limit, Some("ann"), "/"), 2);
}

#[test]
fn rules_can_come_with_the_request() {
    let rules: Arc<[RateLimitRule]> = Arc::from([by_user()]);
    let limit = limit(
        None,
        vec![Descriptor::new([("user", "ann")], bucket(1))],
        vec![],
        |config| {
            config.rate_limits =
                RateLimits::FromRequest(Arc::new(move |request: &RequestView<'_>| {
                    (request.uri.path() == "/limited").then(|| Arc::clone(&rules))
                }));
        },
    );
    assert_eq!(passed(&limit, Some("ann"), "/free"), 10);
    assert_eq!(passed(&limit, Some("ann"), "/limited"), 1);
}

#[test]
fn a_config_push_keeps_the_buckets_of_unchanged_descriptors() {
    let descriptors = |vip| {
        vec![
            Descriptor::new([("user", "")], bucket(1)),
            Descriptor::new([("user", "vip")], bucket(vip)),
        ]
    };
    let old = limit(None, descriptors(2), vec![by_user()], |_| {});
    assert_eq!(passed(&old, Some("ann"), "/"), 1);
    assert_eq!(passed(&old, Some("vip"), "/"), 2);
    let same = limit(None, descriptors(2), vec![by_user()], |_| {}).inherit(&old, clock::now());
    assert_eq!(passed(&same, Some("ann"), "/"), 0);
    assert_eq!(passed(&same, Some("vip"), "/"), 0);
    let other = limit(None, descriptors(3), vec![by_user()], |_| {}).inherit(&old, clock::now());
    assert_eq!(passed(&other, Some("ann"), "/"), 0);
    assert_eq!(passed(&other, Some("vip"), "/"), 3);
}

#[test]
fn senseless_descriptors_and_buckets_are_refused() {
    let ann = || Descriptor::new([("user", "ann")], bucket(1));
    assert_eq!(
        Descriptors::new(vec![ann(), Descriptor::new([], bucket(1))]),
        Err(InvalidDescriptors::Empty { index: 1 })
    );
    assert_eq!(
        Descriptors::new(vec![ann(), ann()])
            .unwrap_err()
            .to_string(),
        "descriptors[1] repeats the entries of descriptors[0]"
    );
    assert_eq!(
        Descriptors::new(vec![Descriptor::new([("a", "b"), ("", "c")], bucket(1))])
            .unwrap_err()
            .to_string(),
        "descriptors[0].entries[1].key must not be empty"
    );
    let short = Duration::from_millis(49);
    for (max, per_fill, interval, error) in [
        (
            0,
            1,
            Duration::from_secs(1),
            "max_tokens must be greater than 0",
        ),
        (
            1,
            0,
            Duration::from_secs(1),
            "tokens_per_fill must be greater than 0",
        ),
        (1, 1, short, "fill_interval must be at least 50ms, not 49ms"),
    ] {
        let invalid = TokenBucketConfig::new(max, per_fill, interval).unwrap_err();
        assert_eq!(invalid.to_string(), error);
    }
}
