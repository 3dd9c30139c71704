//! The instance in its autoscaling group: its Elastic IP, its lifecycle hooks, and the word that it has to leave.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::BootError;
use crate::cloud::{Association, Cloud, CloudError, LifecycleAction, Metadata, MetadataError, Patience};
use crate::config;

/// The state that the group brings an instance to that it terminates (EC2 Auto Scaling, "Retrieve the target lifecycle state through
/// instance metadata").
const TERMINATED: &str = "Terminated";

/// How long one look at the metadata may take: it answers within milliseconds, and the next look follows.
const LOOK: Duration = Duration::from_secs(2);

/// How long the Elastic IP is tried for. A permission that Terraform has just made is there within some seconds.
const ASSOCIATE: Patience = Patience { after: Duration::from_secs(60), denied_may_pass: true };

/// How often an address that another instance has is tried for.
const TAKEN_PAUSE: Duration = Duration::from_secs(10);

/// How long the ready hook is tried for. The group waits at it for minutes: `terraform/` gives it five.
const READY: Duration = Duration::from_secs(300);

/// How long the group may take until it waits at the ready hook. A proxy may be ready before it does; on an instance that is in service it
/// never will, and nothing else waits for this.
const READY_BEGINS: Duration = Duration::from_secs(120);

/// How long the drain hook is tried for. An instance without its Elastic IP has no way to AWS until it has another address, which takes
/// minutes; and the group waits at the hook only when it has taken the instance from the load balancer.
const DRAINED: Duration = Duration::from_secs(300);

/// Between two looks whether the group waits at a hook: what the group does takes seconds.
const HOOK_PAUSE: Duration = Duration::from_secs(5);

/// Seconds between heartbeats: a hook's timeout is 30 s at least (EC2 Auto Scaling API, `PutLifecycleHook`).
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Between two looks whether the Elastic IP is still here. Somebody may have taken it away by hand; calls arrive again soon after.
const ADDRESS_LOOK: Duration = Duration::from_secs(10);

/// How long an address that has gone is tried for at each look; without it there may be no way to AWS, and the next look follows.
const REGAIN: Patience = Patience { after: Duration::from_secs(10), denied_may_pass: false };

/// Looks at the metadata that fail in a row before it is told, and after how many more it is told again. One or two may be lost.
const LOOKS_FAILED: (u64, u64) = (3, 100);

/// How long one heartbeat is tried.
const BEAT: Patience = Patience { after: Duration::from_secs(10), denied_may_pass: false };

/// One instance of a group.
#[derive(Debug)]
pub(super) struct Member {
    settings: config::Cloud,
    instance: String,
    metadata: String,
    cloud: Arc<Cloud>,
    /// The group terminates it.
    is_leaving: AtomicBool,
    /// The group has waited at the drain hook: should it wait no more, there is nothing left to be completed.
    hook_seen: AtomicBool,
}

impl Member {
    /// The instance whose metadata service this is.
    pub(super) async fn new(
        settings: config::Cloud,
        metadata: &str,
        cloud: Arc<Cloud>,
        deadline: Duration,
    ) -> Result<Self, MetadataError> {
        let instance = Metadata::new(metadata, deadline)?.instance_id().await?;
        let metadata = metadata.to_owned();
        Ok(Self {
            settings,
            instance,
            metadata,
            cloud,
            is_leaving: AtomicBool::new(false),
            hook_seen: AtomicBool::new(false),
        })
    }

    /// Associates the Elastic IP with this instance, where the configuration has one. Returns when it is there.
    ///
    /// It is taken from another instance only while this one is being launched: an instance that is about to leave and starts its proxy
    /// once more must not take the address back from the one that has replaced it.
    pub(super) async fn take_address(&self) -> Result<(), BootError> {
        let Some(allocation) = &self.settings.elastic_ip else { return Ok(()) };
        loop {
            // Asked each time: the group may come to its hook after the first one.
            let takes = self.is_launching().await;
            match self.cloud.associate(allocation, &self.instance, takes, ASSOCIATE).await? {
                Association::Done => {
                    tracing::info!(allocation, instance = self.instance, "Elastic IP associated");
                    return Ok(());
                }
                Association::Taken => {
                    tracing::error!(
                        allocation,
                        "the Elastic IP belongs to another instance, and this one is not known to be launched: trying again in {} s",
                        TAKEN_PAUSE.as_secs()
                    );
                    sleep(TAKEN_PAUSE).await;
                }
            }
        }
    }

    /// Keeps the Elastic IP `address` once the metadata has shown it: should it go, it is associated again if nobody else has it, and
    /// the group does not terminate this instance. Returns only where there is nothing to keep.
    pub(super) async fn keep_address(&self, address: IpAddr) {
        let Some(allocation) = &self.settings.elastic_ip else { return };
        let mut ticks = interval(ADDRESS_LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut had, mut told) = (false, None);
        loop {
            ticks.tick().await;
            let (shown, state) = match self.look().await {
                Ok(look) => look,
                Err(error) => {
                    tracing::debug!("whether the Elastic IP is here is not known now: {error}");
                    continue;
                }
            };
            if shown == Some(address) {
                if had && told.is_some() {
                    tracing::info!(allocation, %address, "the Elastic IP is here again");
                }
                (had, told) = (true, None);
                continue;
            }
            if !had || state.as_deref() == Some(TERMINATED) || self.is_leaving.load(Ordering::Relaxed) {
                continue;
            }
            let outcome = match self.cloud.associate(allocation, &self.instance, false, REGAIN).await {
                Ok(Association::Done) => "it belonged to nobody and is associated again".to_owned(),
                Ok(Association::Taken) => "it belongs to another instance and stays there".to_owned(),
                Err(error) => error.root().to_string(),
            };
            if told.as_ref() != Some(&outcome) {
                tracing::error!(allocation, %address, "the Elastic IP is not here any more: {outcome}");
                told = Some(outcome);
            }
        }
    }

    /// The public address and the state in the group, as the metadata has them now.
    async fn look(&self) -> Result<(Option<IpAddr>, Option<String>), MetadataError> {
        let mut metadata = Metadata::new(&self.metadata, LOOK)?;
        Ok((metadata.public_address().await?, metadata.target_lifecycle_state().await?))
    }

    /// Completes the launching hook, where there is one: the instance is ready.
    pub(super) async fn arrive(&self) {
        let Some(action) = self.action(self.settings.ready_hook.as_ref()) else { return };
        let began = Instant::now();
        loop {
            let left = READY.saturating_sub(began.elapsed());
            match self.cloud.complete(&action, Patience { after: left, denied_may_pass: true }).await {
                Err(CloudError::NoAction { .. })
                    if began.elapsed() + HOOK_PAUSE < READY_BEGINS && !self.is_leaving.load(Ordering::Relaxed) =>
                {
                    tracing::debug!(
                        group = action.group,
                        hook = action.hook,
                        "the group does not wait at its hook yet"
                    );
                    sleep(HOOK_PAUSE).await;
                }
                done => return told(&action, done),
            }
        }
    }

    /// Returns when the group terminates this instance. Once it has, it returns at once.
    pub(super) async fn terminated(&self) {
        if self.is_leaving.load(Ordering::Relaxed) {
            return;
        }
        let period = Duration::from_millis(self.settings.lifecycle_poll_ms.into());
        if period.is_zero() {
            return std::future::pending().await;
        }
        let mut metadata = loop {
            match Metadata::new(&self.metadata, LOOK) {
                Ok(metadata) => break metadata,
                Err(error) => tracing::error!("the state of this instance in its group is not known: {error}"),
            }
            sleep(period).await;
        };
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = 0;
        loop {
            ticks.tick().await;
            metadata.allow(LOOK);
            match metadata.target_lifecycle_state().await {
                Ok(Some(state)) if state == TERMINATED => break,
                Ok(_) => failed = 0,
                Err(error) => {
                    failed += 1;
                    let (first, each) = LOOKS_FAILED;
                    if failed == first || failed % each == 0 {
                        tracing::warn!(
                            failed,
                            "the state of this instance in its group cannot be read, so it would not drain: {error}"
                        );
                    } else {
                        tracing::debug!("the state of this instance in its group is not known now: {error}");
                    }
                }
            }
        }
        self.leaves();
    }

    /// Looks once whether the group terminates this instance, where it is looked at at all.
    pub(super) async fn notice(&self) {
        if self.settings.lifecycle_poll_ms == 0 || self.is_leaving.load(Ordering::Relaxed) {
            return;
        }
        let state = async { Metadata::new(&self.metadata, LOOK)?.target_lifecycle_state().await };
        match state.await {
            Ok(Some(state)) if state == TERMINATED => self.leaves(),
            Ok(_) => {}
            Err(error) => tracing::warn!("the state of this instance in its group is not known: {error}"),
        }
    }

    fn leaves(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        tracing::info!(instance = self.instance, "the group terminates this instance");
    }

    /// Keeps the group waiting at the terminating hook, from the moment at which it terminates this instance; never returns.
    pub(super) async fn hold(&self) {
        self.terminated().await;
        let Some(action) = self.action(self.settings.drain_hook.as_ref()) else { return std::future::pending().await };
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            let is_seen = self.hook_seen.load(Ordering::Relaxed);
            match self.cloud.heartbeat(&action, BEAT).await {
                Ok(()) => {
                    self.hook_seen.store(true, Ordering::Relaxed);
                    tracing::debug!(hook = action.hook, "heartbeat");
                    next += HEARTBEAT;
                }
                // The state turns before the group waits at its hook.
                Err(CloudError::NoAction { .. }) if !is_seen => next = Instant::now() + HOOK_PAUSE,
                Err(error) => {
                    tracing::warn!("{error}; without it the group goes on at the hook's timeout");
                    next = Instant::now() + HEARTBEAT;
                }
            }
        }
    }

    /// Completes the terminating hook, if the group terminates this instance and has one: the instance is drained. It may take until the
    /// group waits at it, or until there is a way to AWS.
    pub(super) async fn leave(&self) {
        if !self.is_leaving.load(Ordering::Relaxed) {
            return;
        }
        let Some(action) = self.action(self.settings.drain_hook.as_ref()) else { return };
        let began = Instant::now();
        loop {
            let left = DRAINED.saturating_sub(began.elapsed());
            match self.cloud.complete(&action, Patience { after: left, denied_may_pass: false }).await {
                Err(CloudError::NoAction { .. })
                    if !self.hook_seen.load(Ordering::Relaxed) && began.elapsed() + HOOK_PAUSE < DRAINED =>
                {
                    tracing::debug!(
                        group = action.group,
                        hook = action.hook,
                        "the group does not wait at its hook yet"
                    );
                    sleep(HOOK_PAUSE).await;
                }
                done => return told(&action, done),
            }
        }
    }

    /// Whether the group waits at the launching hook. Without one there is no way to know, and then it is taken to be so.
    async fn is_launching(&self) -> bool {
        let Some(action) = self.action(self.settings.ready_hook.as_ref()) else { return true };
        match self.cloud.heartbeat(&action, BEAT).await {
            Ok(()) => true,
            Err(CloudError::NoAction { .. }) => false,
            Err(error) => {
                tracing::warn!(
                    "{error}; so this instance is not known to be launched, and takes an address from nobody"
                );
                false
            }
        }
    }

    fn action(&self, hook: Option<&String>) -> Option<LifecycleAction> {
        let (group, hook) = (self.settings.group.clone()?, hook?.clone());
        Some(LifecycleAction { group, hook, instance: self.instance.clone() })
    }
}

/// Says what became of a hook that was to be completed.
fn told(action: &LifecycleAction, done: Result<(), CloudError>) {
    match done {
        Ok(()) => tracing::info!(group = action.group, hook = action.hook, "lifecycle action completed"),
        // The proxy was started once more on an instance that is in service, or somebody else has completed it.
        Err(CloudError::NoAction { .. }) => {
            tracing::info!(group = action.group, hook = action.hook, "no lifecycle action waits to be completed");
        }
        Err(error) => tracing::error!("{error}; the group goes on at the hook's timeout"),
    }
}
