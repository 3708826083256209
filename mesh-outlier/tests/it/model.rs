//! The detector against a reference that keeps every event and counts them anew each time.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mesh_core::{EndpointState, ErrorKind, Rng, clock};
use mesh_outlier::{
    Detector, Monitor, OutlierConfig,
    state::{Action, Detection, Verdict},
};
use proptest::{collection::vec, prelude::*};

use crate::{address, endpoints, is_ejected};

const HOSTS: u16 = 6;

#[derive(Debug, Clone)]
enum Op {
    Status { host: usize, status: u16, times: u8 },
    Failure { host: usize, timeout: bool },
    Connected { host: usize },
    Wait(u64),
    Sweep,
    Checked { host: usize },
    Leave { host: usize },
    Join { host: usize },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let host = || 0..HOSTS as usize;
    let status = prop_oneof![
        4 => Just(200u16),
        3 => Just(500),
        3 => Just(503),
        1 => Just(404),
        1 => Just(600),
    ];
    let op = prop_oneof![
        12 => (host(), status, 1..4u8)
            .prop_map(|(host, status, times)| Op::Status { host, status, times }),
        4 => (host(), any::<bool>()).prop_map(|(host, timeout)| Op::Failure { host, timeout }),
        2 => host().prop_map(|host| Op::Connected { host }),
        3 => (1..8_000u64).prop_map(Op::Wait),
        3 => Just(Op::Sweep),
        1 => host().prop_map(|host| Op::Checked { host }),
        1 => host().prop_map(|host| Op::Leave { host }),
        1 => host().prop_map(|host| Op::Join { host }),
    ];
    vec(op, 1..150)
}

fn enforcing() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(100u32), 1 => Just(0), 1 => 1..100u32]
}

fn config() -> impl Strategy<Value = OutlierConfig> {
    let rows = (0..5u32, 0..4u32, 0..4u32);
    let rates = (0..5u32, 0..6u32, 0..3_000u32, 0..=100u32, 0..5u32, 0..6u32);
    let durations = (1..5_000u64, 1..5_000u64, 0..10_000u64, 0..3_000u64);
    let limits = (0..=100u32, any::<bool>(), any::<bool>(), any::<bool>());
    let enforced = proptest::array::uniform7(enforcing());
    (rows, rates, durations, limits, enforced).prop_map(
        |(
            (five, gateway, local),
            (sr_hosts, sr_volume, stdev, fp_limit, fp_hosts, fp_volume),
            (interval, base, more, jitter),
            (percent, one, checks, split),
            enforced,
        )| {
            OutlierConfig::builder()
                .consecutive_5xx(five)
                .consecutive_gateway_failure(gateway)
                .consecutive_local_origin_failure(local)
                .success_rate_minimum_hosts(sr_hosts)
                .success_rate_request_volume(sr_volume)
                .success_rate_stdev_factor(stdev)
                .failure_percentage_threshold(fp_limit)
                .failure_percentage_minimum_hosts(fp_hosts)
                .failure_percentage_request_volume(fp_volume)
                .interval(Duration::from_millis(interval))
                .base_ejection_time(Duration::from_millis(base))
                .max_ejection_time(Duration::from_millis(base + more))
                .max_ejection_time_jitter(Duration::from_millis(jitter))
                .max_ejection_percent(percent)
                .always_eject_one_host(one)
                .successful_active_health_check_uneject_host(checks)
                .split_external_local_origin_errors(split)
                .enforcing_consecutive_5xx(enforced[0])
                .enforcing_consecutive_gateway_failure(enforced[1])
                .enforcing_consecutive_local_origin_failure(enforced[2])
                .enforcing_success_rate(enforced[3])
                .enforcing_local_origin_success_rate(enforced[4])
                .enforcing_failure_percentage(enforced[5])
                .enforcing_failure_percentage_local_origin(enforced[6])
                .build()
                .expect("the strategies stay within the ranges")
        },
    )
}

/// What happened to one endpoint, in order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Past {
    Status(u16),
    Local(bool),
    /// A row was handled.
    Fired(Detection),
    Sweep(Instant),
    Ejected(Instant, Duration),
    Unejected(Instant),
}

type Heard = (usize, Option<(Detection, Verdict)>);

struct Naive {
    config: OutlierConfig,
    rng: Rng,
    /// The past of each member.
    hosts: Vec<Option<Vec<Past>>>,
    heard: Vec<Heard>,
}

impl Naive {
    fn past(&self, host: usize) -> &[Past] {
        self.hosts[host].as_deref().unwrap_or_default()
    }

    fn add(&mut self, host: usize, past: Past) {
        if let Some(list) = &mut self.hosts[host] {
            list.push(past);
        }
    }

    fn ejected(&self, host: usize) -> bool {
        self.past(host)
            .iter()
            .rev()
            .find_map(|past| match past {
                Past::Ejected(..) => Some(true),
                Past::Unejected(_) => Some(false),
                _ => None,
            })
            .unwrap_or(false)
    }

    fn all_ejected(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|&h| self.ejected(h)).collect()
    }

    fn status(&mut self, host: usize, status: u16) {
        self.add(host, Past::Status(status));
        if (500..600).contains(&status) {
            let gateway = Detection::ConsecutiveGatewayFailure;
            if matches!(status, 502..=504) {
                self.row(
                    host,
                    gateway,
                    self.config.consecutive_gateway_failure(),
                    |p| match p {
                        Past::Status(502..=504) => Some(true),
                        Past::Status(_) => Some(false),
                        _ => None,
                    },
                );
            }
            let five = Detection::Consecutive5xx;
            self.row(host, five, self.config.consecutive_5xx(), |p| match p {
                Past::Status(500..=599) => Some(true),
                Past::Status(_) => Some(false),
                _ => None,
            });
        }
    }

    fn local(&mut self, host: usize, success: bool) {
        self.add(host, Past::Local(success));
        if !success {
            let limit = self.config.consecutive_local_origin_failure();
            let local = Detection::ConsecutiveLocalOriginFailure;
            self.row(host, local, limit, |p| match p {
                Past::Local(success) => Some(!success),
                _ => None,
            });
        }
    }

    /// Counts the row at the end of the past: `Some(true)` lengthens it, `Some(false)` ends it.
    fn row(
        &mut self,
        host: usize,
        detection: Detection,
        limit: u32,
        counts: impl Fn(&Past) -> Option<bool>,
    ) {
        if self.hosts[host].is_none() {
            return;
        }
        let mut length = 0;
        for past in self.past(host).iter().rev() {
            match counts(past) {
                Some(true) => length += 1,
                Some(false) => break,
                None if *past == Past::Fired(detection) => break,
                None if matches!(past, Past::Unejected(_)) => break,
                None => {}
            }
        }
        if length == limit && !self.ejected(host) {
            self.detect(clock::now(), host, detection);
            self.add(host, Past::Fired(detection));
        }
    }

    fn detect(&mut self, now: Instant, host: usize, detection: Detection) {
        let verdict = self.verdict(host, detection);
        if verdict == Verdict::Ejected {
            let jitter_ms = self.config.max_ejection_time_jitter().as_millis() as u64;
            let jitter = Duration::from_millis(self.rng.below(jitter_ms + 1));
            // Its time is fixed by how often it was ejected, less the peaceful intervals, as of now.
            let mut past = self.past(host).to_vec();
            past.push(Past::Ejected(now, jitter));
            let times = self.times(&past);
            let lasts = (self.config.base_ejection_time() * times)
                .min(self.config.max_ejection_time())
                + jitter;
            self.add(host, Past::Ejected(now, lasts));
        }
        self.heard.push((host, Some((detection, verdict))));
    }

    fn verdict(&self, host: usize, detection: Detection) -> Verdict {
        if self.ejected(host) {
            return Verdict::AlreadyEjected;
        }
        let ejected = self.all_ejected().len();
        let members = self.hosts.iter().flatten().count();
        let allowed = self.config.max_ejection_percent() as usize * members;
        let too_many = 100 * (ejected + 1) > allowed;
        if too_many && (ejected > 0 || !self.config.always_eject_one_host()) {
            return Verdict::Overflow;
        }
        let config = &self.config;
        let enforcing = match detection {
            Detection::Consecutive5xx => config.enforcing_consecutive_5xx(),
            Detection::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure(),
            Detection::ConsecutiveLocalOriginFailure => {
                config.enforcing_consecutive_local_origin_failure()
            }
            Detection::SuccessRate => config.enforcing_success_rate(),
            Detection::LocalOriginSuccessRate => config.enforcing_local_origin_success_rate(),
            Detection::FailurePercentage => config.enforcing_failure_percentage(),
            Detection::LocalOriginFailurePercentage => {
                config.enforcing_failure_percentage_local_origin()
            }
        };
        if self.rng.below(100) < u64::from(enforcing) {
            Verdict::Ejected
        } else {
            Verdict::NotEnforced
        }
    }

    /// How many base times an ejection at the end of `past` lasts.
    fn times(&self, past: &[Past]) -> u32 {
        let (base, max) = (
            self.config.base_ejection_time(),
            self.config.max_ejection_time(),
        );
        let (mut times, mut back) = (0u32, None);
        for event in past {
            match event {
                Past::Ejected(..) => {
                    back = None;
                    if base * times < max + base {
                        times += 1;
                    }
                }
                Past::Unejected(at) => back = Some(*at),
                Past::Sweep(at)
                    if back.is_some_and(|back| *at - back >= self.config.interval()) =>
                {
                    times = times.saturating_sub(1);
                }
                _ => {}
            }
        }
        times
    }

    fn uneject(&mut self, now: Instant, host: usize) {
        self.add(host, Past::Unejected(now));
        self.heard.push((host, None));
    }

    fn sweep(&mut self, now: Instant) {
        for host in 0..self.hosts.len() {
            let last = self.past(host).iter().rev().find_map(|past| match past {
                Past::Ejected(at, lasts) => Some((*at, *lasts)),
                _ => None,
            });
            if self.ejected(host) && last.is_some_and(|(at, lasts)| now - at >= lasts) {
                self.uneject(now, host);
            }
        }
        self.compare(
            now,
            [Detection::SuccessRate, Detection::FailurePercentage],
            |past| match past {
                Past::Status(status) => Some(!(500..600).contains(status)),
                _ => None,
            },
        );
        let local = [
            Detection::LocalOriginSuccessRate,
            Detection::LocalOriginFailurePercentage,
        ];
        self.compare(now, local, |past| match past {
            Past::Local(success) => Some(*success),
            _ => None,
        });
        for host in 0..self.hosts.len() {
            self.add(host, Past::Sweep(now));
        }
    }

    fn compare(
        &mut self,
        now: Instant,
        [by_rate, by_share]: [Detection; 2],
        success: impl Fn(&Past) -> Option<bool>,
    ) {
        // Host, successes, requests since the last sweep.
        let mut measured: Vec<(usize, f64, usize)> = Vec::new();
        for host in (0..self.hosts.len()).filter(|&h| !self.ejected(h)) {
            let recent: Vec<bool> = self
                .past(host)
                .iter()
                .rev()
                .take_while(|past| !matches!(past, Past::Sweep(_)))
                .filter_map(&success)
                .collect();
            if !recent.is_empty() {
                let good = recent.iter().filter(|good| **good).count();
                measured.push((
                    host,
                    good as f64 * 100.0 / recent.len() as f64,
                    recent.len(),
                ));
            }
        }
        let members = self.hosts.iter().flatten().count();
        let (sr_least, fp_least) = (
            self.config.success_rate_minimum_hosts() as usize,
            self.config.failure_percentage_minimum_hosts() as usize,
        );
        if members < sr_least && members < fp_least {
            return;
        }
        let volume = self.config.success_rate_request_volume() as usize;
        let mut rated = measured.clone();
        rated.retain(|(.., requests)| *requests >= volume);
        if !rated.is_empty() && rated.len() >= sr_least {
            let n = rated.len() as f64;
            let mean = rated.iter().map(|(_, rate, _)| rate).sum::<f64>() / n;
            let squares: f64 = rated.iter().map(|(_, rate, _)| (rate - mean).powi(2)).sum();
            let factor = f64::from(self.config.success_rate_stdev_factor()) / 1000.0;
            let threshold = mean - factor * (squares / n).sqrt();
            for (host, rate, _) in rated {
                if rate < threshold {
                    self.detect(now, host, by_rate);
                }
            }
        }
        let volume = self.config.failure_percentage_request_volume() as usize;
        measured.retain(|(.., requests)| *requests >= volume);
        if !measured.is_empty() && measured.len() >= fp_least {
            let limit = f64::from(self.config.failure_percentage_threshold());
            for (host, rate, _) in measured {
                if 100.0 - rate >= limit {
                    self.detect(now, host, by_share);
                }
            }
        }
    }
}

struct Real {
    detector: Arc<Detector>,
    endpoints: Vec<Arc<EndpointState>>,
    monitors: Vec<Monitor>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Real {
    fn new(config: OutlierConfig, rng: Rng) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        let addresses: Vec<_> = (1..=HOSTS).map(address).collect();
        let detector = Detector::builder("model", config)
            .rng(rng)
            .on_event(move |event| {
                let host = addresses
                    .iter()
                    .position(|a| *a == event.change.address)
                    .unwrap();
                let what = match event.change.action {
                    Action::Detected {
                        detection, verdict, ..
                    } => Some((detection, verdict)),
                    Action::Uneject => None,
                };
                log.lock().unwrap().push((host, what));
            })
            .build();
        let endpoints = endpoints(HOSTS);
        let monitors = endpoints.iter().map(|e| detector.monitor(e)).collect();
        Self {
            detector,
            endpoints,
            monitors,
            heard,
        }
    }

    fn ejected(&self) -> Vec<usize> {
        (0..self.endpoints.len())
            .filter(|&n| is_ejected(&self.endpoints[n]))
            .collect()
    }
}

async fn compare(config: OutlierConfig, ops: Vec<Op>, seed: u64) -> Result<(), TestCaseError> {
    let mut real = Real::new(config.clone(), Rng::seeded(seed));
    let mut naive = Naive {
        hosts: vec![Some(Vec::new()); HOSTS.into()],
        rng: Rng::seeded(seed),
        heard: Vec::new(),
        config,
    };
    let split = naive.config.split_external_local_origin_errors();
    for op in ops {
        match op.clone() {
            Op::Status {
                host,
                status,
                times,
            } => {
                for _ in 0..times {
                    real.monitors[host].on_response(status);
                    naive.status(host, status);
                    if split && status < 500 {
                        naive.local(host, true);
                    }
                }
            }
            Op::Failure { host, timeout } => {
                let (kind, status) = if timeout {
                    (ErrorKind::RequestTimeout, 504)
                } else {
                    (ErrorKind::ConnectFailure, 503)
                };
                real.monitors[host].on_failure(kind);
                if split {
                    naive.local(host, false);
                } else {
                    naive.status(host, status);
                }
            }
            Op::Connected { host } => {
                real.monitors[host].on_connected();
                if split {
                    naive.local(host, true);
                }
            }
            Op::Wait(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
            Op::Sweep => {
                real.detector.on_interval(clock::now());
                naive.sweep(clock::now());
            }
            Op::Checked { host } => {
                let now = clock::now();
                real.detector
                    .on_health_check_passed(now, &address(host as u16 + 1));
                if naive.ejected(host) && naive.config.successful_active_health_check_uneject_host()
                {
                    naive.uneject(now, host);
                }
            }
            Op::Leave { host } => {
                real.detector.remove(&address(host as u16 + 1));
                naive.hosts[host] = None;
            }
            Op::Join { host } => {
                real.monitors[host] = real.detector.monitor(&real.endpoints[host]);
                naive.hosts[host].get_or_insert_default();
            }
        }
        prop_assert_eq!(&*real.heard.lock().unwrap(), &naive.heard, "after {:?}", op);
        prop_assert_eq!(real.ejected(), naive.all_ejected());
        prop_assert_eq!(
            real.detector.stats().ejections_active().value(),
            naive.all_ejected().len() as u64
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn model_detector_decides_as_the_reference(config in config(), ops in ops(), seed in any::<u64>()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(compare(config, ops, seed))?;
    }
}
