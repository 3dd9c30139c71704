//! The commands that ask and order a running proxy: clients of its control endpoint.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use serde::de::DeserializeOwned;
use sipedge_proxy::admin::DEFAULT_SOCKET;
use sipedge_proxy::admin::client::{ClientError, ask};
use sipedge_proxy::admin::report::MarkRequest;
use sipedge_proxy::admin::show;
use tokio::runtime::Runtime;

#[derive(Subcommand)]
pub(crate) enum ControlCommand {
    /// Show how the running proxy is: readiness, calls, drain, configuration, reloads.
    #[command(after_help = STATUS_HELP)]
    Status {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// List the destinations with their health and the operator's marks.
    #[command(after_help = DESTINATIONS_HELP)]
    Destinations {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Take a destination out of service for new calls, or put it back.
    #[command(after_help = MARK_HELP)]
    Mark {
        /// Address of the destination; the port may be left out where it is the transport's usual one.
        #[arg(value_name = "ADDRESS[:PORT]")]
        address: String,
        /// What it is to be.
        mark: Mark,
        /// How it is reached.
        #[arg(long, value_enum, default_value_t)]
        transport: Transport,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Read the configuration and the secrets again, and take them up whole or not at all.
    #[command(after_help = RELOAD_HELP)]
    Reload {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Leave: as SIGTERM does, not ready any more, calls in progress go on, then the process ends.
    #[command(after_help = DRAIN_HELP)]
    Drain {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Print the configuration in force, with all defaults and without secrets.
    #[command(after_help = CONFIG_HELP)]
    Config {
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

#[derive(Args)]
pub(crate) struct Endpoint {
    /// Socket of the control endpoint.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    control: PathBuf,
    /// Print the answer as JSON; a refusal too.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Mark {
    /// It gets no new calls, whatever it answers.
    Down,
    /// It gets no new calls; its calls in progress go on.
    Draining,
    /// Its health decides.
    InService,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum Transport {
    #[default]
    Udp,
    Tcp,
    Tls,
}

const STATUS_HELP: &str = "\
Examples:
  sipedge-proxy status
  sipedge-proxy status --json --control /tmp/edge.sock";

const DESTINATIONS_HELP: &str = "\
Example:
  sipedge-proxy destinations";

const MARK_HELP: &str = "\
Examples:
  sipedge-proxy mark 192.0.2.10 draining               before maintenance of 192.0.2.10:5060 over UDP
  sipedge-proxy mark 192.0.2.10:5061 down --transport tls
  sipedge-proxy mark 192.0.2.10 in-service             its health decides again

A mark is kept, over reloads too, until it is changed, its destination is in no trunk any more, or the process ends.";

const RELOAD_HELP: &str = "\
Example:
  sipedge-proxy reload

`run` reads its file again, `boot` the instance's user-data; both read the secrets again. A configuration that is refused (exit code 9)
changes nothing: the one of before stays in force, and every reason is shown. SIGHUP does the same; its outcome is in the log.";

const DRAIN_HELP: &str = "\
Example:
  sipedge-proxy drain";

const CONFIG_HELP: &str = "\
Example:
  sipedge-proxy config > config.yaml";

impl ControlCommand {
    /// Asks, prints, and says how it went.
    pub(crate) fn run(self) -> ExitCode {
        let printed = self.printed().map(|text| {
            let mut out = std::io::stdout().lock();
            // Whoever has closed the pipe has read enough.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        });
        match printed {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => self.endpoint().failed(&error),
        }
    }

    fn printed(&self) -> Result<String, ClientError> {
        match self {
            Self::Status { endpoint } => {
                endpoint.show(Method::GET, "/status", String::new(), |status| show::status(&status, unix_now()))
            }
            Self::Destinations { endpoint } => {
                endpoint.show(Method::GET, "/destinations", String::new(), |list: Vec<_>| show::destinations(&list))
            }
            Self::Mark { address, mark, transport, endpoint } => {
                let request = MarkRequest { address: address.clone(), transport: name(*transport), mark: name(*mark) };
                // Three strings can always be written.
                let body = serde_json::to_string(&request).unwrap_or_default();
                endpoint.show(Method::POST, "/destinations/mark", body, |list: Vec<_>| show::marked(&list))
            }
            Self::Reload { endpoint } => {
                endpoint.show(Method::POST, "/reload", String::new(), |reload| show::reload(&reload))
            }
            Self::Drain { endpoint } => {
                endpoint.show(Method::POST, "/drain", String::new(), |drain| format!("{}\n", show::drain(&drain)))
            }
            Self::Config { endpoint } => {
                endpoint.show(Method::GET, "/config", String::new(), |effective| show::config(&effective))
            }
        }
    }

    fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Status { endpoint }
            | Self::Destinations { endpoint }
            | Self::Mark { endpoint, .. }
            | Self::Reload { endpoint }
            | Self::Drain { endpoint }
            | Self::Config { endpoint } => endpoint,
        }
    }
}

impl Endpoint {
    pub(crate) fn socket(&self) -> &Path {
        &self.control
    }

    pub(crate) fn runtime(&self) -> Result<Runtime, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| self.broken(format!("cannot ask: {error}")))
    }

    /// Says why there is no answer, and how the process ends.
    pub(crate) fn failed(&self, error: &ClientError) -> ExitCode {
        if self.json {
            // A refusal can always be written.
            println!("{}", serde_json::to_string(&error.refusal()).unwrap_or_default());
        }
        eprintln!("sipedge-proxy: {error}");
        ExitCode::from(error.exit_code())
    }

    fn broken(&self, what: String) -> ClientError {
        ClientError::Broken { socket: self.control.display().to_string(), what }
    }

    fn show<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: String,
        for_people: impl FnOnce(T) -> String,
    ) -> Result<String, ClientError> {
        let answer = self.runtime()?.block_on(ask(&self.control, method, path, body))?;
        if self.json {
            return Ok(format!("{}\n", String::from_utf8_lossy(&answer)));
        }
        let document = serde_json::from_slice(&answer).map_err(|error| {
            self.broken(format!("its answer is of another version ({error}); --json prints it as it came"))
        })?;
        Ok(for_people(document))
    }
}

/// The name of a value on the command line, which is also the control endpoint's.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
