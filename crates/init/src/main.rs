//! The first process of the micro image, and the only one: mounts, drivers, settings, network, then the proxy as a library.
//!
//! The machine has no shell and no other program. What goes wrong is said on the console, tried again, and never makes an instance ready.

mod dhcp;
mod network;
mod system;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{getpid, sync};
use sipedge_proxy::admin::{DEFAULT_SOCKET, USUAL_PORT, serve_trouble};
use sipedge_proxy::boot::{self, BootError, Deadlines, METADATA_URL, Surroundings};
use sipedge_proxy::cloud::Endpoints;
use sipedge_proxy::observe::{LogFormat, start_logs};

use network::{Network, NetworkError};

/// First and longest pause before a proxy that could not start is started again: a role or a parameter may come late.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

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
            std::thread::sleep(PAUSE.1);
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
        let health = SocketAddr::new(lease.address.into(), USUAL_PORT);
        tokio::spawn(network.keep());
        serve(health).await;
        Ok(())
    })
}

/// Runs the proxy until it has ended as it was told; one that failed is started again, and meanwhile `health` says why.
async fn serve(health: SocketAddr) {
    let mut pause = PAUSE.0;
    loop {
        let surroundings = Surroundings {
            secrets: PathBuf::from(SECRETS),
            control: PathBuf::from(DEFAULT_SOCKET),
            deadlines: Deadlines::default(),
            endpoints: Endpoints::from_variables(|name| std::env::var(name).ok()),
        };
        match boot::boot(METADATA_URL.to_owned(), surroundings).await {
            Ok(()) => return,
            Err(error) => {
                let (reason, again_in_s) = (error.to_string(), pause.as_secs());
                tracing::error!(exit_code = error.exit_code(), again_in_s, "not ready: {reason}");
                tokio::select! {
                    () = serve_trouble(health, &reason) => {}
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}
