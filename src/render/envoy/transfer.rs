//! How requests go to an upstream and answers come back: sizes, time-outs, retries, speed.

use envoy_types::pb::envoy::config::route::v3::RetryPolicy;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate};
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::{FaultRateLimit, fault_rate_limit};
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::{Any, Duration};

use super::make::{any, number, seconds};
use crate::annotations::rate::Rate;
use crate::annotations::retries::{Failure, Retries};
use crate::annotations::timeouts::Timeouts;
use crate::value::number::Seconds;

/// What may be repeated for every request: the endpoint has seen none of it.
const UNSEEN: &str = "connect-failure,refused-stream,reset-before-request";

/// What the endpoint has seen, and may have carried out, but not answered.
const RESET: &str = "reset";

/// The most further endpoints that are tried where no number is given.
const ALL: u32 = 16;

/// When a request is tried again.
pub(super) fn retry(retries: &Retries) -> RetryPolicy {
    let Retries { after, non_idempotent, timeout: _, tries } = retries;
    let unseen = breaks(retries).then_some(UNSEEN);
    let seen = non_idempotent.then(|| seen(retries));
    let retry_on: Vec<&str> = unseen.into_iter().chain(seen.iter().flatten().copied()).collect();
    let further = match (after.is_empty(), tries.get()) {
        (true, _) => 0,
        (false, 0) => ALL,
        (false, tries) => tries - 1,
    };
    RetryPolicy {
        retry_on: retry_on.join(","),
        num_retries: number(further),
        retry_host_predicate: if further == 0 { Vec::new() } else { vec![elsewhere()] },
        host_selection_retry_max_attempts: if further == 0 { 0 } else { 5 },
        retriable_status_codes: statuses(retries).collect(),
        retry_back_off: Some(RetryBackOff {
            base_interval: Some(milliseconds(1)),
            max_interval: Some(milliseconds(10)),
        }),
        ..RetryPolicy::default()
    }
}

/// How long an endpoint may be silent, once it has the whole request. Envoy looks for that in the policy of the route even
/// where the cluster's holds otherwise.
pub(super) fn silent(policy: RetryPolicy, timeouts: &Timeouts) -> RetryPolicy {
    let Timeouts { connect: _, send: _, read } = timeouts;
    RetryPolicy { per_try_idle_timeout: Some(seconds(*read)).filter(|time| time.seconds != 0), ..policy }
}

/// What the script at the edge must know for methods that may be repeated; `None`: it does what is usual, which is to
/// repeat after a failure.
pub(super) fn repeats(retries: &Retries) -> Option<String> {
    let what = if retries.non_idempotent { Vec::new() } else { seen(retries) };
    (what != [RESET]).then(|| format!("repeat={}", what.join(",")))
}

/// What may be repeated although the endpoint has seen it.
fn seen(retries: &Retries) -> Vec<&'static str> {
    let reset = breaks(retries).then_some(RESET);
    let status = statuses(retries).next().map(|_| "retriable-status-codes");
    reset.into_iter().chain(status).collect()
}

/// Whether a failure that is no answer leads to another try. Envoy does not tell its kinds apart.
fn breaks(retries: &Retries) -> bool {
    retries.after.iter().any(|failure| !matches!(failure, Failure::Status(_)))
}

fn statuses(retries: &Retries) -> impl Iterator<Item = u32> {
    retries.after.iter().filter_map(|failure| match failure {
        Failure::Status(status) => Some(u32::from(*status)),
        Failure::Error | Failure::Timeout | Failure::InvalidHeader => None,
    })
}

/// How long nothing may happen between client and endpoint. Envoy measures both ways together; each try has its own time
/// for the endpoint, so where there are several this one must outlast them.
pub(super) fn idle(retries: &Retries, timeouts: &Timeouts) -> Duration {
    let Timeouts { connect: _, send, read } = timeouts;
    let times_out = retries.after.contains(&Failure::Timeout);
    let tries = if times_out { retries.tries.get().clamp(1, 3) } else { 1 };
    seconds(Seconds::new(send.get().max(read.get().saturating_mul(tries))))
}

/// How fast each answer goes to the client.
pub(super) fn rate(rate: Rate) -> Option<HttpFault> {
    let Rate { kilobytes, after: _ } = rate;
    let limit_kbps = u64::from(kilobytes.get());
    (limit_kbps != 0).then(|| HttpFault {
        response_rate_limit: Some(FaultRateLimit {
            percentage: Some(FractionalPercent { numerator: 100, denominator: DenominatorType::Hundred.into() }),
            limit_type: Some(fault_rate_limit::LimitType::FixedLimit(fault_rate_limit::FixedLimit { limit_kbps })),
        }),
        ..HttpFault::default()
    })
}

fn elsewhere() -> RetryHostPredicate {
    let config: Any = any(PreviousHostsPredicate {});
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(config)),
    }
}

fn milliseconds(milliseconds: i32) -> Duration {
    Duration { seconds: 0, nanos: milliseconds * 1_000_000 }
}
