//! What is decided about a request, without a service.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use mesh_core::FractionalPercent;
use mesh_fault::{
    Abort, AbortWith, Delay, FaultAbort, FaultConfig, FaultDelay, FaultRateLimit, Faults,
    RateLimit, decide,
};

const ALWAYS: FractionalPercent = FractionalPercent::HUNDRED;

fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

fn by_header(percentage: FractionalPercent) -> FaultConfig {
    FaultConfig {
        delay: Some(FaultDelay {
            delay: Delay::Header,
            percentage,
        }),
        abort: Some(FaultAbort::new(Abort::Header, percentage)),
        response_rate_limit: Some(FaultRateLimit {
            limit: RateLimit::Header,
            percentage,
        }),
        ..FaultConfig::default()
    }
}

fn asked(list: &[(&'static str, &'static str)]) -> Faults {
    decide(&by_header(ALWAYS), &headers(list), || 0)
}

#[test]
fn headers_ask_for_faults() {
    assert_eq!(asked(&[]), Faults::default());
    let all = asked(&[
        ("x-envoy-fault-delay-request", "150"),
        ("x-envoy-fault-abort-request", "418"),
        ("x-envoy-fault-throughput-response", "3"),
    ]);
    assert_eq!(all.delay, Some(Duration::from_millis(150)));
    assert_eq!(all.limit_kbps.unwrap().get(), 3);
    let teapot = AbortWith {
        status: StatusCode::IM_A_TEAPOT,
        grpc: None,
    };
    assert_eq!(all.abort, Some(teapot));
}

#[test]
fn headers_that_make_no_sense_ask_for_nothing() {
    for value in ["", "x", "-1", "99999999999999999999", "1.5"] {
        for name in [
            "x-envoy-fault-delay-request",
            "x-envoy-fault-abort-request",
            "x-envoy-fault-abort-grpc-request",
            "x-envoy-fault-throughput-response",
        ] {
            assert_eq!(
                asked(&[(name, value)]),
                Faults::default(),
                "{name}: {value}"
            );
        }
    }
    for (name, value) in [
        ("x-envoy-fault-abort-request", "199"),
        ("x-envoy-fault-abort-request", "600"),
        ("x-envoy-fault-delay-request", "0"),
        ("x-envoy-fault-throughput-response", "0"),
    ] {
        assert_eq!(
            asked(&[(name, value)]),
            Faults::default(),
            "{name}: {value}"
        );
    }
}

#[test]
fn of_two_abort_headers_the_http_status_counts() {
    let grpc = ("x-envoy-fault-abort-grpc-request", "5");
    assert_eq!(
        asked(&[grpc]).abort,
        Some(AbortWith {
            status: StatusCode::OK,
            grpc: Some(5)
        })
    );
    let both = asked(&[("x-envoy-fault-abort-request", "503"), grpc]);
    assert_eq!(both.abort.unwrap().status, 503);
    let bad = asked(&[("x-envoy-fault-abort-request", "42"), grpc]);
    assert_eq!(bad.abort.unwrap().grpc, Some(5));
}

#[test]
fn a_header_lowers_the_share_and_never_raises_it() {
    let config = by_header(FractionalPercent::ten_thousandth(50));
    let delayed = |percentage: Option<&'static str>, random: u64| {
        let mut list = vec![("x-envoy-fault-delay-request", "10")];
        list.extend(percentage.map(|p| ("x-envoy-fault-delay-request-percentage", p)));
        decide(&config, &headers(&list), || random).delay.is_some()
    };
    assert!(delayed(None, 49) && !delayed(None, 50));
    assert!(delayed(Some("20"), 19) && !delayed(Some("20"), 20));
    assert!(delayed(Some("9000"), 49) && !delayed(Some("9000"), 50));
    assert!(delayed(Some("nonsense"), 49));
}

#[test]
fn a_fixed_fault_hears_no_header() {
    let config = FaultConfig {
        delay: Some(FaultDelay::fixed(Duration::from_secs(1), ALWAYS)),
        ..FaultConfig::default()
    };
    let list = [
        ("x-envoy-fault-delay-request", "10"),
        ("x-envoy-fault-delay-request-percentage", "0"),
    ];
    let faults = decide(&config, &headers(&list), || 99);
    assert_eq!(faults.delay, Some(Duration::from_secs(1)));
}
