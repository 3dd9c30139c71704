//! Exit codes, and failures as text or JSON.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use sipedge::deploy::{Cause, DeployError, StateError, Trouble, lab_unavailable};
use sipedge::image::way_to_published;
use sipedge::plan::PlanError;
use sipedge::spec::SpecErrors;
#[cfg(feature = "aws")]
use sipedge::target::aws::AwsError;
use sipedge::target::aws::terraform::{Kind, TerraformError};
use sipedge::target::lab::LabError;

use super::DEFAULT_SPEC;

/// How a command ended. The numbers are a promise to scripts: a number keeps its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    Unexpected = 1,
    Usage = 2,
    SpecRefused = 3,
    TargetNotAvailable = 4,
    StepFailed = 5,
    VerificationFailed = 6,
    NothingDeployed = 7,
    StateLocked = 8,
    StateDamaged = 9,
}

impl Exit {
    const ALL: [Self; 10] = [
        Self::Done,
        Self::Unexpected,
        Self::Usage,
        Self::SpecRefused,
        Self::TargetNotAvailable,
        Self::StepFailed,
        Self::VerificationFailed,
        Self::NothingDeployed,
        Self::StateLocked,
        Self::StateDamaged,
    ];

    /// How another command of this program ended; something unexpected when it was killed.
    #[cfg(feature = "aws")]
    pub(super) fn of(code: Option<i32>) -> Self {
        let place = code.and_then(|code| usize::try_from(code).ok());
        place.and_then(|place| Self::ALL.get(place).copied()).unwrap_or(Self::Unexpected)
    }

    /// Its name in JSON, and what it means.
    fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Done => ("done", "done as asked"),
            Self::Unexpected => ("unexpected", "something unexpected, such as a file that cannot be written"),
            Self::Usage => ("usage", "the command cannot be carried out as typed"),
            Self::SpecRefused => ("spec-refused", "the spec cannot be read, has mistakes, or cannot be planned"),
            Self::TargetNotAvailable => {
                ("target-not-available", "the target is not there, or this machine cannot have a lab")
            }
            Self::StepFailed => (
                "step-failed",
                "a step of deploy, refresh, rollback or destroy failed, or the lab did not do what was asked",
            ),
            Self::VerificationFailed => {
                ("verification-failed", "the verified call, or the smoke call of a refresh, did not pass")
            }
            Self::NothingDeployed => ("nothing-deployed", "nothing is deployed, or what was deployed no longer runs"),
            Self::StateLocked => ("state-locked", "another sipedge is changing the same topology"),
            Self::StateDamaged => ("state-damaged", "the state folder is damaged; deploy and destroy repair it"),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The end of `sipedge --help`.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Examples:
  sipedge init                                  a spec to start from
  sipedge plan load-balanced --target lab       what a deploy would do
  sipedge deploy load-balanced --target lab     build it on this machine, ending in a verified call
  sipedge verify call                           place the call again
  sipedge destroy                               remove everything

Exit codes:",
    );
    for exit in Exit::ALL {
        text.push_str(&format!("\n  {}  {}", exit as u8, exit.describe().1));
    }
    text
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    message: String,
    /// More lines, for people.
    text: String,
    /// More data, for programs.
    data: Value,
    /// Commands that lead on, each with what it does.
    next: Vec<(String, String)>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), text: String::new(), data: Value::Null, next: Vec::new() }
    }

    /// Adds a command that leads on.
    pub(super) fn next(mut self, command: impl Into<String>, does: impl Into<String>) -> Self {
        self.next.push((command.into(), does.into()));
        self
    }

    /// Makes the commands that lead on commands about this spec.
    pub(super) fn about(mut self, spec: &Path) -> Self {
        for (command, _) in &mut self.next {
            if command.starts_with("sipedge ") {
                command.push_str(&spec_argument(spec));
            }
        }
        self
    }

    /// Writes it to standard error.
    pub(super) fn print(&self, json: bool) {
        let text = if json { format!("{}\n", self.to_json()) } else { self.to_text() };
        // When standard error is gone, the exit code still tells.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn to_json(&self) -> Value {
        let next: Vec<Value> =
            self.next.iter().map(|(command, does)| json!({ "command": command, "does": does })).collect();
        let mut error = json!({
            "exit_code": self.exit as u8,
            "kind": self.exit.describe().0,
            "message": self.message,
            "next": next,
        });
        if let (Value::Object(error), Value::Object(data)) = (&mut error, &self.data) {
            error.extend(data.clone());
        }
        json!({ "error": error })
    }

    fn to_text(&self) -> String {
        let mut text = if self.message.is_empty() { String::new() } else { format!("error: {}\n", self.message) };
        text.push_str(&self.text);
        let width = self.next.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
        for (index, (command, does)) in self.next.iter().enumerate() {
            let label = if index == 0 { "next:" } else { "" };
            text.push_str(&format!("  {label:<9} {command:<width$}   {does}\n"));
        }
        text
    }
}

impl From<SpecErrors> for Failure {
    fn from(errors: SpecErrors) -> Self {
        let mut failure = Self::new(Exit::SpecRefused, "the spec is refused");
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        failure.text = format!("{}\n", errors.render(colour).trim_end());
        failure.data = json!({ "spec_errors": errors });
        failure
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::new(Exit::SpecRefused, error.to_string())
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let exit = match &error {
            StateError::Locked { .. } => Exit::StateLocked,
            StateError::Damaged(_) => Exit::StateDamaged,
            _ => Exit::Unexpected,
        };
        let failure = Self::new(exit, error.to_string());
        match &error {
            StateError::Locked { .. } => {
                failure.next("sipedge status", "shows what it is doing; try again when it is done")
            }
            // What deploy and destroy do not repair is in the place of the state of all edges.
            StateError::Damaged(damage) => failure.next(
                format!("mv {0} {0}.old", quoted(&damage.path)),
                "takes it out of the way; the same command then goes on",
            ),
            _ => failure,
        }
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        let exit = if lab_unavailable(&error) { Exit::TargetNotAvailable } else { Exit::StepFailed };
        Self::new(exit, error.to_string())
    }
}

impl From<TerraformError> for Failure {
    fn from(error: TerraformError) -> Self {
        let mut failure = Self::new(terraform_exit(&error), error.to_string());
        failure.next = error.next();
        failure
    }
}

/// Without Terraform or an account that can be asked, there is no target.
fn terraform_exit(error: &TerraformError) -> Exit {
    match error {
        error if error.is_unavailable() => Exit::TargetNotAvailable,
        TerraformError::Failed(failed) if failed.is_about_the_account() => Exit::TargetNotAvailable,
        TerraformError::Failed(failed) if matches!(failed.kind, Kind::StateLocked { .. }) => Exit::StateLocked,
        TerraformError::Busy { .. } => Exit::StateLocked,
        _ => Exit::StepFailed,
    }
}

#[cfg(feature = "aws")]
pub(super) fn aws_exit(error: &AwsError) -> Exit {
    match error {
        AwsError::NoCredentials { .. }
        | AwsError::SsoExpired { .. }
        | AwsError::NoSuchProfile { .. }
        | AwsError::CredentialsExpired { .. }
        | AwsError::CredentialsRefused { .. }
        | AwsError::UnknownRegion { .. }
        | AwsError::RegionNotEnabled { .. }
        | AwsError::Unreachable { .. } => Exit::TargetNotAvailable,
        _ => Exit::StepFailed,
    }
}

#[cfg(feature = "aws")]
impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        Self::new(aws_exit(&error), error.to_string())
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        let mut failure = Self::new(exit_of(&cause), cause.to_string());
        match &cause {
            Cause::Terraform(error) => failure.next = error.next(),
            Cause::NotPublished { flavour, .. } => failure.next = way_to_published(*flavour).into(),
            _ => {}
        }
        failure
    }
}

impl From<DeployError> for Failure {
    fn from(error: DeployError) -> Self {
        let failed = match error {
            DeployError::State(error) => return error.into(),
            DeployError::Refused(cause) => return (*cause).into(),
            DeployError::Step(failed) => *failed,
            error => return Self::new(Exit::Unexpected, error.to_string()),
        };
        let mut failure = Self::new(exit_of(&failed.cause), failed.to_string());
        for (label, lines) in [("stands:", &failed.stands), ("missing:", &failed.missing)] {
            for (index, line) in lines.iter().enumerate() {
                let label = if index == 0 { label } else { "" };
                failure.text.push_str(&format!("  {label:<9} {line}\n"));
            }
        }
        failure.data = json!({ "step": failed.step, "stands": failed.stands, "missing": failed.missing });
        failure.next = failed.next;
        failure
    }
}

/// What a cause means to a script.
pub(super) fn exit_of(cause: &Cause) -> Exit {
    match cause {
        Cause::Plan(_) => Exit::SpecRefused,
        Cause::Instances { .. }
        | Cause::NoVersionBefore { .. }
        | Cause::NoSuchVersion { .. }
        | Cause::NoVerifiedCall(_)
        | Cause::Declined => Exit::Usage,
        Cause::OtherAccount { .. } | Cause::NotInAccount { .. } => Exit::TargetNotAvailable,
        Cause::Lab(error) if lab_unavailable(error) => Exit::TargetNotAvailable,
        Cause::Verification(_) => Exit::VerificationFailed,
        Cause::Refresh(failure) if matches!(failure.why, Trouble::SmokeCall { .. }) => Exit::VerificationFailed,
        Cause::NotRunning { .. } => Exit::NothingDeployed,
        Cause::Terraform(error) => terraform_exit(error),
        #[cfg(feature = "aws")]
        Cause::Aws(error) => aws_exit(error),
        Cause::NoImage(_) | Cause::NotPublished { .. } => Exit::TargetNotAvailable,
        _ => Exit::StepFailed,
    }
}

/// ` --spec FILE` as one types it, or nothing when it is the default.
pub(super) fn spec_argument(spec: &Path) -> String {
    if spec == Path::new(DEFAULT_SPEC) { String::new() } else { format!(" --spec {}", quoted(spec)) }
}

/// A path as one types it into a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+,:@%=".contains(letter);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Writes a command's result to standard output. A reader that went away (`| head`) is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_to_reader(text).map(|_| ())
}

/// [`print`]; whether there is still somebody who reads.
pub(super) fn print_to_reader(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(newline.as_bytes())).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Exit::Unexpected, format!("cannot write to standard output: {error}"))),
    }
}

/// [`print`] of a value as JSON.
pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_when_a_shell_would_divide_it() {
        assert_eq!(spec_argument(Path::new("sipedge.yaml")), "");
        assert_eq!(spec_argument(Path::new("edge/sip.yaml")), " --spec edge/sip.yaml");
        assert_eq!(spec_argument(Path::new("my edge's.yaml")), r" --spec 'my edge'\''s.yaml'");
    }

    #[test]
    fn numbers_are_their_places() {
        for (number, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(exit as usize, number);
        }
    }
}
