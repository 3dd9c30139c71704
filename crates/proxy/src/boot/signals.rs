use tokio::signal::unix::{Signal, SignalKind, signal};

use super::BootError;

/// The signals that the process acts on. From its creation on none of them ends the process by itself.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    pub(super) fn new() -> Result<Self, BootError> {
        let listen =
            |kind| signal(kind).map_err(|error| BootError::Internal(format!("cannot listen for signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: Some(listen(SignalKind::hangup())?),
        })
    }

    /// Returns at the next SIGTERM or SIGINT.
    pub(super) async fn terminated(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// SIGHUP, from the beginning on; only the first caller gets it.
    pub(super) fn take_hang_up(&mut self) -> Option<Signal> {
        self.hang_up.take()
    }
}
