//! What most routes agree on, said once for all of them: a directive in each location costs a reload more than
//! anything else does.

use crate::annotations::body_size::BodySize;
use crate::annotations::buffering::Buffering;
use crate::annotations::rate::Rate;
use crate::annotations::retries::Retries;
use crate::annotations::timeouts::Timeouts;
use crate::model::{Action, VirtualHost};
use crate::render::baseline::most_frequent;

/// The values at `http` level. A location repeats only what differs.
pub(super) struct Baseline {
    pub body_size: BodySize,
    pub timeouts: Timeouts,
    pub buffering: Buffering,
    pub retries: Retries,
    pub rate: Rate,
}

impl Baseline {
    /// The values that most routes to an upstream have; among equally frequent ones the smallest, so that the order of hosts does not
    /// matter.
    pub fn of(hosts: &[VirtualHost]) -> Self {
        let routes = || hosts.iter().flat_map(|host| &host.routes);
        let policies = || routes().filter(|r| matches!(r.action, Action::Forward(_))).map(|route| &route.policies);
        let body_size = most_frequent(policies().map(|policies| policies.body_size.0));
        let timeouts = most_frequent(policies().map(|policies| {
            let Timeouts { connect, send, read } = policies.timeouts;
            (connect, send, read)
        }));
        let buffering = most_frequent(policies().map(|policies| policies.buffering));
        let retries = most_frequent(policies().map(|policies| &policies.retries));
        let rate = most_frequent(policies().map(|policies| policies.rate));
        Self {
            rate: rate.unwrap_or_default(),
            buffering: buffering.unwrap_or_default(),
            retries: retries.cloned().unwrap_or_default(),
            body_size: body_size.map(BodySize).unwrap_or_default(),
            timeouts: timeouts.map(|(connect, send, read)| Timeouts { connect, send, read }).unwrap_or_default(),
        }
    }
}
