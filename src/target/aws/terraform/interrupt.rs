//! Ctrl-C, SIGTERM and SIGHUP while Terraform runs: Terraform is asked once to end, which it does when its state is written; a second
//! time it is asked again, which makes it end at once. When no Terraform runs, sipedge ends.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// From now on, signals that ask this process to end are taken as above. To be called before other threads are started; a second call
/// does nothing.
pub fn take_over() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        if signals.thread_block().is_err() {
            return;
        }
        std::thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                match CHILD.load(Ordering::SeqCst) {
                    0 => std::process::exit(128 + signal as i32),
                    child => {
                        INTERRUPTED.store(true, Ordering::SeqCst);
                        // It may have ended by itself in the meantime.
                        let _ = kill(Pid::from_raw(child), Signal::SIGINT);
                    }
                }
            }
        });
    });
}

/// Process id of the Terraform that runs, or 0.
static CHILD: AtomicI32 = AtomicI32::new(0);
/// Whether it was asked to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// While it lives, signals go to the child.
pub(super) struct Watched;

/// Has signals go to `child`.
pub(super) fn watch_child(child: u32) -> Watched {
    INTERRUPTED.store(false, Ordering::SeqCst);
    CHILD.store(i32::try_from(child).unwrap_or(0), Ordering::SeqCst);
    Watched
}

impl Watched {
    /// Whether the child was asked to end.
    pub(super) fn was_interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::SeqCst)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        CHILD.store(0, Ordering::SeqCst);
    }
}
