//! Terraform or OpenTofu as a child process: init, plan, apply of exactly that plan, outputs, destroy.
//!
//! The modules of `terraform/` are in this binary. They are written to a working folder whole, with the plan's variables beside them, so
//! that `terraform` can be run there by hand as well. The state is outside of that folder, or in S3.

mod changes;
mod classify;
mod diagnostic;
mod error;
mod events;
mod folder;
mod moved;
mod process;
mod program;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

pub use changes::{Action, Changes, ResourceChange};
pub use diagnostic::Diagnostic;
pub use error::{Failed, Kind, TerraformError, Verb};
pub use events::{Phase, ResourceEvent};
pub use folder::{Backend, Folder, Modules};
pub use program::{PLUGIN_FOLDER_VARIABLE, PROGRAM_VARIABLE, Program, Version};

use events::Reader;
use moved::Move;
use process::{Child, Ended};

/// Terraform at work in one folder.
#[derive(Debug)]
pub struct Terraform {
    program: Program,
    folder: Folder,
    /// Where providers come from instead of the registry.
    plugins: Option<PathBuf>,
    /// Where providers that came from the registry are kept for all folders.
    plugin_cache: Option<PathBuf>,
}

/// What an apply did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Resources created.
    pub added: u64,
    /// Changed in place.
    pub changed: u64,
    /// Destroyed.
    pub removed: u64,
}

/// Output values of the root module, by name.
pub type Outputs = BTreeMap<String, Value>;

impl Terraform {
    /// `program` at work in `folder`. Providers come from the folder that [`PLUGIN_FOLDER_VARIABLE`] names, when it names one.
    pub fn new(program: Program, folder: Folder) -> Self {
        let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
        let plugins = named(PLUGIN_FOLDER_VARIABLE).map(PathBuf::from);
        // A cache that the user has chosen in the environment or in the CLI configuration stays.
        let chosen = ["TF_PLUGIN_CACHE_DIR", "TF_CLI_CONFIG_FILE"].iter().any(|variable| named(variable).is_some());
        let plugin_cache = if plugins.is_some() || chosen { None } else { program::default_plugin_cache() };
        Self { program, folder, plugins, plugin_cache }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The working folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Fetches providers and readies the backend. A state that was kept elsewhere before is copied to where `backend.tf.json` says, unless
    /// there is another one. A Terraform that is at work here, which a killed sipedge has left, is waited for; `on_wait` is told in a
    /// sentence, at once and each minute.
    ///
    /// # Errors
    /// No provider, no network, no access to the state's bucket, another Terraform at work, states at both places.
    pub fn init(&self, on_wait: &mut dyn FnMut(&str)) -> Result<(), TerraformError> {
        // First of all: it may be writing the state that is looked at below.
        drop(self.folder.claim(&mut |passed| on_wait(&self.waiting(passed)))?);
        let mut arguments = words(&["init", "-input=false", "-no-color"]);
        if let Some(plugins) = &self.plugins {
            let mut argument = OsString::from("-plugin-dir=");
            argument.push(plugins);
            arguments.push(argument);
        }
        if self.folder.is_initialised() {
            arguments.extend(match moved::move_of(&self.folder, &self.program)? {
                Move::Stays => words(&["-reconfigure"]),
                Move::Copy => words(&["-migrate-state", "-force-copy"]),
            });
        }
        let _cache = match &self.plugin_cache {
            Some(cache) => Some(program::lock_plugin_cache(cache)?),
            None => None,
        };
        let ended = self.child(arguments)?.run(&mut |_| {})?;
        self.must(Verb::Init, ended, Vec::new())
    }

    /// Works out what an apply would do and keeps that plan, which [`Terraform::apply`] carries out. `destroy`: of all resources.
    ///
    /// # Errors
    /// Whatever AWS or the modules refuse.
    pub fn plan(&self, destroy: bool, on_event: &mut dyn FnMut(&ResourceEvent)) -> Result<Changes, TerraformError> {
        let mut arguments = words(&["plan", "-input=false", "-no-color", "-json", LOCK_TIMEOUT, PLAN_ARGUMENT]);
        if destroy {
            arguments.push("-destroy".into());
        }
        self.stream(Verb::Plan, arguments, on_event)?;
        self.saved_plan()
    }

    /// [`Terraform::plan`] without the state's lock: what is seen may be what another run is changing.
    ///
    /// # Errors
    /// As there.
    pub fn look(&self) -> Result<Changes, TerraformError> {
        let arguments = words(&["plan", "-input=false", "-no-color", "-json", "-lock=false", PLAN_ARGUMENT]);
        self.stream(Verb::Plan, arguments, &mut |_| {})?;
        let changes = self.saved_plan();
        self.folder.remove_plan(PLAN_FILE)?;
        changes
    }

    fn saved_plan(&self) -> Result<Changes, TerraformError> {
        let (ended, text) = self.child(words(&["show", "-no-color", "-json", PLAN_FILE]))?.read_all()?;
        self.must(Verb::Show, ended, Vec::new())?;
        Changes::read(&text).map_err(|reason| TerraformError::Strange { verb: Verb::Show, reason })
    }

    /// Carries out the plan of the last [`Terraform::plan`] and nothing else. The plan is gone afterwards.
    ///
    /// # Errors
    /// What AWS refuses. What was made until then is in the state, and the next plan starts from it.
    pub fn apply(&self, on_event: &mut dyn FnMut(&ResourceEvent)) -> Result<Applied, TerraformError> {
        let arguments = words(&["apply", "-input=false", "-no-color", "-json", LOCK_TIMEOUT, PLAN_FILE]);
        let applied = self.stream(Verb::Apply, arguments, on_event);
        // It is stale now, and it has the values of all variables.
        self.folder.remove_plan(PLAN_FILE)?;
        applied
    }

    /// Forgets the plan of the last [`Terraform::plan`], which has the values of all variables and is not to be carried out.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget_plan(&self) -> Result<(), TerraformError> {
        self.folder.remove_plan(PLAN_FILE)
    }

    /// What a person types before a subcommand to have the same Terraform do something in the same folder.
    pub fn by_hand(&self) -> String {
        let program = if self.program.name() == "OpenTofu" { "tofu" } else { "terraform" };
        format!("{program} -chdir={}", self.folder.root_module().display())
    }

    /// The outputs of what stands. Empty before the first apply.
    pub fn outputs(&self) -> Result<Outputs, TerraformError> {
        let (ended, text) = self.child(words(&["output", "-no-color", "-json"]))?.read_all()?;
        self.must(Verb::Output, ended, Vec::new())?;
        let strange = |reason: String| TerraformError::Strange { verb: Verb::Output, reason };
        let all: BTreeMap<String, Value> = serde_json::from_slice(&text).map_err(|error| strange(error.to_string()))?;
        Ok(all.into_iter().map(|(name, mut output)| (name, output["value"].take())).collect())
    }

    /// Addresses of the resources in the state, data sources not among them.
    pub fn resources(&self) -> Result<Vec<String>, TerraformError> {
        let (ended, text) = self.child(words(&["show", "-no-color", "-json"]))?.read_all()?;
        self.must(Verb::Show, ended, Vec::new())?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|error| TerraformError::Strange { verb: Verb::Show, reason: error.to_string() })?;
        let mut found = Vec::new();
        managed(&value["values"]["root_module"], &mut found);
        Ok(found)
    }

    fn waiting(&self, passed: Duration) -> String {
        let (name, folder) = (self.program.name(), self.folder.root_module());
        let since = match passed.as_secs() / 60 {
            0 => String::new(),
            minutes => format!(", {minutes} min so far"),
        };
        format!("another {name} is at work in {}: waiting for it to end{since}", folder.display())
    }

    fn stream(
        &self,
        verb: Verb,
        arguments: Vec<OsString>,
        on_event: &mut dyn FnMut(&ResourceEvent),
    ) -> Result<Applied, TerraformError> {
        let mut reader = Reader::default();
        let ended = self.child(arguments)?.run(&mut |line| {
            if let Some(event) = reader.line(line) {
                on_event(&event);
            }
        })?;
        self.must(verb, ended, reader.diagnostics)?;
        Ok(reader.applied)
    }

    fn must(&self, verb: Verb, ended: Ended, diagnostics: Vec<Diagnostic>) -> Result<(), TerraformError> {
        self.program.must(&self.folder, verb, ended, diagnostics)
    }

    fn child(&self, arguments: Vec<OsString>) -> Result<Child, TerraformError> {
        let mut child = Child::new(&self.program, &self.folder, arguments);
        if let Some(cache) = &self.plugin_cache {
            child.set("TF_PLUGIN_CACHE_DIR", cache);
        }
        Ok(child)
    }
}

impl Program {
    /// The failure of a run that did not end well.
    fn must(
        &self,
        folder: &Folder,
        verb: Verb,
        ended: Ended,
        mut diagnostics: Vec<Diagnostic>,
    ) -> Result<(), TerraformError> {
        if ended.success && !ended.interrupted {
            return Ok(());
        }
        if diagnostics.is_empty() {
            diagnostics = diagnostic::from_text(&ended.tail);
        }
        let kind = match () {
            () if ended.interrupted => Kind::Interrupted,
            () if ended.killed => Kind::Killed,
            () => classify::classify(&diagnostics, &ended.tail),
        };
        Err(TerraformError::Failed(Box::new(Failed {
            program: self.name(),
            verb,
            kind,
            diagnostics,
            tail: ended.tail,
            folder: folder.root_module(),
            ended: ended.how,
        })))
    }
}

/// The saved plan, in the root module's folder.
const PLAN_FILE: &str = "next.tfplan";
const PLAN_ARGUMENT: &str = "-out=next.tfplan";

/// How long Terraform waits for somebody else's state lock: a run that is ending now, not one that works.
const LOCK_TIMEOUT: &str = "-lock-timeout=10s";

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn managed(module: &Value, found: &mut Vec<String>) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for resource in list(&module["resources"]) {
        if let (Some("managed"), Some(address)) = (resource["mode"].as_str(), resource["address"].as_str()) {
            found.push(address.to_owned());
        }
    }
    for child in list(&module["child_modules"]) {
        managed(&child, found);
    }
}

/// Whether `path` is a file that can be executed.
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
