//! Arguments, dispatch, exit codes; nothing else. What the commands do is in the library.

#[cfg(feature = "aws")]
mod aws;
mod capacity;
mod doctor;
mod edge;
mod exit;
mod image;
mod lab;
#[cfg(not(feature = "aws"))]
mod no_aws;
mod rollout;
mod secrets;
mod spec;
mod status;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use sipedge::plan::{TargetKind, Topology};
use sipedge::spec::{Loaded, Spec, SpecErrors, Transport};

use exit::{Exit, Failure};

/// Reads the arguments, does what they say, and returns the exit code.
pub(crate) fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return usage(&error),
    };
    let (json, spec) = (command_line.global.json, command_line.global.spec.clone());
    match dispatch(command_line) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let failure = failure.about(&spec);
            failure.print(json);
            failure.exit.into()
        }
    }
}

// `lab exec` and `lab supervise` enter namespaces, which a process with more than one thread may not: nothing before them starts one.
fn dispatch(command_line: CommandLine) -> Result<Exit, Failure> {
    let CommandLine { global, command } = command_line;
    match command {
        Command::Lab(args) => lab::run(&global, args),
        Command::Image(args) => image::run(&global, args),
        Command::Init(args) => spec::init(&global, &args),
        Command::Check => spec::check(&global),
        Command::Plan(args) => spec::plan(&global, &args),
        Command::Deploy(args) => edge::deploy(&global, &args),
        Command::Refresh(args) => rollout::refresh(&global, &args),
        Command::Rollback(args) => rollout::rollback(&global, &args),
        Command::Status(args) => status::status(&global, &args),
        Command::Doctor => doctor::run(&global),
        Command::Capacity(args) => capacity::run(&global, &args),
        Command::Verify { what: Verify::Call(args) } => edge::verify_call(&global, &args),
        Command::Destroy(args) => edge::destroy(&global, &args),
        Command::Secrets(args) => secrets::run(&global, &args),
        Command::Schema => spec::schema(),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "sipedge", &mut text);
            exit::print(&String::from_utf8_lossy(&text))?;
            Ok(Exit::Done)
        }
    }
}

/// clap's own answer: help and version are no failure; a mistake on the command line is, and is one JSON object when that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that went away has seen what it wanted.
        let _ = error.print();
        return Exit::Done.into();
    }
    if std::env::args_os().any(|argument| argument == "--json") {
        Failure::new(Exit::Usage, usage_message(error))
            .next("sipedge --help", "shows the commands and their options")
            .print(true);
    } else {
        let _ = error.print();
    }
    Exit::Usage.into()
}

/// What is wrong, in one line: without clap's label and its lines on usage and help.
fn usage_message(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing".to_owned();
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let parts = text.split("\n\n").take_while(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
    let parts: Vec<String> = parts.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    parts.join("; ")
}

/// One YAML spec to a running, verified SIP edge.
///
/// sipedge reads a spec (sipedge.yaml), plans one of two topologies from it, deploys it, and ends every deploy in a verified call.
#[derive(Debug, Parser)]
#[command(name = "sipedge", version, max_term_width = 110, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = exit::help())]
struct CommandLine {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The spec when none is named.
const DEFAULT_SPEC: &str = "sipedge.yaml";

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
struct Global {
    /// The spec. Its state is kept beside it, in `.sipedge/`.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_SPEC)]
    spec: PathBuf,
    /// The environment of the spec, one of its `environments`. Left out: the spec itself.
    #[arg(long, global = true, value_name = "NAME")]
    environment: Option<String>,
    /// Where the edge is, or is to be. `plan` and `deploy` take aws when it is left out, `destroy` the lab, `status` both.
    #[arg(long, global = true, value_name = "TARGET")]
    target: Option<Target>,
    /// Reports as JSON on standard output, errors as one JSON object on standard error.
    #[arg(long, global = true)]
    json: bool,
}

impl Global {
    /// The spec that the command is about: the file, with what the environment says put in.
    fn load_spec(&self) -> Result<Loaded, SpecErrors> {
        Spec::load_environment(&self.spec, self.environment.as_deref())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(after_help = "\
Examples:
  sipedge init                            writes sipedge.yaml, a carrier bridge with comments
  sipedge init --spec edge/sipedge.yaml   writes it elsewhere")]
    /// Writes a spec to start from.
    Init(Init),
    #[command(after_help = "\
Examples:
  sipedge check                           checks sipedge.yaml and shows all mistakes at once
  sipedge check --json                    the same for an editor or a pipeline")]
    /// Checks the spec, and that both topologies can be planned from it.
    Check,
    #[command(after_help = "\
Examples:
  sipedge plan                             both topologies on AWS: picture, defaults, changes
  sipedge plan load-balanced --target lab  one of them, as the lab builds it
  sipedge plan single-ec2 --out rendered   writes its files to rendered/single-ec2/ as well")]
    /// Shows what a deploy would do, and changes nothing.
    Plan(Plan),
    #[command(after_help = "\
Examples:
  sipedge deploy load-balanced --target lab                      builds it on this machine and places the verified call
  sipedge deploy single-ec2 --target lab --html call.html        writes the call's report as a page as well
  sipedge deploy load-balanced --target lab --instances 3        starts with three instances
  sipedge deploy load-balanced --target lab --json               one JSON line per step
  sipedge deploy single-ec2                                      to AWS: shows what changes, asks, and does it
  sipedge deploy single-ec2 --yes --json                         the same for a pipeline, which cannot be asked
  sipedge deploy single-ec2 --build-image                        makes the image first when none is published

A deploy that was cut off or failed is continued by the same command. What runs as planned is kept and verified again.

On AWS the verified call is the operator's, from this machine: the spec's `verify.operators` has to admit its address. The password is made
by the deploy and read from the account. --no-verify deploys without a call.")]
    /// Brings a topology to what the spec says; ends in a verified call.
    Deploy(Deploy),
    #[command(after_help = "\
Examples:
  sipedge refresh                         replaces every instance, such as after a new sipedge-proxy was built
  sipedge refresh load-balanced --json    one JSON line per step, and per change of an instance
  sipedge refresh --version 2             brings version 2, which is not live

New instances are started before old ones leave; old ones drain, and calls that are up go on. At the first checkpoint the smoke call is
placed through a new instance: when it does not pass, the version of before comes back and the exit code is 6. A refresh that is in
progress, because its leader was cut off, is led on.")]
    /// Replaces the instances of a topology, without losing a call.
    Refresh(Refresh),
    #[command(after_help = "\
Examples:
  sipedge rollback                        goes back to the version that was live before
  sipedge rollback single-ec2             the same for one of two topologies

A refresh that is in progress is turned back. Where there is no version before, the exit code is 2. The spec stays as it is: the next
deploy brings what it says.")]
    /// Goes back to the version that was live before.
    Rollback(Rollback),
    #[command(after_help = "\
Examples:
  sipedge status                          instances, versions, health, what they have in progress; of both topologies
  sipedge status --watch                  again every second, until Ctrl-C
  sipedge status --watch --json           one line of JSON per second
  sipedge status --json                   the same for programs")]
    /// Shows what is deployed.
    Status(Status),
    #[command(after_help = "\
Examples:
  sipedge doctor                          tools, credentials, quotas, age of the carriers' data: for AWS and the lab
  sipedge doctor --target lab             what the lab needs alone

Each line says what is well, doubtful or wrong, and the command that confirms it. A problem makes the exit code 4.")]
    /// Checks what a deploy needs, before it needs it.
    Doctor,
    #[command(after_help = "\
Examples:
  sipedge capacity                           what an instance of each type carries
  sipedge capacity --cps 25 --duration 180   25 new calls a second that last three minutes: which instances, how many
  sipedge capacity --cps 25 --duration 180 --json

The figures were measured, and their date and machine are told. Nobody has measured on EC2 itself.")]
    /// Tells which instances carry so many calls, from measured figures.
    Capacity(Capacity),
    #[command(after_help = "\
Examples:
  sipedge verify call                     places the smoke call through what is deployed")]
    /// Proves that what is deployed works.
    Verify {
        #[command(subcommand)]
        what: Verify,
    },
    #[command(after_help = "\
Examples:
  sipedge destroy load-balanced           removes one topology: its processes, networks and state
  sipedge destroy                         removes all topologies of this spec from the lab
  sipedge destroy single-ec2 --target aws removes one from the account; asks for the edge's name

A second destroy finds nothing and says so; its exit code is 0.")]
    /// Removes what is deployed.
    Destroy(Destroy),
    #[command(after_help = "\
Examples:
  sipedge secrets status                  the token keys' numbers and ages, and which one signs
  sipedge secrets rotate                  a new one signs, and no call is lost")]
    /// Shows and rotates the token keys, by which requests within calls are known again.
    Secrets(Secrets),
    #[command(after_help = "\
Examples:
  sipedge image build --flavour micro     a kernel and one static program, as a disk
  sipedge image boot --flavour micro      boots it in the lab and places the verified call through it
  sipedge image check --flavour micro     whether the bytes are still those that were built
  sipedge image publish --flavour micro   brings what was built and booted to the account of the spec
  sipedge image list                      the images on this machine and in the account
  sipedge image prune --keep 3            removes old ones from the account, never one in use")]
    /// Builds the appliance image on this machine, boots it, calls through it, and brings it to the account.
    Image(image::ImageArgs),
    #[command(after_help = "\
Examples:
  sipedge schema > sipedge.schema.json    for editors that complete and check YAML by schema")]
    /// Prints the JSON Schema of the spec.
    Schema,
    #[command(after_help = "\
Examples:
  sipedge completions bash > ~/.local/share/bash-completion/completions/sipedge
  sipedge completions zsh > ~/.zfunc/_sipedge")]
    /// Prints the completions of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    #[command(after_help = "\
Examples:
  sipedge lab instances                   the instances of the lab that is up
  sipedge lab exec twilio -- ip address   runs a program in a carrier's network
  sipedge lab kill i-1                    kills an instance, as a crash would")]
    /// Does to a running lab what happens to an edge on AWS.
    Lab(Lab),
}

#[derive(Debug, Args)]
struct Init {
    /// Overwrites a spec that is there.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct Plan {
    /// The topology; both when it is left out.
    topology: Option<TopologyName>,
    /// Writes the rendered files into DIR, one folder per topology.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Deploy {
    /// The topology.
    topology: TopologyName,
    /// Does not ask. (In the lab nothing is asked.)
    #[arg(long, short)]
    yes: bool,
    /// On AWS: places no verified call. The status then says that nothing is proved.
    #[arg(long)]
    no_verify: bool,
    /// On AWS: builds, boots and publishes the image first when none of this version is published.
    #[arg(long)]
    build_image: bool,
    /// Instances to start with, from 1 to `scaling.max`, instead of `scaling.min`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    instances: Option<u32>,
    #[command(flatten)]
    reports: Reports,
}

#[derive(Debug, Args)]
struct Refresh {
    /// The topology; needed only when both are up.
    topology: Option<TopologyName>,
    /// The version to bring; the live one when it is left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,
    /// On AWS: places no call. The status then says that nothing is proved.
    #[arg(long)]
    no_verify: bool,
    #[command(flatten)]
    reports: Reports,
}

#[derive(Debug, Args)]
struct Rollback {
    /// The topology; needed only when both are up.
    topology: Option<TopologyName>,
    /// On AWS: places no call. The status then says that nothing is proved.
    #[arg(long)]
    no_verify: bool,
    #[command(flatten)]
    reports: Reports,
}

#[derive(Debug, Args)]
struct Capacity {
    /// New calls per second, such as 25 or 0.5.
    #[arg(long, value_name = "N", value_parser = capacity::cps, requires = "duration")]
    cps: Option<f64>,
    /// How long a call lasts, in seconds, ringing included.
    #[arg(long, value_name = "S", value_parser = capacity::seconds, requires = "cps")]
    duration: Option<f64>,
}

#[derive(Debug, Args)]
struct Status {
    /// Shows it again every second, or every five when an account is asked (its instances every 15): on a terminal in place, otherwise below.
    #[arg(long)]
    watch: bool,
}

/// Files that the verified call's report is written to.
#[derive(Debug, Args)]
struct Reports {
    /// Writes the call's report as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Writes the call's report as a self-contained page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verify {
    #[command(after_help = "\
Examples:
  sipedge verify call                     through the one topology that is up
  sipedge verify call --topology single-ec2 --html call.html
  sipedge verify call --json              checks and ladder for programs
  sipedge verify call --junit call.xml    for a pipeline that shows test results
  sipedge verify call --via operator      by password to the answerer in the edge; without a carrier
  sipedge verify call --target aws        the operator's call to what was deployed to AWS from here

On AWS nobody stands at the carriers' addresses: there the call is the operator's, from this machine, which `verify.operators` has to
admit. Password and address come from the account and the last deploy. With --ingress the address is the given one, no account is asked,
and the password is read from the environment variable SIPEDGE_ANSWERER_PASSWORD.")]
    /// Places calls through the edge, from carrier to carrier and from an operator to the edge's answerer, and checks each part of them.
    Call(VerifyCall),
}

#[derive(Debug, Args)]
struct VerifyCall {
    /// The topology; needed only when both are up.
    #[arg(long)]
    topology: Option<TopologyName>,
    /// Whose call it is. In the lab both kinds are placed when it is left out.
    #[arg(long, value_enum, value_name = "WHO")]
    via: Option<Via>,
    /// Has a carrier place a real call by its API: `twilio`, with the account in the environment (see docs/verify.md).
    #[arg(long, value_enum, value_name = "CARRIER", conflicts_with_all = ["via", "ingress"])]
    carrier: Option<CarrierName>,
    /// The edge's ingress address, for the operator's call to an edge that is not in the lab.
    #[arg(long, value_name = "ADDRESS")]
    ingress: Option<IpAddr>,
    /// How the caller speaks to the edge.
    #[arg(long, value_enum, default_value_t = TransportName::Udp)]
    transport: TransportName,
    #[command(flatten)]
    reports: Reports,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Via {
    /// From carrier to carrier, in the lab.
    Carriers,
    /// From an operator to the answerer that the edge has built in.
    Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CarrierName {
    /// Twilio.
    Twilio,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TransportName {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS, which needs `listen.tls`.
    Tls,
}

impl From<TransportName> for Transport {
    fn from(name: TransportName) -> Self {
        match name {
            TransportName::Udp => Self::Udp,
            TransportName::Tcp => Self::Tcp,
            TransportName::Tls => Self::Tls,
        }
    }
}

#[derive(Debug, Args)]
struct Destroy {
    /// The topology; all when it is left out.
    topology: Option<TopologyName>,
    /// Does not ask for the edge's name. (In the lab nothing is asked.)
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Secrets {
    #[command(subcommand)]
    action: SecretsAction,
}

#[derive(Debug, Subcommand)]
enum SecretsAction {
    #[command(after_help = "\
Examples:
  sipedge secrets rotate                            a new key signs, the one of before verifies
  sipedge secrets rotate --finish                   withdraws the old key, once no call can be up that bears it
  sipedge secrets rotate --finish --force           withdraws it now: it has leaked

No call is lost by a rotation. One that was cut off is continued by the same command.")]
    /// Makes a new token key, brings it to every instance, and lets it sign.
    Rotate(RotateSecrets),
    #[command(after_help = "\
Examples:
  sipedge secrets status                            numbers and ages of the keys, which one signs, what each instance has
  sipedge secrets status --json                     the same for programs")]
    /// Shows the token keys, but for the keys.
    Status(SecretsStatus),
}

#[derive(Debug, Args)]
struct RotateSecrets {
    /// The topology; needed only when both are deployed.
    topology: Option<TopologyName>,
    /// Makes no new key, but withdraws the old one.
    #[arg(long)]
    finish: bool,
    /// Withdraws it even if calls may be up that bear it: they can no longer be ended through the edge.
    #[arg(long, requires = "finish")]
    force: bool,
}

#[derive(Debug, Args)]
struct SecretsStatus {
    /// The topology; needed only when both are deployed.
    topology: Option<TopologyName>,
}

#[derive(Debug, Args)]
struct Lab {
    /// The topology; needed only when both are up.
    #[arg(long, global = true)]
    topology: Option<TopologyName>,
    /// The lab's folder, for a lab that no spec's state leads to.
    #[arg(long, global = true, hide = true, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[command(subcommand)]
    action: LabAction,
}

#[derive(Debug, Subcommand)]
enum LabAction {
    #[command(after_help = "\
Examples:
  sipedge lab exec twilio -- sipp -sn uac -m 100 -r 10 203.0.113.10
  sipedge lab exec stranger -- ip route

The exit code is that of the program.")]
    /// Runs a program in the network of a carrier, an instance, or the rest of the Internet (`stranger`).
    Exec {
        /// The carrier's name, an instance such as `i-1`, or `stranger`.
        namespace: String,
        /// The program and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    #[command(after_help = "Examples:\n  sipedge lab instances --json")]
    /// Lists the instances.
    Instances,
    #[command(after_help = "Examples:\n  sipedge lab add")]
    /// Boots one more instance and waits until it is healthy.
    Add,
    #[command(after_help = "Examples:\n  sipedge lab kill i-1")]
    /// Kills an instance, as a crash would: no drain, and its flows are forgotten.
    Kill {
        /// Its name, such as `i-1`.
        instance: String,
    },
    #[command(visible_alias = "deregister", after_help = "Examples:\n  sipedge lab remove i-1")]
    /// Takes an instance out of the load balancer: no new flows; existing ones go on.
    Remove {
        /// Its name, such as `i-1`.
        instance: String,
    },
    #[command(after_help = "Examples:\n  sipedge lab register i-1")]
    /// Puts an instance back into the load balancer.
    Register {
        /// Its name, such as `i-1`.
        instance: String,
    },
    #[command(after_help = "Examples:\n  sipedge lab flush")]
    /// Forgets every tracked flow, as if all had idled out.
    Flush,
    /// The process that owns a lab.
    #[command(hide = true)]
    Supervise {
        /// The lab's folder.
        folder: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TopologyName {
    /// One instance with an Elastic IP.
    SingleEc2,
    /// Instances behind an NLB and a NAT gateway.
    LoadBalanced,
}

impl From<TopologyName> for Topology {
    fn from(name: TopologyName) -> Self {
        match name {
            TopologyName::SingleEc2 => Self::SingleEc2,
            TopologyName::LoadBalanced => Self::LoadBalanced,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// An AWS account.
    Aws,
    /// This machine, in network namespaces.
    Lab,
}

impl From<Target> for TargetKind {
    fn from(target: Target) -> Self {
        match target {
            Target::Aws => Self::Aws,
            Target::Lab => Self::Lab,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        CommandLine::command().debug_assert();
    }
}
