//! Ctrl-C, SIGTERM and SIGHUP while another program works for sipedge, in a process group of its own: it is asked to end, which Terraform does
//! when its state is written and mmdebstrap when it has tidied up; a second time it is asked again, which makes it end at once. While none
//! does, sipedge ends.

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

/// Whom signals go to, as kill(2) names it: a process, a process group by its negative, or 0.
static CHILD: AtomicI32 = AtomicI32::new(0);
/// Whether it was asked to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// While it lives, signals go to the child.
pub(crate) struct Watched;

/// Has signals go to this process.
pub(crate) fn watch_child(child: u32) -> Watched {
    watch(child.cast_signed())
}

/// Has signals go to all of the process group that this process leads.
pub(crate) fn watch_group(leader: u32) -> Watched {
    watch(leader.cast_signed().saturating_neg())
}

fn watch(whom: i32) -> Watched {
    INTERRUPTED.store(false, Ordering::SeqCst);
    CHILD.store(whom, Ordering::SeqCst);
    Watched
}

impl Watched {
    /// Whether the child was asked to end.
    pub(crate) fn was_interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::SeqCst)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        CHILD.store(0, Ordering::SeqCst);
    }
}
