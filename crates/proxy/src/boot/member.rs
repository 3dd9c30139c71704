//! The instance in its autoscaling group: its Elastic IP, its lifecycle hooks, and the word that it has to leave.

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

/// How long the ready hook is tried for. The group waits at it for 30 s at least, and usually for minutes.
const READY: Patience = Patience { after: Duration::from_secs(120), denied_may_pass: true };

/// How long the drain hook is tried for. When it is not completed, the group goes on at the hook's timeout.
const DRAINED: Patience = Patience { after: Duration::from_secs(15), denied_may_pass: false };

/// Seconds between heartbeats: a hook's timeout is 30 s at least (EC2 Auto Scaling API, `PutLifecycleHook`).
const HEARTBEAT: Duration = Duration::from_secs(20);

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
        Ok(Self { settings, instance, metadata: metadata.to_owned(), cloud, is_leaving: AtomicBool::new(false) })
    }

    /// Associates the Elastic IP with this instance, where the configuration has one. Returns when it is there.
    ///
    /// It is taken from another instance only while this one is being launched: an instance that is about to leave and starts its proxy
    /// once more must not take the address back from the one that has replaced it.
    pub(super) async fn take_address(&self) -> Result<(), BootError> {
        let Some(allocation) = &self.settings.elastic_ip else { return Ok(()) };
        let takes = self.is_launching().await;
        loop {
            match self.cloud.associate(allocation, &self.instance, takes, ASSOCIATE).await? {
                Association::Done => {
                    tracing::info!(allocation, instance = self.instance, "Elastic IP associated");
                    return Ok(());
                }
                Association::Taken => {
                    tracing::error!(
                        allocation,
                        "the Elastic IP belongs to another instance, and this one is not being launched: trying again in {} s",
                        TAKEN_PAUSE.as_secs()
                    );
                    sleep(TAKEN_PAUSE).await;
                }
            }
        }
    }

    /// Completes the launching hook, where there is one: the instance is ready.
    pub(super) async fn arrive(&self) {
        if let Some(action) = self.action(self.settings.ready_hook.as_ref()) {
            self.complete(&action, READY).await;
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
        loop {
            ticks.tick().await;
            metadata.allow(LOOK);
            match metadata.target_lifecycle_state().await {
                Ok(Some(state)) if state == TERMINATED => break,
                Ok(_) => {}
                Err(error) => tracing::debug!("the state of this instance in its group is not known now: {error}"),
            }
        }
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
            next += HEARTBEAT;
            match self.cloud.heartbeat(&action, BEAT).await {
                Ok(()) => tracing::debug!(hook = action.hook, "heartbeat"),
                // The state turns before the hook begins to wait.
                Err(error) => tracing::warn!("{error}; without it the group goes on at the hook's timeout"),
            }
        }
    }

    /// Completes the terminating hook, if the group terminates this instance and has one: the instance is drained.
    pub(super) async fn leave(&self) {
        if self.is_leaving.load(Ordering::Relaxed)
            && let Some(action) = self.action(self.settings.drain_hook.as_ref())
        {
            self.complete(&action, DRAINED).await;
        }
    }

    async fn complete(&self, action: &LifecycleAction, patience: Patience) {
        match self.cloud.complete(action, patience).await {
            Ok(()) => tracing::info!(group = action.group, hook = action.hook, "lifecycle action completed"),
            // The proxy was started once more on an instance that is in service.
            Err(CloudError::NoAction { .. }) => {
                tracing::info!(group = action.group, hook = action.hook, "no lifecycle action waits to be completed");
            }
            Err(error) => tracing::error!("{error}; the group goes on at the hook's timeout"),
        }
    }

    /// Whether the group waits at the launching hook. Without one there is no way to know, and then it is taken to be so.
    async fn is_launching(&self) -> bool {
        let Some(action) = self.action(self.settings.ready_hook.as_ref()) else { return true };
        match self.cloud.heartbeat(&action, BEAT).await {
            Ok(()) => true,
            Err(CloudError::NoAction { .. }) => false,
            Err(error) => {
                tracing::warn!("{error}; taken to be launching");
                true
            }
        }
    }

    fn action(&self, hook: Option<&String>) -> Option<LifecycleAction> {
        let (group, hook) = (self.settings.group.clone()?, hook?.clone());
        Some(LifecycleAction { group, hook, instance: self.instance.clone() })
    }
}
