use std::time::Instant;

use mesh_core::Rng;

use super::{
    Action, Change, Detection, Evidence, SuccessRates, Tracker, Verdict, bucket::Rate,
    failure_percentage, host::Host, success_rate,
};
use crate::OutlierConfig;

/// Where a failure came from: the endpoint, or the way to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    External,
    Local,
}

/// A host and what it did in the last interval.
type Measured<'a> = (&'a mut Host, Rate);

impl Tracker {
    /// An interval is over: ends ejections, compares what the interval brought, forgives.
    pub(crate) fn on_interval(&mut self, now: Instant, rng: &Rng) -> Vec<Change> {
        let Self {
            config,
            hosts,
            ejected,
            external,
            local,
        } = self;
        let mut ejector = Ejector {
            now,
            config,
            rng,
            endpoints: hosts.len() as u32,
            ejected,
        };
        let least = config
            .success_rate_minimum_hosts()
            .min(config.failure_percentage_minimum_hosts());
        let enough = hosts.len() >= least as usize;
        let mut changes = Vec::new();
        for host in hosts.values_mut() {
            if host.ejection.is_due(now, config) {
                changes.push(ejector.uneject(host));
            }
        }
        for (origin, rates) in [(Origin::External, external), (Origin::Local, local)] {
            let mut measured: Vec<Measured<'_>> = hosts
                .values_mut()
                .filter_map(|host| measure(host, origin, config, enough))
                .collect();
            *rates = ejector.judge(&mut measured, origin, &mut changes);
        }
        for host in hosts.values_mut() {
            host.ejection.decay(now, config);
        }
        changes
    }
}

/// Ends the interval of one host. Whoever is ejected does not take part, and nobody with too
/// few endpoints; what was counted is gone.
fn measure<'a>(
    host: &'a mut Host,
    origin: Origin,
    config: &OutlierConfig,
    enough: bool,
) -> Option<Measured<'a>> {
    let (bucket, shown) = match origin {
        Origin::External => (&host.counters.external, &mut host.success_rate),
        Origin::Local => (&host.counters.local, &mut host.local_success_rate),
    };
    let rate = bucket.take();
    *shown = None;
    let rate = rate.filter(|_| enough && !host.ejection.is_active())?;
    if success_rate::takes_part(rate, config) || failure_percentage::takes_part(rate, config) {
        *shown = Some(rate.success);
    }
    Some((host, rate))
}

/// Ejects, as far as the rules allow.
pub(super) struct Ejector<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a OutlierConfig,
    pub(super) rng: &'a Rng,
    pub(super) endpoints: u32,
    pub(super) ejected: &'a mut u32,
}

impl Ejector<'_> {
    /// Compares the hosts of one interval; returns what they were compared with.
    fn judge(
        &mut self,
        measured: &mut [Measured<'_>],
        origin: Origin,
        changes: &mut Vec<Change>,
    ) -> Option<SuccessRates> {
        let config = self.config;
        let rates: Vec<f64> = measured
            .iter()
            .filter(|(_, rate)| success_rate::takes_part(*rate, config))
            .map(|(_, rate)| rate.success)
            .collect();
        let rates = success_rate::compare(&rates, config);
        if let Some(rates) = rates {
            let detection = match origin {
                Origin::External => Detection::SuccessRate,
                Origin::Local => Detection::LocalOriginSuccessRate,
            };
            for (host, rate) in measured.iter_mut() {
                if success_rate::takes_part(*rate, config)
                    && success_rate::is_outlier(rate.success, rates)
                {
                    let evidence = Evidence::SuccessRate {
                        host: rate.success,
                        average: rates.average,
                        threshold: rates.threshold,
                    };
                    changes.push(self.detected(host, detection, evidence));
                }
            }
        }
        self.judge_failures(measured, origin, changes);
        rates
    }

    fn judge_failures(
        &mut self,
        measured: &mut [Measured<'_>],
        origin: Origin,
        changes: &mut Vec<Change>,
    ) {
        let config = self.config;
        let detection = match origin {
            Origin::External => Detection::FailurePercentage,
            Origin::Local => Detection::LocalOriginFailurePercentage,
        };
        let takes_part = |rate: Rate| failure_percentage::takes_part(rate, config);
        let taking_part = measured.iter().filter(|(_, r)| takes_part(*r)).count();
        if !failure_percentage::applies(taking_part, config) {
            return;
        }
        for (host, rate) in measured.iter_mut() {
            if takes_part(*rate) && failure_percentage::is_outlier(*rate, config) {
                let evidence = Evidence::FailurePercentage {
                    host_success_rate: rate.success,
                    threshold: config.failure_percentage_threshold(),
                };
                changes.push(self.detected(host, detection, evidence));
            }
        }
    }

    /// A detector noticed `host`: ejects it, if it may.
    pub(super) fn detected(
        &mut self,
        host: &mut Host,
        detection: Detection,
        evidence: Evidence,
    ) -> Change {
        let since_last_action = host.ejection.since_last_action(self.now, true);
        let verdict = self.verdict(host, detection);
        if verdict == Verdict::Ejected {
            host.ejection.begin(self.now, self.config, self.rng);
            host.mark(true);
            *self.ejected += 1;
        }
        Change {
            since_last_action,
            ..self.change(
                host,
                Action::Detected {
                    detection,
                    evidence,
                    verdict,
                },
            )
        }
    }

    fn verdict(&self, host: &Host, detection: Detection) -> Verdict {
        if host.ejection.is_active() {
            return Verdict::AlreadyEjected;
        }
        let share = 100.0 * f64::from(*self.ejected + 1) / f64::from(self.endpoints);
        let first = self.config.always_eject_one_host() && *self.ejected == 0;
        if !first && share > f64::from(self.config.max_ejection_percent()) {
            return Verdict::Overflow;
        }
        if self.rng.below(100) >= detection.enforcing(self.config).into() {
            return Verdict::NotEnforced;
        }
        Verdict::Ejected
    }

    /// Ends an ejection. Rows start over, so that a few errors do not eject at once again.
    pub(super) fn uneject(&mut self, host: &mut Host) -> Change {
        let since_last_action = host.ejection.since_last_action(self.now, false);
        host.ejection.end(self.now);
        host.counters.streaks.clear_all();
        host.mark(false);
        *self.ejected -= 1;
        Change {
            since_last_action,
            ..self.change(host, Action::Uneject)
        }
    }

    fn change(&self, host: &Host, action: Action) -> Change {
        Change {
            address: host.endpoint().address().clone(),
            action,
            num_ejections: host.ejection.count(),
            since_last_action: None,
            ejected: *self.ejected,
            endpoints: self.endpoints,
            max_ejection_percent: self.config.max_ejection_percent(),
        }
    }
}
