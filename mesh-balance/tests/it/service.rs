use std::{cell::Cell, sync::Arc};

use http_body_util::BodyExt as _;
use mesh_balance::{Balance, BalanceConfig, LbPolicy, LeastRequestConfig};
use mesh_core::{
    BoxHttpService, Endpoint, ErrorKind, Generic, Health, Percent, RequestInfo, ResponseFlag, Rng,
    sync::Ordering,
};
use mesh_testkit::{
    Gate, Laws, Polled, Reply, ScriptedBody, Upstream, UpstreamService, call, info, request,
};

use crate::support::{Spec, active, endpoints, set_health};

/// One upstream per endpoint, and the balance over them.
fn balanced(
    config: impl Into<BalanceConfig>,
    specs: &[Spec],
) -> (Vec<Upstream>, Balance<UpstreamService>) {
    let upstreams: Vec<Upstream> = specs.iter().map(|_| Upstream::new()).collect();
    let services = upstreams.iter().map(Upstream::service);
    let members = endpoints(specs).into_iter().zip(services).collect();
    (
        upstreams,
        Balance::new(config, members).with_rng(Rng::seeded(1)),
    )
}

fn came(upstreams: &[Upstream]) -> Vec<usize> {
    upstreams.iter().map(Upstream::count).collect()
}

#[tokio::test(start_paused = true)]
async fn spreads_requests_by_weight() {
    let (upstreams, mut balance) =
        balanced(LbPolicy::RoundRobin, &[Spec::weight(1), Spec::weight(2)]);
    for _ in 0..30 {
        // Clones share the algorithm's place.
        call(&mut balance.clone(), request("http://a/"))
            .await
            .unwrap();
    }
    assert_eq!(came(&upstreams), [10, 20]);
    call(&mut balance, request("http://a/")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_is_active_until_its_body_ends() {
    let (upstreams, mut balance) = balanced(LbPolicy::RoundRobin, &[Spec::weight(1)]);
    let set = balance.endpoints();
    let gate = Gate::new();
    let body = ScriptedBody::new().data("one").wait(&gate).data("two");
    upstreams[0].reply(Reply::status(200).body(body));
    let response = call(&mut balance, request("http://a/")).await.unwrap();
    assert_eq!(active(&set), [1]);
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(active(&set), [1]);
    gate.open();
    body.frame().await.unwrap().unwrap();
    assert_eq!(active(&set), [0]);
    assert_eq!(
        set.endpoints()[0]
            .state
            .stats
            .rq_total
            .load(Ordering::Relaxed),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn least_request_sees_what_is_running() {
    let policy = LbPolicy::LeastRequest(LeastRequestConfig::default());
    let (upstreams, balance) = balanced(policy, &[Spec::weight(1); 2]);
    for upstream in &upstreams {
        upstream.script((0..100).map(|_| Reply::never()));
    }
    let mut running: Vec<_> = (0..100)
        .map(|_| {
            let mut balance = balance.clone();
            Polled::new(async move { call(&mut balance, request("http://a/")).await.map(drop) })
        })
        .collect();
    running
        .iter_mut()
        .for_each(|r| assert!(r.run().is_pending()));
    let counts = came(&upstreams);
    assert!(counts[0].abs_diff(counts[1]) <= 6, "{counts:?}");
    drop(running);
    assert_eq!(active(&balance.endpoints()), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn without_anybody_healthy_it_refuses_and_says_so() {
    let config = BalanceConfig {
        healthy_panic_threshold: Percent::ZERO,
        ..BalanceConfig::default()
    };
    let (upstreams, mut balance) = balanced(config, &[Spec::at(0, Health::Unhealthy); 2]);
    let (mut request, info) = (request("http://a/"), info());
    RequestInfo::attach(&info, &mut request);
    let error = call(&mut balance, request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoHealthyUpstream);
    assert_eq!(
        error.to_string(),
        "no healthy upstream: none of 2 endpoints can be used"
    );
    assert!(info.flags.has(ResponseFlag::NoHealthyUpstream));
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "balance:no_healthy_upstream 0/2"
    );
    assert_eq!(came(&upstreams), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn facts_name_the_endpoint_and_panic_is_traced() {
    let (_, mut balance) = balanced(LbPolicy::RoundRobin, &[Spec::at(0, Health::Unhealthy); 2]);
    let (mut request, info) = (request("http://a/"), info());
    RequestInfo::attach(&info, &mut request);
    call(&mut balance, request).await.unwrap();
    let (endpoint, tried) = info.with(|facts| (facts.endpoint.clone().unwrap(), facts.tried.len()));
    assert!(
        balance
            .endpoints()
            .endpoints()
            .iter()
            .any(|e| Arc::ptr_eq(e, &endpoint))
    );
    assert_eq!(tried, 1);
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "balance:panic 0/2"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_elsewhere_when_asked() {
    let (upstreams, balance) = balanced(LbPolicy::Random, &[Spec::weight(1); 3]);
    let mut balance = balance.avoiding_tried(50);
    for _ in 0..20 {
        let info = info();
        for _ in 0..3 {
            let mut attempt = request("http://a/");
            RequestInfo::attach(&info, &mut attempt);
            call(&mut balance, attempt).await.unwrap();
        }
    }
    assert_eq!(came(&upstreams), [20; 3]);
}

#[tokio::test(start_paused = true)]
async fn waits_for_the_chosen_service_inside_the_future() {
    let (upstreams, mut balance) = balanced(LbPolicy::RoundRobin, &[Spec::weight(1)]);
    upstreams[0].set_ready(false);
    let set = balance.endpoints();
    let mut running = Polled::new(call(&mut balance, request("http://a/")));
    assert!(running.run().is_pending());
    assert_eq!((active(&set), upstreams[0].count()), (vec![1], 0));
    upstreams[0].set_ready(true);
    assert!(running.is_woken() && running.run().is_ready());
}

#[tokio::test(start_paused = true)]
async fn members_can_be_replaced_while_requests_run() {
    let (upstreams, mut balance) = balanced(LbPolicy::RoundRobin, &[Spec::weight(1)]);
    let gate = Gate::new();
    upstreams[0].reply(Reply::ok("old").held(&gate));
    let mut other = balance.clone();
    let mut running = Polled::new(call(&mut balance, request("http://a/")));
    assert!(running.run().is_pending());
    let fresh = Upstream::new();
    let endpoint = Endpoint::standalone(([127, 0, 0, 9], 1).into());
    other.replace(vec![(endpoint, fresh.service())]);
    call(&mut other, request("http://a/")).await.unwrap();
    assert_eq!((fresh.count(), upstreams[0].count()), (1, 1));
    gate.open();
    assert!(matches!(running.run(), std::task::Poll::Ready(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn of_members_with_one_address_the_first_gets_the_requests() {
    let (first, second, third) = (Upstream::new(), Upstream::new(), Upstream::new());
    let at = |port: u16| Endpoint::standalone(([127, 0, 0, 1], port).into());
    let members = vec![
        (at(1), first.service()),
        (at(1), second.service()),
        (at(2), third.service()),
    ];
    let mut balance: Balance<_> = Balance::new(LbPolicy::RoundRobin, members);
    for _ in 0..4 {
        call(&mut balance, request("http://a/")).await.unwrap();
    }
    assert_eq!((first.count(), second.count(), third.count()), (2, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn services_of_any_kind_can_be_balanced() {
    let member = |port: u16| {
        let service = tower::service_fn(move |n: u16| async move {
            if n == 0 { Err("zero") } else { Ok(n * port) }
        });
        (Endpoint::standalone(([127, 0, 0, 1], port).into()), service)
    };
    let mut balance: Balance<_, Generic> =
        Balance::new(LbPolicy::RoundRobin, vec![member(1), member(10)]);
    let mut sum = 0;
    for _ in 0..10 {
        sum += call(&mut balance, 2).await.unwrap();
    }
    assert_eq!(sum, 5 * 2 + 5 * 20);
    let error = call(&mut balance, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert_eq!(active(&balance.endpoints()), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_balance_is_a_good_service() {
    let endpoint = Endpoint::standalone(([127, 0, 0, 1], 1).into());
    let state = Arc::clone(&endpoint.state);
    Laws::new(move |upstream| {
        Balance::<_>::new(LbPolicy::RoundRobin, vec![(endpoint.clone(), upstream)])
    })
    .in_use(move || state.stats.rq_active.load(Ordering::Relaxed))
    .check()
    .await;
}

#[test]
fn a_balance_goes_where_tower_users_put_it() {
    // A service that is neither Sync nor Unpin-free of worries may still be balanced.
    #[derive(Clone)]
    struct NotSync(#[expect(dead_code, reason = "only its type matters")] Cell<u8>);
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Balance<NotSync>>();
    let (_, balance) = balanced(LbPolicy::RoundRobin, &[Spec::weight(1)]);
    fn service<S>(_: &S)
    where
        S: tower_service::Service<http::Request<mesh_core::Body>>,
        S::Future: Send,
    {
    }
    service(&balance);
    // At a boxed seam the body becomes the seam's own.
    let boxed = tower::ServiceExt::<http::Request<mesh_core::Body>>::map_response(
        balance,
        |response: http::Response<_>| response.map(mesh_core::GuardedBody::into_body),
    );
    let _boxed = BoxHttpService::new(boxed);
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_member_is_left_alone_until_it_recovers() {
    let (upstreams, mut balance) = balanced(LbPolicy::RoundRobin, &[Spec::weight(1); 3]);
    let sick = Arc::clone(&balance.endpoints().endpoints()[0].state);
    set_health(&sick, Health::Unhealthy);
    for _ in 0..10 {
        call(&mut balance, request("http://a/")).await.unwrap();
    }
    assert_eq!(came(&upstreams), [0, 5, 5]);
}
