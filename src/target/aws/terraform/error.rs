//! Why Terraform did not do what was asked, and the way on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{Diagnostic, Version};

/// Why Terraform did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TerraformError {
    /// There is none.
    #[error("{}", not_there(named.as_deref()))]
    NotThere {
        /// What SIPEDGE_TERRAFORM names.
        named: Option<PathBuf>,
    },
    /// It is no Terraform.
    #[error("{} does not say its version: {reason}", path.display())]
    NoVersion {
        /// The program.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// It is too old.
    #[error(
        "{} is {name} {found}, and {reason} needs {needed} or newer. Install a newer Terraform or OpenTofu, or name one in SIPEDGE_TERRAFORM",
        path.display()
    )]
    TooOld {
        /// Terraform or OpenTofu.
        name: &'static str,
        /// The program.
        path: PathBuf,
        /// Its version.
        found: Version,
        /// The oldest that will do.
        needed: Version,
        /// For what.
        reason: &'static str,
    },
    /// It ran, and failed.
    #[error(transparent)]
    Failed(Box<Failed>),
    /// It said what nobody understands.
    #[error(
        "`{verb}` was not answered as Terraform answers: {reason}. This is a fault of sipedge; please report it with `terraform version`"
    )]
    Strange {
        /// What it was asked.
        verb: Verb,
        /// What is strange.
        reason: String,
    },
    /// Another one is at work.
    #[error(
        "another Terraform is at work in {}, and has been for a quarter of an hour; wait for it to end, or end it with SIGINT and give it time to write its state",
        folder.display()
    )]
    Busy {
        /// Where.
        folder: PathBuf,
    },
    /// There is a state at the place of before and at the new one.
    #[error(
        "the state is to be kept in {new} from now on, where there is one already ({} resources); the one of before is in {old} ({} resources). \
         Which of them knows what stands only you can tell: nothing was copied or changed. Move the other one away, or set aws.state back",
        resources.1,
        resources.0
    )]
    TwoStates {
        /// The place of before.
        old: String,
        /// The new one.
        new: String,
        /// How many resources each has.
        resources: (usize, usize),
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl TerraformError {
    pub(in crate::target::aws) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }

    /// Whether there is no Terraform that could be used.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::NotThere { .. } | Self::NoVersion { .. } | Self::TooOld { .. })
    }

    /// Commands that lead on, each with what it does.
    pub fn next(&self) -> Vec<(String, String)> {
        match self {
            Self::Failed(failed) => failed.next(),
            _ => Vec::new(),
        }
    }
}

/// What Terraform was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `init`
    Init,
    /// `plan`
    Plan,
    /// `show`
    Show,
    /// `apply`
    Apply,
    /// `output`
    Output,
    /// `state pull`
    Pull,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Plan => "plan",
            Self::Show => "show",
            Self::Apply => "apply",
            Self::Output => "output",
            Self::Pull => "state pull",
        })
    }
}

/// A run that failed.
#[derive(Debug)]
pub struct Failed {
    /// Terraform or OpenTofu.
    pub program: &'static str,
    /// What it was asked.
    pub verb: Verb,
    /// What is known of the reason.
    pub kind: Kind,
    /// What it said.
    pub diagnostics: Vec<Diagnostic>,
    /// Its last lines, for when it said nothing that can be read.
    pub tail: Vec<String>,
    /// Where it ran.
    pub folder: PathBuf,
    /// How it ended: `exit code 1`.
    pub ended: String,
}

/// Reasons that have a way on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// There are no credentials.
    NoCredentials,
    /// The SSO session is over.
    SsoExpired,
    /// The profile is not in the configuration files.
    NoProfile,
    /// AWS does not take the credentials.
    CredentialsRefused {
        /// AWS's error code.
        code: String,
    },
    /// The region does not exist, or is not enabled.
    Region,
    /// The credentials do not allow it.
    NotAllowed {
        /// The action, such as `ec2:CreateVpc`, where AWS says it.
        action: Option<String>,
    },
    /// The account has as many as it may.
    Quota {
        /// AWS's error code.
        code: String,
        /// Of what.
        what: &'static str,
    },
    /// Something of the name is there and is not in the state.
    NameClash {
        /// AWS's error code.
        code: String,
    },
    /// Somebody holds the state's lock.
    StateLocked {
        /// The lock's id, which unlocking needs.
        id: String,
        /// `user@machine`.
        who: String,
        /// What they do.
        operation: String,
        /// Since when.
        created: String,
    },
    /// It was asked to end, by Ctrl-C or a signal.
    Interrupted,
    /// It was ended by force: its state may lack what was under way.
    Killed,
    /// A provider cannot be had.
    ProviderMissing,
    /// A host cannot be reached.
    NoNetwork {
        /// The host, where it is said.
        host: Option<String>,
    },
    /// The state is no state.
    StateUnreadable,
    /// The state was written by a newer Terraform.
    StateNewer,
    /// The bucket of the state is not there.
    NoBucket,
    /// Something else: the diagnostics say it.
    Other,
}

/// Diagnostics that a message shows; the rest is counted.
const SHOWN: usize = 8;
/// Lines of one diagnostic that a message shows. AWS's own have two or three; a module's may show a table.
const SHOWN_LINES: usize = 12;

impl std::error::Error for Failed {}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} failed: {}", self.program, self.verb, self.reason())?;
        for diagnostic in self.diagnostics.iter().take(SHOWN) {
            let address = diagnostic.address.as_ref().map(|address| format!("{address}: ")).unwrap_or_default();
            let text = diagnostic.text();
            let mut lines = text.lines();
            write!(f, "\n  {address}{}", lines.next().unwrap_or_default())?;
            for line in lines.by_ref().take(SHOWN_LINES) {
                write!(f, "\n    {line}")?;
            }
            if lines.next().is_some() {
                write!(f, "\n    …")?;
            }
        }
        match self.diagnostics.len() {
            0 => {
                let skip = self.tail.len().saturating_sub(SHOWN);
                self.tail.iter().skip(skip).try_for_each(|line| write!(f, "\n  {line}"))
            }
            many if many > SHOWN => write!(f, "\n  and {} more", many - SHOWN),
            _ => Ok(()),
        }
    }
}

impl Failed {
    /// Whether the account cannot be asked as things are: credentials, region, network.
    pub fn is_about_the_account(&self) -> bool {
        matches!(
            self.kind,
            Kind::NoCredentials
                | Kind::SsoExpired
                | Kind::NoProfile
                | Kind::CredentialsRefused { .. }
                | Kind::Region
                | Kind::ProviderMissing
                | Kind::NoNetwork { .. }
        )
    }

    /// The reason in one or two sentences.
    fn reason(&self) -> String {
        match &self.kind {
            Kind::NoCredentials => "there are no AWS credentials: not in the environment, not in the profile that the spec names, not \
                                    from an instance's metadata. Nothing was changed"
                .to_owned(),
            Kind::SsoExpired => "the SSO session of the spec's profile has expired, or was never begun".to_owned(),
            Kind::NoProfile => "the profile that the spec names is not in the AWS configuration files. Write aws.profile as it is \
                                there, or leave it out and put credentials into the environment"
                .to_owned(),
            Kind::CredentialsRefused { code } => {
                format!("AWS does not take the credentials ({code}): they are wrong, have expired, or this machine's clock is off")
            }
            Kind::Region => "AWS knows no such region, or this account has not enabled it. Write aws.region as `aws account list-regions` \
                             shows it"
                .to_owned(),
            Kind::NotAllowed { action } => {
                let what = action.as_deref().map(|action| format!("{action} is not among what the")).unwrap_or("the".into());
                let verb = if action.is_some() { "credentials allow" } else { "credentials do not allow this" };
                format!("{what} {verb}. docs/aws.md lists the permissions that a deploy needs")
            }
            Kind::Quota { code, what } => format!(
                "this account may not have more {what} in this region ({code}). What was made until then is in the state; ask for a \
                 higher quota in Service Quotas, or release some, and deploy again"
            ),
            Kind::NameClash { code } => format!(
                "something of this name is in the account already, and is not in this edge's state ({code}): another deploy of an edge of \
                 the same name, or what a lost state has left. Remove it, import it into the state, or give the edge another name"
            ),
            Kind::StateLocked { who, operation, created, .. } => format!(
                "{who} has held the lock of the state since {created} (for {operation}). Wait until that is done; if it was cut off, \
                 release the lock"
            ),
            Kind::Interrupted => {
                "it was asked to end, and has. What was made or changed until then is in the state, which is whole; the same command goes \
                 on from there. A request that was under way at that moment may have been carried out and not be in the state: if the \
                 command meets a name that is taken, that is such a part"
                    .to_owned()
            }
            Kind::Killed => format!(
                "it was ended by force ({}). The state has everything but what was under way at that moment; the same command goes on, \
                 and if it meets a name that is taken, that is the part the state does not know",
                self.ended
            ),
            Kind::ProviderMissing => "the provider of the modules cannot be had. With access to registry.terraform.io it is fetched; without, \
                                      SIPEDGE_TERRAFORM_PLUGIN_DIR names a folder that has it (`terraform providers mirror FOLDER`)"
                .to_owned(),
            Kind::NoNetwork { host } => {
                let host = host.as_deref().unwrap_or("a host");
                format!("{host} cannot be reached: no network, no DNS, or a proxy or firewall in between. Nothing that stands was changed by that")
            }
            Kind::StateUnreadable => "the state cannot be read. Terraform keeps the one before it in `terraform.tfstate.backup` beside it, and \
                                      a bucket with versioning keeps all. Without a state AWS's resources stand and nobody knows of them"
                .to_owned(),
            Kind::StateNewer => "the state was written by a newer Terraform than this. Use that one, or a newer one".to_owned(),
            Kind::NoBucket => "the bucket that the spec names for the state is not there. Make it, with versioning".to_owned(),
            Kind::Other => self.ended.clone(),
        }
    }

    /// Commands that lead on.
    fn next(&self) -> Vec<(String, String)> {
        let own = |command: &str, does: &str| vec![(command.to_owned(), does.to_owned())];
        let program = if self.program == "OpenTofu" { "tofu" } else { "terraform" };
        let here = format!("{program} -chdir={}", self.folder.display());
        match &self.kind {
            Kind::NoCredentials => own("aws configure sso", "signs in, or: aws configure, for access keys"),
            Kind::SsoExpired => own("aws sso login", "signs in again; with --profile when the spec names one"),
            Kind::NoProfile => own("aws configure list-profiles", "shows the profiles that there are"),
            Kind::CredentialsRefused { .. } | Kind::NotAllowed { .. } => {
                own("aws sts get-caller-identity", "shows who AWS takes you for")
            }
            Kind::Region => own("aws account list-regions", "shows the regions of this account"),
            Kind::Quota { .. } => own("sipedge doctor", "compares the account's quotas with what the plan needs"),
            Kind::StateLocked { id, .. } => {
                vec![(
                    format!("{here} force-unlock {id}"),
                    "releases the lock, when you are sure that run is over".to_owned(),
                )]
            }
            Kind::ProviderMissing | Kind::NoNetwork { .. } => {
                own("sipedge doctor", "checks tools, network and credentials")
            }
            Kind::StateUnreadable | Kind::StateNewer => {
                vec![(format!("{here} show"), "shows what can be read of the state".to_owned())]
            }
            Kind::NameClash { .. } | Kind::NoBucket | Kind::Interrupted | Kind::Killed | Kind::Other => Vec::new(),
        }
    }
}

fn not_there(named: Option<&Path>) -> String {
    match named {
        Some(path) => format!(
            "SIPEDGE_TERRAFORM names {}, which is no program. Name Terraform or OpenTofu 1.9 or newer there, or unset it",
            path.display()
        ),
        None => "neither terraform nor tofu is on PATH. Install Terraform (https://developer.hashicorp.com/terraform/install) or OpenTofu \
                 (https://opentofu.org/docs/intro/install) 1.9 or newer, or name one in SIPEDGE_TERRAFORM"
            .to_owned(),
    }
}
