//! Trying again: for a machine on which nobody is there to start what has failed, and whose health answer is all that is left to ask.

use std::net::SocketAddr;
use std::time::Duration;

use super::source::UNKNOWN;
use super::{BootError, Signals, Surroundings, boot_with};
use crate::admin::serve_trouble;

/// First and longest pause before what has failed is tried again: a role or a parameter may come late.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// As [`super::boot`], but what fails is said in the log and in the health answer, 503 with the reason, and tried again after 1 to 30 s.
///
/// # Errors
/// [`BootError::Internal`]: only a new process can do better.
pub async fn boot_persistently(metadata: String, surroundings: Surroundings) -> Result<(), BootError> {
    let ended = persist(async |health| boot_with(metadata.clone(), surroundings.clone(), health).await);
    ended.await.map(Option::unwrap_or_default)
}

/// Calls `attempt` until it succeeds; `None` when the process was told to end in a pause. Meanwhile the health answer says why, at the address
/// that `attempt` has set, or on the usual port of every address.
///
/// # Errors
/// [`BootError::Internal`]: only a new process can do better.
pub async fn persist<T>(
    mut attempt: impl AsyncFnMut(&mut SocketAddr) -> Result<T, BootError>,
) -> Result<Option<T>, BootError> {
    let mut pause = PAUSE.0;
    loop {
        let mut health = UNKNOWN;
        let error = match attempt(&mut health).await {
            Ok(done) => return Ok(Some(done)),
            Err(error @ BootError::Internal(_)) => return Err(error),
            Err(error) => error,
        };
        let (reason, again_in_s) = (error.to_string(), pause.as_secs());
        tracing::error!(exit_code = error.exit_code(), again_in_s, "not ready: {reason}");
        let mut signals = Signals::new()?;
        tokio::select! {
            () = serve_trouble(health, &reason) => {}
            () = tokio::time::sleep(pause) => {}
            () = signals.terminated() => return Ok(None),
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}
