//! The first process of the micro image, and the only one: mounts, drivers, settings, network, then the proxy as a library.
//!
//! The machine has no shell and no other program. What goes wrong is said on the console, tried again, and never makes an instance ready.

mod dhcp;
mod network;
mod system;

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{getpid, sync};
use sipedge_proxy::admin::DEFAULT_SOCKET;
use sipedge_proxy::boot::{self, BootError, Deadlines, METADATA_URL, Surroundings};
use sipedge_proxy::cloud::Endpoints;
use sipedge_proxy::observe::{LogFormat, start_logs};

use network::{Network, NetworkError};

/// Before a machine starts again that could not serve at all.
const PAUSE: Duration = Duration::from_secs(30);

/// Where secrets would be; on an instance they come from SSM Parameter Store.
const SECRETS: &str = "/etc/sipedge/secrets";

/// Why this machine does not serve.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// No file systems, drivers or settings.
    #[error("{0}")]
    System(#[from] system::SystemError),
    /// No network.
    #[error("{0}")]
    Network(#[from] NetworkError),
    /// No executor.
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
    /// The proxy.
    #[error("{0}")]
    Proxy(#[from] BootError),
    /// No log.
    #[error("log: {0}")]
    Log(String),
}

fn main() -> ExitCode {
    if getpid().as_raw() != 1 {
        eprintln!(
            "sipedge-init: this is the first process of the micro image; on a machine that runs, use sipedge-proxy"
        );
        return ExitCode::from(2);
    }
    let ended = live();
    // A first process that ends makes the kernel panic, so the machine ends with it.
    let mode = match ended {
        Ok(()) => RebootMode::RB_POWER_OFF,
        Err(trouble) => {
            eprintln!("sipedge-init: {trouble}; starting again");
            std::thread::sleep(PAUSE);
            RebootMode::RB_AUTOBOOT
        }
    };
    sync();
    let Err(error): Result<Infallible, _> = reboot(mode);
    eprintln!("sipedge-init: cannot end the machine: {error}");
    ExitCode::FAILURE
}

/// From power-on to the end that the machine was told.
fn live() -> Result<(), Trouble> {
    system::mount_all()?;
    start_logs(LogFormat::Text, "info").map_err(Trouble::Log)?;
    system::load_drivers()?;
    system::apply_settings();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let network = Network::bring_up().await?;
        let lease = &network.lease;
        tracing::info!(address = %lease.address, prefix = lease.prefix, router = ?lease.router, "network");
        tokio::spawn(network.keep());
        let surroundings = Surroundings {
            secrets: PathBuf::from(SECRETS),
            control: PathBuf::from(DEFAULT_SOCKET),
            deadlines: Deadlines::default(),
            endpoints: Endpoints::from_variables(|name| std::env::var(name).ok()),
        };
        Ok(boot::boot_persistently(METADATA_URL.to_owned(), surroundings).await?)
    })
}
