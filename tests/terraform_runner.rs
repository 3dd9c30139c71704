//! Terraform as sipedge runs it: found, checked, bounded, interrupted; every error that has a way on, provoked, with its message as it
//! stands in `tests/golden/errors/`. `UPDATE_GOLDEN=1` writes those anew.

#[path = "support/errors.rs"]
mod errors;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use errors::{assert_golden, in_ci, told};
use sipedge::target::aws::terraform::{Action, Backend, Folder, Kind, Modules, Program, Terraform, TerraformError};

/// A module that needs no provider but Terraform's own.
const MODULE: &str = r#"
variable "name" { type = string }
resource "terraform_data" "kept" { input = var.name }
resource "terraform_data" "made_anew" { triggers_replace = [var.name] }
output "name" { value = terraform_data.kept.output }
"#;

/// One resource that takes a minute.
const SLOW: &str = r#"
variable "name" { type = string }
resource "terraform_data" "quick" { input = var.name }
resource "terraform_data" "slow" {
  depends_on = [terraform_data.quick]
  provisioner "local-exec" { command = "sleep 60" }
}
"#;

struct Bench {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Bench {
    /// With the Terraform of this machine; none, and the test is skipped, where there is none.
    fn new(test: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).flat_map(|folder| [folder.join("terraform"), folder.join("tofu")]);
        let Some(program) = found.into_iter().find(|file| file.is_file()) else {
            assert!(!in_ci(), "{test} would be skipped, and in CI nothing is: there is no Terraform");
            eprintln!("skipped: {test}: there is no Terraform");
            return None;
        };
        Some(Self { folder: tempfile::tempdir().expect("a folder"), program })
    }

    /// With a program that says what a test wants.
    fn standing_in(script: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("terraform");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        Self { folder, program }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("terraform.tfstate")
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("working")
    }

    fn terraform(&self, module: &str, name: &str) -> Terraform {
        let folder = Folder::new(&self.root(), "edge");
        let modules = Modules::given([("edge/main.tf".to_owned(), module.as_bytes().to_vec())]);
        let variables = BTreeMap::from([("edge.auto.tfvars.json".to_owned(), format!("{{\"name\": \"{name}\"}}"))]);
        let backend = Backend::Local { path: "../../terraform.tfstate".into() };
        folder.write(&modules, &variables, &backend).expect("the folder is written");
        Terraform::new(Program::at(&self.program).expect("it says its version"), folder)
    }

    /// The error as it is told, without what differs from run to run.
    fn told(&self, error: &TerraformError) -> String {
        told(&error.to_string(), &error.next(), self.folder.path())
    }
}

fn kind(error: &TerraformError) -> &Kind {
    match error {
        TerraformError::Failed(failed) => &failed.kind,
        other => panic!("not a run that failed: {other:?}"),
    }
}

#[test]
fn plan_apply_change_and_destroy() {
    let Some(bench) = Bench::new("plan_apply_change_and_destroy") else { return };
    let terraform = bench.terraform(MODULE, "first");
    terraform.init(&mut |_| {}).expect("init");
    assert!(terraform.outputs().expect("outputs").is_empty(), "nothing stands yet");
    let changes = terraform.plan(false, &mut |_| {}).expect("plan");
    assert_eq!(changes.summary(), "2 to create");
    let mut events = Vec::new();
    let applied = terraform.apply(&mut |event| events.push(event.clone())).expect("apply");
    assert_eq!((applied.added, applied.changed, applied.removed), (2, 0, 0));
    assert!(
        events.iter().any(|event| event.address == "terraform_data.kept" && event.action == "create"),
        "{events:?}"
    );
    assert_eq!(terraform.outputs().expect("outputs")["name"], "first");
    assert!(!terraform.folder().root_module().join("next.tfplan").exists(), "a plan that is done is removed");

    let again = bench.terraform(MODULE, "first");
    again.init(&mut |_| {}).expect("init again");
    assert!(again.plan(false, &mut |_| {}).expect("plan").is_empty(), "a second plan is empty");

    let changed = bench.terraform(MODULE, "second");
    changed.init(&mut |_| {}).expect("init");
    let changes = changed.plan(false, &mut |_| {}).expect("plan");
    let of = |address: &str| changes.resources.iter().find(|resource| resource.address == address).expect(address);
    assert_eq!(of("terraform_data.kept").action, Action::Update);
    assert_eq!(of("terraform_data.kept").attributes, ["input", "output"]);
    assert_eq!(of("terraform_data.made_anew").action, Action::Replace);
    assert_eq!(of("terraform_data.made_anew").attributes, ["triggers_replace"]);
    changed.apply(&mut |_| {}).expect("apply");
    assert_eq!(changed.resources().expect("resources"), ["terraform_data.kept", "terraform_data.made_anew"]);

    let changes = changed.plan(true, &mut |_| {}).expect("plan of a destroy");
    assert_eq!(changes.count(Action::Delete), 2);
    changed.apply(&mut |_| {}).expect("destroy");
    assert!(changed.resources().expect("resources").is_empty());
}

#[test]
fn the_state_outlives_the_working_folder() {
    let Some(bench) = Bench::new("the_state_outlives_the_working_folder") else { return };
    let terraform = bench.terraform(MODULE, "first");
    terraform.init(&mut |_| {}).expect("init");
    terraform.plan(false, &mut |_| {}).expect("plan");
    terraform.apply(&mut |_| {}).expect("apply");
    fs::remove_dir_all(bench.root()).expect("the folder can be removed");
    let terraform = bench.terraform(MODULE, "first");
    terraform.init(&mut |_| {}).expect("init");
    assert!(terraform.plan(false, &mut |_| {}).expect("plan").is_empty());
}

#[test]
fn a_state_that_moves_is_copied_and_never_over_another_one() {
    let Some(bench) = Bench::new("a_state_that_moves_is_copied_and_never_over_another_one") else { return };
    let at = |file: &str, name: &str| {
        let terraform = bench.terraform(MODULE, name);
        let modules = Modules::given([("edge/main.tf".to_owned(), MODULE.as_bytes().to_vec())]);
        let variables = BTreeMap::from([("edge.auto.tfvars.json".to_owned(), format!("{{\"name\": \"{name}\"}}"))]);
        let backend = Backend::Local { path: Path::new("../..").join(file) };
        terraform.folder().write(&modules, &variables, &backend).expect("the folder is written");
        terraform
    };
    let first = at("first.tfstate", "a");
    first.init(&mut |_| {}).expect("init");
    first.plan(false, &mut |_| {}).expect("plan");
    first.apply(&mut |_| {}).expect("apply");

    let second = at("second.tfstate", "a");
    second.init(&mut |_| {}).expect("the new place is empty: the state is copied");
    assert!(second.plan(false, &mut |_| {}).expect("plan").is_empty());
    let changed = at("second.tfstate", "b");
    changed.init(&mut |_| {}).expect("it stays");
    changed.plan(false, &mut |_| {}).expect("plan");
    changed.apply(&mut |_| {}).expect("apply");

    let before = fs::read(bench.folder.path().join("first.tfstate")).expect("it is there");
    let error = at("first.tfstate", "b").init(&mut |_| {}).expect_err("the old one is still there, and older");
    assert!(matches!(error, TerraformError::TwoStates { resources: (2, 2), .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("first.tfstate") && text.contains("second.tfstate") && text.contains("nothing was copied"));
    assert_eq!(fs::read(bench.folder.path().join("first.tfstate")).expect("it is there"), before);
    fs::rename(bench.folder.path().join("first.tfstate"), bench.folder.path().join("old.tfstate")).expect("moved");
    let back = at("first.tfstate", "b");
    back.init(&mut |_| {}).expect("the way is free");
    assert!(back.plan(false, &mut |_| {}).expect("plan").is_empty());
}

#[test]
fn a_terraform_that_is_ended_by_force_says_so() {
    let bench =
        Bench::standing_in("case \"$1\" in version) echo '{\"terraform_version\": \"1.11.4\"}';; *) kill -9 $$;; esac");
    let error = bench.terraform(MODULE, "a").init(&mut |_| {}).expect_err("it is dead");
    assert_eq!(kind(&error), &Kind::Killed);
    assert!(error.to_string().contains("ended by force (signal 9)"), "{error}");
}

#[test]
fn an_interrupt_leaves_a_state_that_is_whole() {
    // The signal goes to a process, so another one than the one of the tests has to get it: this test runs itself.
    if let Some(folder) = std::env::var_os("SIPEDGE_TEST_INTERRUPTED") {
        sipedge::interrupt::take_over();
        let bench = Bench {
            folder: tempfile::tempdir().expect("a folder"),
            program: std::env::var_os("SIPEDGE_TEST_PROGRAM").expect("the program").into(),
        };
        let root = Path::new(&folder).join("working");
        let terraform = Terraform::new(Program::at(&bench.program).expect("a version"), Folder::new(&root, "edge"));
        let error =
            terraform.apply(&mut |event| println!("{} {:?}", event.address, event.phase)).expect_err("interrupted");
        println!("told: {}", told(&error.to_string(), &error.next(), Path::new(&folder)).replace('\n', "\\n"));
        std::process::exit(7);
    }
    let Some(bench) = Bench::new("an_interrupt_leaves_a_state_that_is_whole") else { return };
    let terraform = bench.terraform(SLOW, "first");
    terraform.init(&mut |_| {}).expect("init");
    terraform.plan(false, &mut |_| {}).expect("plan");
    let log = bench.folder.path().join("log");
    let mut child = Command::new("env")
        // A thread of the harness would take the signal, were it not held back for all of them.
        .arg("--block-signal=INT")
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "an_interrupt_leaves_a_state_that_is_whole", "--nocapture"])
        .env("SIPEDGE_TEST_INTERRUPTED", bench.folder.path())
        .env("SIPEDGE_TEST_PROGRAM", &bench.program)
        .stdout(fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("it starts");
    let read = || fs::read_to_string(&log).unwrap_or_default();
    eventually("the slow resource has begun", || read().contains("terraform_data.slow Started"));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(7), "{}", read());
    let text =
        read().lines().find_map(|line| Some(line.strip_prefix("told: ")?.replace("\\n", "\n"))).expect("it tells");
    // Where it was when the signal came is another matter.
    let first = text.lines().next().unwrap_or_default();
    assert_golden("interrupted-apply", &format!("{first}\n"));
    let kept = terraform.resources().expect("the state can be read");
    assert!(kept.contains(&"terraform_data.quick".to_owned()), "{kept:?}");
}

#[test]
fn a_terraform_whose_sipedge_was_killed_is_waited_for() {
    let Some(bench) = Bench::new("a_terraform_whose_sipedge_was_killed_is_waited_for") else { return };
    let terraform = bench.terraform(&SLOW.replace("sleep 60", "sleep 3"), "first");
    terraform.init(&mut |_| {}).expect("init");
    terraform.plan(false, &mut |_| {}).expect("plan");
    let log = bench.folder.path().join("log");
    let mut child = Command::new("env")
        // A thread of the harness would take the signal, were it not held back for all of them.
        .arg("--block-signal=INT")
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "an_interrupt_leaves_a_state_that_is_whole", "--nocapture"])
        .env("SIPEDGE_TEST_INTERRUPTED", bench.folder.path())
        .env("SIPEDGE_TEST_PROGRAM", &bench.program)
        .stdout(fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("it starts");
    eventually("the slow resource has begun", || {
        fs::read_to_string(&log).unwrap_or_default().contains("terraform_data.slow Started")
    });
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    // The next run finds Terraform ending, waits for it, and finds a state that is whole.
    let changes = terraform.plan(false, &mut |_| {}).expect("the next run waits and plans");
    assert!(changes.resources.iter().all(|resource| resource.address == "terraform_data.slow"), "{changes:?}");
    terraform.apply(&mut |_| {}).expect("the next run goes on");
    assert_eq!(terraform.resources().expect("resources").len(), 2);
}

#[test]
fn none_or_one_that_is_too_old() {
    let bench = Bench::standing_in(r#"echo '{"terraform_version": "1.5.7"}'"#);
    let program = Program::at(&bench.program).expect("a version");
    let error = program.check(false).expect_err("it is too old");
    assert_golden("terraform-too-old", &bench.told(&error));
    let bench = Bench::standing_in(r#"echo '{"terraform_version": "1.9.8"}'"#);
    let program = Program::at(&bench.program).expect("a version");
    program.check(false).expect("new enough for the modules");
    let error = program.check(true).expect_err("too old for a lock file in S3");
    assert_golden("terraform-too-old-for-s3", &bench.told(&error));
    let bench = Bench::standing_in("echo 'I am no Terraform'");
    let error = Program::at(&bench.program).expect_err("no version");
    assert_golden("terraform-says-no-version", &bench.told(&error));
    let error = TerraformError::NotThere { named: None };
    assert_golden("terraform-not-there", &bench.told(&error));
    let error = TerraformError::NotThere { named: Some("/nowhere/terraform".into()) };
    assert_golden("terraform-named-and-not-there", &bench.told(&error));
}

#[test]
fn a_state_that_is_locked() {
    let Some(bench) = Bench::new("a_state_that_is_locked") else { return };
    let terraform = bench.terraform(SLOW, "first");
    terraform.init(&mut |_| {}).expect("init");
    // As another machine would hold it: by a Terraform that sipedge has not started.
    let mut other = Command::new(&bench.program)
        .args(["apply", "-auto-approve", "-input=false", "-no-color"])
        .current_dir(terraform.folder().root_module())
        .env("CHECKPOINT_DISABLE", "1")
        .stdout(fs::File::create(bench.folder.path().join("other.log")).expect("a log"))
        .spawn()
        .expect("it starts");
    let lock = bench.folder.path().join(".terraform.tfstate.lock.info");
    eventually("the other one holds the lock", || lock.exists());
    let error = terraform.plan(false, &mut |_| {}).expect_err("it is locked");
    other.kill().expect("it runs");
    other.wait().expect("it ends");
    let Kind::StateLocked { id, who, operation, .. } = kind(&error) else { panic!("{error}") };
    assert_eq!(operation, "OperationTypeApply");
    assert!(id.len() == 36 && who.contains('@'), "{error}");
    let created = match kind(&error) {
        Kind::StateLocked { created, .. } => created.clone(),
        _ => String::new(),
    };
    let text = bench
        .told(&error)
        .replace(id.as_str(), "LOCK-ID")
        .replace(who.as_str(), "ann@machine")
        .replace(&created, "WHEN");
    assert_golden("state-locked", &errors::without(&text, "Version:"));
}

#[test]
fn a_state_that_cannot_be_read_or_is_too_new() {
    let Some(bench) = Bench::new("a_state_that_cannot_be_read_or_is_too_new") else { return };
    let terraform = bench.terraform(MODULE, "first");
    terraform.init(&mut |_| {}).expect("init");
    fs::write(bench.state(), "{ this is no state").expect("written");
    let error = terraform.plan(false, &mut |_| {}).expect_err("it cannot be read");
    assert_eq!(kind(&error), &Kind::StateUnreadable, "{error}");
    assert_golden("state-unreadable", &bench.told(&error));
    let newer =
        r#"{"version": 5, "terraform_version": "9.9.9", "serial": 1, "lineage": "x", "outputs": {}, "resources": []}"#;
    fs::write(bench.state(), newer).expect("written");
    let error = terraform.plan(false, &mut |_| {}).expect_err("it is too new");
    assert_eq!(kind(&error), &Kind::StateNewer, "{error}");
    assert_golden("state-newer", &bench.told(&error));
}

#[test]
fn a_provider_that_cannot_be_had() {
    let Some(bench) = Bench::new("a_provider_that_cannot_be_had") else { return };
    let far = MODULE.to_owned()
        + "terraform {\n required_providers {\n  far = { source = \"127.0.0.1:1/sipedge/far\" }\n }\n}\nresource \"far_thing\" \"x\" {}\n";
    let error = bench.terraform(&far, "first").init(&mut |_| {}).expect_err("the registry is not there");
    assert_eq!(kind(&error), &Kind::NoNetwork { host: Some("127.0.0.1:1".to_owned()) }, "{error}");
    assert_golden("registry-unreachable", &bench.told(&error));

    let script = "case $1 in version) echo '{\"terraform_version\": \"1.11.4\"}';; *) cat >&2 <<'END'\n╷\n│ Error: Failed to query \
                  available provider packages\n│\n│ Could not retrieve the list of available versions for provider hashicorp/aws: provider\n│ \
                  registry.terraform.io/hashicorp/aws was not found in any of the search locations\n│\n│ - /mirror\n╵\nEND\nexit 1;; esac";
    let bench = Bench::standing_in(script);
    let error = bench.terraform(MODULE, "first").init(&mut |_| {}).expect_err("the mirror lacks it");
    assert_eq!(kind(&error), &Kind::ProviderMissing, "{error}");
    assert_golden("provider-missing", &bench.told(&error));
}

#[test]
fn what_nobody_foresaw_is_shown_verbatim_with_its_address() {
    let Some(bench) = Bench::new("what_nobody_foresaw_is_shown_verbatim_with_its_address") else { return };
    let failing = "variable \"name\" { type = string }\nresource \"terraform_data\" \"x\" {\n  lifecycle {\n    precondition {\n      \
                   condition     = var.name == \"other\"\n      error_message = \"The name is not other.\"\n    }\n  }\n}\n";
    let terraform = bench.terraform(failing, "first");
    terraform.init(&mut |_| {}).expect("init");
    let error = terraform.plan(false, &mut |_| {}).expect_err("the condition fails");
    assert_eq!(kind(&error), &Kind::Other, "{error}");
    assert_golden("anything-else", &bench.told(&error));
}

#[test]
fn output_without_end_is_bounded() {
    let script = "case $1 in version) echo '{\"terraform_version\": \"1.11.4\"}';; *) head -c 30000000 /dev/zero | tr '\\0' x; \
                  i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1;; esac";
    let bench = Bench::standing_in(script);
    let error = bench.terraform(MODULE, "first").init(&mut |_| {}).expect_err("it fails");
    let TerraformError::Failed(failed) = &error else { panic!("{error:?}") };
    assert!(failed.tail.len() <= 2 * 60, "60 lines of each output: {}", failed.tail.len());
    assert!(failed.tail.iter().any(|line| line == "line 1999"), "the last line is kept");
    assert!(error.to_string().len() < 4_000_000, "{}", error.to_string().len());
}

#[test]
fn the_modules_in_the_program_are_those_of_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("terraform");
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    files.sort();
    let embedded = Modules::embedded();
    let names: Vec<&str> = embedded.names().collect();
    assert_eq!(names, files, "a build that is older than a new file in terraform/ does not have it: build anew");
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("terraform/").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["tests", "examples", "mocks", ".terraform"].contains(&name.as_str()) {
                collect(root, &path, files);
            }
        } else if name.ends_with(".tf") || name.ends_with(".tftpl") {
            files.push(path.strip_prefix(root).expect("below").to_string_lossy().into_owned());
        }
    }
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "did not happen within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
