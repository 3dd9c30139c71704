//! Keeps the smoke call under the limits of the trunks that it uses: a 503 for too many calls would say nothing about the edge.

use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::plan::Plan;

/// Calls that one route is tried with at the same time, by which limits are measured.
const CALLS_PER_ROUTE: usize = 5;

/// Admits calls one by one or at once, as the limits have it.
#[derive(Debug)]
pub(super) struct Pace {
    calls: std::sync::Arc<Semaphore>,
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(plan: &Plan) -> Self {
        let wanted = plan.verify.calls.len().max(1) * CALLS_PER_ROUTE;
        let used = |name: &str| plan.verify.calls.iter().any(|call| call.from == name || call.to == name);
        let limits: Vec<_> =
            plan.proxy.trunks.iter().filter(|trunk| used(&trunk.name)).map(|trunk| trunk.limits).collect();
        let calls = limits.iter().filter_map(|limits| limits.calls).min().map_or(wanted, |calls| calls.max(1) as usize);
        let cps = limits.iter().filter_map(|limits| limits.cps).min();
        let interval = match cps {
            Some(cps) if (cps as usize) < wanted => Duration::from_secs(1) / cps.max(1),
            _ => Duration::ZERO,
        };
        Self { calls: std::sync::Arc::new(Semaphore::new(calls.min(wanted))), interval, next: Mutex::new(None) }
    }

    /// Waits until one more call may be placed. The call counts until what is returned is dropped; callers are served in order.
    pub(super) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.calls.clone().acquire_owned().await.ok();
        let mut next = self.next.lock().await;
        if let Some(at) = *next {
            tokio::time::sleep_until(at).await;
        }
        *next = Some(Instant::now() + self.interval);
        permit
    }
}
