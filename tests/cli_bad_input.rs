//! Each kind of bad input has its exit code and an answer that says what to do; nothing panics, nothing is created.

#[path = "support/project.rs"]
mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use support::{Project, run};

#[test]
fn mistakes_on_the_command_line_exit_with_2() {
    let project = Project::new();
    let wrong: [&[&str]; 8] = [
        &["deploi"],
        &["deploy"],
        &["deploy", "single"],
        &["deploy", "single-ec2", "--target", "azure"],
        &["deploy", "single-ec2", "--target", "lab", "--instances", "0"],
        &["deploy", "single-ec2", "--target", "lab", "--instances", "many"],
        &["lab", "exec", "twilio"],
        &["completions", "tcsh"],
    ];
    for arguments in wrong {
        let ran = project.run(arguments).expect(2);
        assert!(ran.stdout.is_empty(), "{}: errors are not for standard output: {}", ran.command, ran.stdout);
        assert!(ran.stderr.contains("error:"), "{}: {}", ran.command, ran.stderr);
    }
    project.assert_no_trace();
}

#[test]
fn no_command_shows_the_help() {
    for arguments in [&[][..], &["verify"], &["lab"]] {
        let ran = Project::new().run(arguments).expect(2);
        assert!(ran.stderr.contains("Usage: sipedge"), "{}: {}", ran.command, ran.stderr);
    }
}

#[test]
fn with_json_a_mistake_on_the_command_line_is_one_object() {
    for arguments in [&["deploy", "single", "--json"][..], &["deploy", "--json"], &["--json", "lab"]] {
        let ran = Project::new().run(arguments).expect(2);
        let error = ran.json_error();
        assert_eq!(error["kind"], "usage");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && !message.contains('\n'), "one line: {message}");
        assert!(!message.starts_with("error") && !message.contains("Usage"), "what is wrong alone: {message}");
    }
}

#[test]
fn arguments_need_not_be_utf_8() {
    let project = Project::new();
    let odd = OsStr::from_bytes(b"\xff.yaml");
    for arguments in [&["deploy", "--target", "lab"][..], &["--json", "verify"]] {
        let mut command = project.command(arguments);
        command.arg(odd);
        let ran = run(command).expect(2);
        assert!(ran.stderr.contains("error"), "{}: {}", ran.command, ran.stderr);
    }
    for arguments in [&["init", "--json"][..], &["check", "--json"], &["plan", "--json"]] {
        let mut command = project.command(arguments);
        command.arg("--spec").arg(odd);
        run(command).expect(0).json();
    }
    let mut command = project.command(&["plan", "--json", "--out"]);
    command.arg(OsStr::from_bytes(b"\xff-folder"));
    run(command).expect(0).json();
}

#[test]
fn what_to_type_next_names_the_spec() {
    let project = Project::new();
    fs::create_dir(project.folder().join("my edge")).expect("create");
    project.run(&["init", "--spec", "my edge/sip.yaml"]).expect(0);
    let next = |arguments: &[&str], code| {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json", "--spec", "my edge/sip.yaml"]).collect();
        let error = project.run(&arguments).expect(code).json_error();
        error["next"][0]["command"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(next(&["init"], 2), "sipedge init --force --spec 'my edge/sip.yaml'");
    assert_eq!(next(&["status"], 7), "sipedge deploy load-balanced --target lab --spec 'my edge/sip.yaml'");
    let deploy = ["deploy", "single-ec2", "--target", "lab"];
    let (code, then) = if cfg!(feature = "aws") { (2, "--yes") } else { (4, "--target lab") };
    assert_eq!(next(&deploy[..2], code), format!("sipedge deploy single-ec2 {then} --spec 'my edge/sip.yaml'"));
    let fails: Vec<&str> = deploy.into_iter().chain(["--instances", "2"]).collect();
    assert_eq!(next(&fails, 2), "sipedge deploy single-ec2 --target lab --spec 'my edge/sip.yaml'");
    project.run(&["destroy", "--spec", "my edge/sip.yaml"]).expect(0);
}

#[test]
fn check_and_plan_warn_of_the_domain_of_the_examples() {
    let project = Project::new();
    let checked = project.run(&["check"]).expect(0).stdout;
    let warning = checked.lines().next().unwrap_or_default();
    assert!(warning.starts_with("warning: sipedge.yaml:") && warning.contains("that of the examples"), "{checked}");
    let planned = project.run(&["plan", "single-ec2"]).expect(0).stdout;
    assert_eq!(planned.matches("that of the examples").count(), 1, "{planned}");
    let lab = project.run(&["plan", "single-ec2", "--target", "lab"]).expect(0).stdout;
    assert!(!lab.contains("that of the examples"), "the lab has its own domains: {lab}");
    project.write_spec(&project.spec().replace("your-account.sip", "mine.sip"));
    let checked = project.run(&["check"]).expect(0).stdout;
    assert!(!checked.contains("that of the examples"), "{checked}");
}

#[test]
fn a_missing_spec_is_named() {
    let project = Project::new();
    for command in [&["check"][..], &["plan"], &["deploy", "single-ec2", "--target", "lab"], &["status"], &["destroy"]]
    {
        let arguments: Vec<&str> = command.iter().copied().chain(["--spec", "missing.yaml"]).collect();
        let ran = project.run(&arguments).expect(3);
        assert!(ran.stderr.contains("missing.yaml"), "{}: {}", ran.command, ran.stderr);
    }
    project.assert_no_trace();
}

#[test]
fn a_spec_with_mistakes_is_refused_by_each_command_that_plans() {
    let project = Project::new();
    project.write_spec(&project.spec().replace("routes:", "rutes:"));
    for arguments in [&["check"][..], &["plan"], &["deploy", "load-balanced", "--target", "lab"]] {
        let ran = project.run(arguments).expect(3);
        assert!(ran.stderr.contains("sipedge.yaml"), "{}: {}", ran.command, ran.stderr);
        assert!(ran.stderr.contains("rutes"), "{}: {}", ran.command, ran.stderr);
    }
    let error = project.run(&["check", "--json"]).expect(3).json_error();
    assert_eq!(error["kind"], "spec-refused");
    assert!(error["spec_errors"].is_object(), "{error}");
    project.assert_no_trace();
}

#[test]
fn with_json_each_command_that_plans_reports_the_mistakes_as_one_object() {
    let project = Project::new();
    project.write_spec(&project.spec().replace("routes:", "rutes:").replace("version: 1", "version: 7"));
    for arguments in [&["check"][..], &["plan"], &["plan", "single-ec2"], &["deploy", "single-ec2", "--target", "lab"]]
    {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let ran = project.run(&arguments).expect(3);
        assert!(ran.stdout.is_empty(), "{}: {}", ran.command, ran.stdout);
        let error = ran.json_error();
        assert_eq!(error["kind"], "spec-refused", "{error}");
        let text = error["spec_errors"].to_string();
        assert!(text.contains("rutes") && text.contains("version"), "all mistakes at once: {error}");
    }
    let error = project.run(&["check", "--json", "--spec", "missing.yaml"]).expect(3).json_error();
    assert!(error.to_string().contains("missing.yaml"), "{error}");
    project.assert_no_trace();
}

#[test]
fn more_instances_than_the_group_has_are_refused() {
    let project = Project::new();
    let ran = project.run(&["deploy", "single-ec2", "--target", "lab", "--instances", "2", "--json"]).expect(2);
    let error = ran.json_error();
    assert_eq!(error["step"], "plan");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("scaling.max")), "{error}");
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn init_does_not_overwrite_unless_told() {
    let project = Project::with_spec("mine");
    let ran = project.run(&["init"]).expect(2);
    assert!(ran.stderr.contains("--force"), "{}", ran.stderr);
    assert_eq!(project.spec(), "mine");
    project.run(&["init", "--force"]).expect(0);
    assert_ne!(project.spec(), "mine");
    project.run(&["check"]).expect(0);
}

#[test]
fn what_needs_a_deployed_edge_says_that_there_is_none() {
    let project = Project::new();
    let commands: [&[&str]; 8] = [
        &["status"],
        &["verify", "call"],
        &["verify", "call", "--topology", "single-ec2"],
        &["lab", "exec", "twilio", "--", "true"],
        &["lab", "instances"],
        &["lab", "add"],
        &["lab", "kill", "i-1"],
        &["lab", "flush"],
    ];
    for arguments in commands {
        let ran = project.run(arguments).expect(7);
        assert!(ran.stderr.contains("not deployed"), "{}: {}", ran.command, ran.stderr);
        assert!(ran.stderr.contains("sipedge deploy"), "{}: it says what to type: {}", ran.command, ran.stderr);
        let with_json: Vec<&str> = ["--json"].into_iter().chain(arguments.iter().copied()).collect();
        assert_eq!(project.run(&with_json).expect(7).json_error()["kind"], "nothing-deployed");
    }
    project.assert_no_trace();
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let project = Project::new();
    for arguments in [&["plan"][..], &["schema"], &["completions", "bash"], &["--help"]] {
        let mut command = project.command(arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        assert!(stderr.is_empty(), "{arguments:?}: {stderr}");
    }
}

#[test]
fn files_that_cannot_be_written_are_named() {
    let project = Project::new();
    fs::write(project.folder().join("taken"), "").expect("write");
    let ran = project.run(&["plan", "single-ec2", "--out", "taken"]).expect(1);
    assert!(ran.stderr.contains("taken"), "{}", ran.stderr);
}

#[test]
fn a_file_in_place_of_the_state_of_all_edges_is_not_touched() {
    let project = Project::new();
    let file = project.folder().join(".sipedge");
    fs::write(&file, "something else").expect("write");
    let ran = project.run(&["deploy", "single-ec2", "--target", "lab"]).expect(9);
    assert!(ran.stderr.contains(".sipedge"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&file).expect("it is still there"), "something else");
    fs::remove_file(&file).expect("remove");
}

#[test]
fn plan_writes_the_files_of_each_topology_and_creates_no_state() {
    let project = Project::new();
    let own = project.folder().join("rendered/single-ec2/own.tf");
    fs::create_dir_all(own.parent().expect("a folder")).expect("create");
    fs::write(&own, "mine").expect("write");
    let plans = project.run(&["plan", "--out", "rendered", "--json"]).expect(0).json();
    project.run(&["plan", "--out", "rendered"]).expect(0);
    assert_eq!(fs::read_to_string(&own).expect("what is not sipedge's stays"), "mine");
    for (index, topology) in ["load-balanced", "single-ec2"].into_iter().enumerate() {
        assert_eq!(plans["plans"][index]["written"], format!("rendered/{topology}"));
        let folder = project.folder().join("rendered").join(topology);
        let sheet = folder.join("hand-off.md");
        let mode =
            fs::metadata(&sheet).unwrap_or_else(|error| panic!("{}: {error}", sheet.display())).permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }
    project.assert_no_trace();
}
