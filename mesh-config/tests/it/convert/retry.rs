//! Retry and hedge policies, and which of them a route gets.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use mesh_core::ExponentialBackoff;
use mesh_retry::{RateLimitedBackoff, ResetFormat, ResetHeader, RetryConfig, RetryOn};

use super::{assert_refused, config, report, route, route_text, vhost_text};

const SECOND: Duration = Duration::from_secs(1);
const AT: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.retry_policy";

fn policy(fields: &str) -> Arc<RetryConfig> {
    let route = route(&format!(
        "match: {{prefix: /}}\nroute: {{cluster: b, retry_policy: {{{fields}}}}}"
    ));
    route.policy().retry.clone().unwrap()
}

/// The policies of the routes of a virtual host.
fn policies(fields: &str) -> Vec<Option<Arc<RetryConfig>>> {
    let config = config(&vhost_text(fields));
    let routes = &config.listeners[0].manager().unwrap().routes;
    routes
        .routes()
        .map(|route| route.policy().retry.clone())
        .collect()
}

#[test]
fn every_route_has_a_policy_since_headers_may_ask_for_retries() {
    let route = route("match: {prefix: /}\nroute: {cluster: b}");
    let retry = route.policy().retry.clone().unwrap();
    assert!(retry.retry_on.is_empty());
    assert_eq!(
        (retry.num_retries, retry.request_body_buffer_limit),
        (1, 1 << 20)
    );
    let answer = super::route("match: {prefix: /}\ndirect_response: {status: 200}");
    assert!(answer.policy().retry.is_none());
}

#[test]
fn everything_that_a_policy_says_is_kept() {
    let policy = policy(
        "retry_on: 'gateway-error, unavailable', num_retries: 4, per_try_timeout: 2s, per_try_idle_timeout: 3s, \
         retriable_status_codes: [418, 99999], host_selection_retry_max_attempts: 5, \
         retry_host_predicate: [{name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], \
         retry_back_off: {base_interval: 1s, max_interval: 4s}, \
         rate_limited_retry_back_off: {reset_headers: [{name: Retry-After}, {name: x-reset, format: UNIX_TIMESTAMP}], max_interval: 9s}",
    );
    assert_eq!(
        policy.retry_on,
        RetryOn::GATEWAY_ERROR | RetryOn::UNAVAILABLE
    );
    assert_eq!(policy.num_retries, 4);
    assert_eq!(policy.per_try_timeout, Some(2 * SECOND));
    assert_eq!(policy.per_try_idle_timeout, Some(3 * SECOND));
    assert_eq!(policy.retriable_status_codes, [StatusCode::IM_A_TEAPOT]);
    assert_eq!(policy.host_selection_retry_max_attempts, 5);
    assert!(policy.previous_hosts);
    assert_eq!(
        policy.retry_back_off,
        ExponentialBackoff::new(SECOND, Some(4 * SECOND)).unwrap()
    );
    let reset = ResetHeader {
        name: "x-reset".parse().unwrap(),
        format: ResetFormat::UnixTimestamp,
    };
    let limited = RateLimitedBackoff::new(vec![ResetHeader::RETRY_AFTER, reset], Some(9 * SECOND));
    assert_eq!(policy.rate_limited_retry_back_off, Some(limited.unwrap()));
}

#[test]
fn header_matchers_become_predicates() {
    let policy = policy(
        "retry_on: retriable-headers, retriable_headers: [{name: x-a, string_match: {exact: '1'}}, {name: ':status', string_match: {exact: '418'}}], \
         retriable_request_headers: [{name: ':method', string_match: {exact: GET}}]",
    );
    assert_eq!(policy.retriable_headers.len(), 2);
    assert_eq!(policy.retriable_request_headers.len(), 1);
}

#[test]
fn the_route_comes_before_the_virtual_host_and_nothing_is_mixed() {
    let policies = policies(
        "retry_policy: {retry_on: 5xx, num_retries: 7}\ninclude_request_attempt_count: true\n\
         include_is_timeout_retry_header: true\nhedge_policy: {hedge_on_per_try_timeout: true}\n\
         routes:\n- {match: {prefix: /a}, route: {cluster: b}}\n\
         - {match: {prefix: /b}, route: {cluster: b, retry_policy: {retry_on: reset}}}\n\
         - {match: {prefix: /c}, route: {cluster: b, hedge_policy: {}}}\n\
         - {match: {prefix: /d}, route: {cluster: b}}\n",
    );
    let policies: Vec<_> = policies.into_iter().map(Option::unwrap).collect();
    let seen: Vec<_> = policies
        .iter()
        .map(|policy| {
            (
                policy.retry_on,
                policy.num_retries,
                policy.hedge_on_per_try_timeout,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (RetryOn::FIVE_XX, 7, true),
            (RetryOn::RESET, 1, true),
            (RetryOn::FIVE_XX, 7, false),
            (RetryOn::FIVE_XX, 7, true),
        ]
    );
    for policy in &policies {
        assert!(policy.include_request_attempt_count && policy.include_is_timeout_retry_header);
    }
    // Routes that say nothing share one.
    assert!(Arc::ptr_eq(&policies[0], &policies[3]));
}

#[test]
fn newer_buffer_limits_come_before_older_ones() {
    let limits = |vhost: &str, route: &str| {
        let text =
            format!("{vhost}\nroutes: [{{match: {{prefix: /}}, route: {{cluster: b}}{route}}}]");
        policies(&text)[0]
            .as_ref()
            .unwrap()
            .request_body_buffer_limit
    };
    let (new, old) = (
        "request_body_buffer_limit",
        "per_request_buffer_limit_bytes",
    );
    assert_eq!(limits("", ""), 1 << 20);
    assert_eq!(limits(&format!("{old}: 1"), ""), 1);
    assert_eq!(limits(&format!("{old}: 1"), &format!(", {old}: 2")), 2);
    assert_eq!(
        limits(&format!("{new}: 3\n{old}: 1"), &format!(", {old}: 2")),
        3
    );
    assert_eq!(limits(&format!("{new}: 3"), &format!(", {new}: 0")), 0);
}

#[test]
fn what_envoy_refuses_is_refused() {
    let refused = |fields: &str, path: &str, reason: &str| {
        let text = route_text(&format!(
            "match: {{prefix: /}}\nroute: {{cluster: b, retry_policy: {{{fields}}}}}"
        ));
        assert_refused(&text, "retry_policy", &format!("{AT}{path}"), reason);
    };
    refused(
        "retry_back_off: {base_interval: 2s, max_interval: 1s}",
        ".retry_back_off.max_interval",
        "max_interval must be greater than or equal to base_interval",
    );
    refused(
        "retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}]",
        ".retry_host_predicate[0]",
        "typed_config is missing",
    );
    refused(
        "per_try_timeout: -1s",
        ".per_try_timeout",
        "a duration must not be negative",
    );
}

#[test]
fn conditions_that_do_not_exist_are_reported() {
    let text = route_text(
        "match: {prefix: /}\nroute: {cluster: b, retry_policy: {retry_on: 'teapot,5xx', refresh_cluster_on_retry: true, retry_priority: {name: p}}, hedge_policy: {initial_requests: 2}}",
    );
    let at_hedge = AT.replace("retry_policy", "hedge_policy");
    assert_eq!(
        report(&text),
        [
            (format!("{AT}.retry_priority"), None, false),
            (format!("{AT}.refresh_cluster_on_retry"), None, false),
            (format!("{at_hedge}.initial_requests"), None, false),
            (format!("{AT}.retry_on"), Some("teapot".to_owned()), false),
        ]
    );
}

#[test]
fn mistakes_of_a_virtual_host_are_told_once() {
    assert_refused(
        &vhost_text(
            "retry_policy: {per_try_timeout: -1s}\nroutes:\n- {match: {prefix: /a}, route: {cluster: b}}\n- {match: {prefix: /}, route: {cluster: b}}",
        ),
        "retry_policy",
        &format!("{}.per_try_timeout", AT.replace("routes[0].route.", "")),
        "a duration must not be negative",
    );
}
