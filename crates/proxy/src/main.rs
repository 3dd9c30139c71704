//! The `sipedge-proxy` command: arguments in, exit code out; everything else is in the library.

mod control;
mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sipedge_proxy::admin::DEFAULT_SOCKET;
use sipedge_proxy::boot::{self, BootError, Deadlines, Doors, METADATA_URL, Surroundings};
use sipedge_proxy::cloud::Endpoints;
use sipedge_proxy::observe::{LogFormat, start_logs};

use control::ControlCommand;
use watch::WatchCommand;

/// The SIP proxy of a sipedge instance.
#[derive(Parser)]
#[command(version, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot this instance: metadata, configuration from user-data, self-call, ready.
    #[command(after_help = BOOT_HELP)]
    Boot {
        /// Instance metadata service (IMDSv2).
        #[arg(long, value_name = "URL", default_value = METADATA_URL)]
        metadata: String,
        /// How long to wait for the metadata, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = Deadlines::default().metadata.as_secs())]
        metadata_deadline: u64,
        /// How long to try to read secrets from SSM Parameter Store, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = Deadlines::default().secrets.as_secs())]
        secrets_deadline: u64,
        /// Say in the health answer why it does not get ready, and try again, instead of ending.
        #[arg(long)]
        persist: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Run a configuration file on this machine: self-call, ready.
    #[command(after_help = RUN_HELP)]
    Run {
        /// Configuration file, with listen.address.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        service: Service,
    },
    /// Check a configuration file or user-data, without starting anything.
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Configuration file or user-data.
        file: PathBuf,
        /// Report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the ports of the configuration as nftables takes them.
    #[command(after_help = DOORS_HELP)]
    Doors {
        /// Configuration file; without it, the user-data of this instance.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Instance metadata service (IMDSv2).
        #[arg(long, value_name = "URL", default_value = METADATA_URL, conflicts_with = "config")]
        metadata: String,
        /// How long to wait for the metadata, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = Deadlines::default().metadata.as_secs())]
        metadata_deadline: u64,
        /// Say in the health answer why there are none, and try again, instead of ending.
        #[arg(long, conflicts_with = "config")]
        persist: bool,
        /// File to write; without it, standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        logs: Logs,
    },
    #[command(flatten)]
    Control(ControlCommand),
    #[command(flatten)]
    Watch(WatchCommand),
}

#[derive(Args)]
struct Service {
    /// Folder of the secrets that the configuration names.
    #[arg(long, value_name = "DIR", default_value = "/etc/sipedge/secrets")]
    secrets: PathBuf,
    /// Socket of the control endpoint, for `status`, `reload` and the like.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    control: PathBuf,
    /// How long to try the self-call, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = Deadlines::default().self_call.as_secs())]
    self_call_deadline: u64,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Args)]
struct Logs {
    /// Form of the log, on stderr.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log: LogFormat,
    /// Level, or directives such as `info,sipedge_proxy=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_filter: String,
}

const HELP: &str = "\
Examples:
  sipedge-proxy check config.yaml         says what is wrong with a configuration, or sums it up
  sipedge-proxy run --config config.yaml  runs it on this machine
  sipedge-proxy boot                      what an instance does when it starts
  sipedge-proxy doors                     the ports that this instance's configuration opens
  sipedge-proxy status                    how the proxy of this machine is
  sipedge-proxy reload                    makes it take up a changed configuration
  sipedge-proxy watch                     the messages that pass, as they pass

Exit codes:
  0  ended as told, or done
  1  internal error
  2  usage
  3  configuration refused
  4  metadata not available
  5  secrets not available
  6  address or port not available
  7  self-call failed
  8  control endpoint not reachable
  9  refused by the proxy
  10 AWS did not do what makes the instance ready
  11 the capture's file cannot be written";

const BOOT_HELP: &str = "\
Example:
  sipedge-proxy boot --log json --self-call-deadline 30

Parameters of SSM Parameter Store are read with the instance's role. AWS_ENDPOINT_URL_SSM, AWS_ENDPOINT_URL_AUTO_SCALING and
AWS_ENDPOINT_URL_EC2, or AWS_ENDPOINT_URL for all, name endpoints that stand in for the regional ones.";

const RUN_HELP: &str = "\
Example:
  sipedge-proxy run --config config.yaml --secrets secrets/ --control /tmp/edge.sock";

const DOORS_HELP: &str = "\
Example:
  sipedge-proxy doors --config config.yaml | nft --file -";

const CHECK_HELP: &str = "\
Example:
  sipedge-proxy check user-data --json";

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Boot { metadata, metadata_deadline, secrets_deadline, persist, service } => {
            let mut surroundings = service.surroundings();
            surroundings.deadlines.secrets = Duration::from_secs(secrets_deadline);
            surroundings.deadlines.metadata = Duration::from_secs(metadata_deadline);
            match persist {
                true => serve(&service.logs, boot::boot_persistently(metadata, surroundings)),
                false => serve(&service.logs, boot::boot(metadata, surroundings)),
            }
        }
        Command::Run { config, service } => serve(&service.logs, boot::run(config, service.surroundings())),
        Command::Doors { config: Some(file), out, .. } => {
            Doors::of_file(&file).and_then(|doors| write(&doors, out.as_deref()))
        }
        Command::Doors { config: None, metadata, metadata_deadline, persist, out, logs } => {
            let deadline = Duration::from_secs(metadata_deadline);
            let read = async |health: &mut SocketAddr| Doors::of_instance(&metadata, deadline, health).await;
            let doors = async {
                match persist {
                    true => boot::persist(read).await.map(Option::flatten),
                    false => read(&mut SocketAddr::from(([0; 4], 0))).await,
                }
            };
            serve(&logs, doors).and_then(|doors| doors.map_or(Ok(()), |doors| write(&doors, out.as_deref())))
        }
        Command::Check { file, json } => check(&file, json),
        Command::Control(command) => return command.run(),
        Command::Watch(command) => return command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sipedge-proxy: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

impl Service {
    fn surroundings(&self) -> Surroundings {
        let self_call = Duration::from_secs(self.self_call_deadline);
        Surroundings {
            secrets: self.secrets.clone(),
            control: self.control.clone(),
            deadlines: Deadlines { self_call, ..Deadlines::default() },
            endpoints: Endpoints::from_variables(|name| std::env::var(name).ok()),
        }
    }
}

fn serve<T>(logs: &Logs, life: impl Future<Output = Result<T, BootError>>) -> Result<T, BootError> {
    start_logs(logs.log, &logs.log_filter).map_err(|error| BootError::Usage(format!("--log-filter {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| BootError::Internal(format!("cannot start: {error}")))?;
    runtime.block_on(life)
}

fn write(doors: &Doors, out: Option<&Path>) -> Result<(), BootError> {
    let Some(out) = out else {
        print!("{doors}");
        return Ok(());
    };
    std::fs::write(out, doors.to_string()).map_err(|source| BootError::File { file: out.display().to_string(), source })
}

fn check(file: &Path, json: bool) -> Result<(), BootError> {
    let origin = file.display().to_string();
    let checked = boot::read(file).and_then(|config| {
        boot::check(&config, &origin)?;
        Ok(config)
    });
    if json {
        println!("{}", boot::check_report(&origin, &checked));
    } else if let Ok(config) = &checked {
        println!("OK: {origin}: {}", boot::summary(config));
    }
    checked.map(drop)
}
