//! The smoke call from outside, in the lab: it passes on a sound edge in both topologies, and each of its checks fails when what it is
//! about is broken in the instances.

#[path = "support/project.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;

use quick_xml::events::Event;
use serde_json::Value;
use support::{Project, faulty_edge, run};

/// Lines of a spec whose carriers are two: none is source and destination at once.
const TWO_CARRIERS: &str = "
version: 1
name: twilio-bridge
aws: { region: us-east-1, profile: default }
trunks:
  source: { from: [198.51.100.0/28] }
  destination: { targets: [\"sip:192.0.2.18:5060\"] }
routes:
  - { from: source, to: destination }
";

#[test]
fn every_check_passes_in_both_topologies() {
    for topology in ["single-ec2", "load-balanced"] {
        let Some(project) = Project::with_lab("every_check_passes_in_both_topologies") else { return };
        project.deploy(topology);
        let arguments = ["verify", "call", "--json", "--junit", "verify.xml", "--html", "verify.html"];
        let report = project.run(&arguments).expect(0).json();
        assert_eq!((&report["passed"], &report["topology"]), (&true.into(), &topology.into()), "{report}");
        let checks = checks(&report);
        assert_eq!(checks.len(), 16, "the carrier is source and destination: {report}");
        assert_eq!(report["calls"][1]["checks"].as_array().map(Vec::len), Some(10), "the operator's call: {report}");
        for check in &checks {
            assert!(check["passed"] == true && check["tried"] == true && check["cause"].is_null(), "{check}");
        }
        let read = |name: &str| fs::read_to_string(project.folder().join(name)).expect("the report is written");
        let operators = report["calls"][1]["checks"].as_array().cloned().unwrap_or_default();
        let all = [checks, operators].concat();
        assert_junit(&read("verify.xml"), 2, &all);
        assert_page(&read("verify.html"), &all);
        project.run(&["destroy"]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn a_call_between_two_carriers_has_one_check_less() {
    for topology in ["single-ec2", "load-balanced"] {
        let Some(project) = Project::with_lab("a_call_between_two_carriers") else { return };
        project.write_spec(TWO_CARRIERS);
        project.deploy(topology);
        let report = project.run(&["verify", "call", "--json"]).expect(0).json();
        let checks = checks(&report);
        assert!(checks.len() == 15 && checks.iter().all(|check| check["id"] != "same-carrier"), "{report}");
        project.run(&["destroy"]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn a_deploy_whose_call_fails_says_so_and_leaves_the_report() {
    let Some(project) = Project::with_lab("a_deploy_whose_call_fails") else { return };
    project.write_spec(&format!("{}\n{NO_ANSWERER}\n", project.spec()));
    let mut command = deploy_faulty(&project, "token-not-checked");
    command.args(["--json", "--junit", "deploy.xml"]);
    let ran = run(command).expect(6);
    let error = ran.json_error();
    assert_eq!(error["step"], "verified-call", "{error}");
    let lines = ran.json_lines();
    let reports: Vec<&Value> = lines.iter().filter(|line| line["event"] == "report").collect();
    assert_eq!(reports.len(), 1, "{}", ran.stdout);
    assert_eq!(failed(&reports[0]["report"]), ["forged-refused"]);
    let junit = fs::read_to_string(project.folder().join("deploy.xml")).expect("the report is written");
    assert_junit(&junit, 1, &checks(&reports[0]["report"]));
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

/// The faulty edge has no answerer.
const NO_ANSWERER: &str = "verify: { answerer: false }";

/// Something that is wrong with the instances.
#[derive(Clone, Copy)]
struct Fault {
    /// Of the faulty edge.
    name: &'static str,
    /// The checks that fail, in the order of the report, those aside that could not be tried.
    fails: &'static [&'static str],
    /// What the cause of the check at hand has to say.
    cause: &'static str,
    /// A line that the spec needs.
    spec: &'static str,
}

const fn fault(name: &'static str, fails: &'static [&'static str], cause: &'static str) -> Fault {
    Fault { name, fails, cause, spec: "" }
}

impl Fault {
    const fn with(self, spec: &'static str) -> Self {
        Self { spec, ..self }
    }
}

/// One test for each check, and the list of those that have one.
macro_rules! each_check_fails {
    ($($test:ident: $check:literal by [$($fault:expr),+ $(,)?];)+) => {
        const CHECKS_WITH_TESTS: &[&str] = &[$($check),+];
        $(
            #[test]
            fn $test() {
                fails(stringify!($test), $check, &[$($fault),+]);
            }
        )+
    };
}

each_check_fails! {
    reached: "reached" by [
        fault("refuses-all", &["reached", "bye-from-callee", "same-carrier", "cancel"], "`from`"),
        fault("refuses-with-404", &["reached", "bye-from-callee", "same-carrier", "cancel"], "no route"),
    ];
    request_uri_rewritten: "request-uri-rewritten" by [
        fault("wrong-domain", &["request-uri-rewritten"], "domain"),
        fault("changes-number", &["request-uri-rewritten"], "number"),
    ];
    forwarded_from: "forwarded-from" by [
        fault("egress-by-ingress", &["forwarded-from", "ack-end-to-end", "bye-from-callee", "same-carrier"], "ingress socket"),
    ];
    via_reply_path: "via-reply-path" by [
        fault("no-advertise", &["via-reply-path", "ack-end-to-end", "bye-from-callee", "same-carrier"], "`advertise`"),
        fault("no-rport", &["via-reply-path", "provisional", "answered", "bye-from-callee", "same-carrier", "cancel"], "rport"),
    ];
    provisional: "provisional" by [
        fault("drops-100", &["provisional"], "does not answer 100 at once"),
        fault("drops-180", &["provisional", "same-carrier", "cancel"], "does not relay"),
    ];
    answered: "answered" by [
        fault("drops-200", &["answered", "bye-from-callee", "same-carrier"], "does not relay"),
        fault("reply-by-egress", &["answered"], "socket"),
    ];
    set_up_delay: "set-up-delay" by [
        fault("slow", &["set-up-delay"], "overloaded").with("verify: { max_setup: 250ms, answerer: false }"),
    ];
    ack_end_to_end: "ack-end-to-end" by [
        fault("drops-ack", &["ack-end-to-end", "bye-from-callee", "same-carrier"], "does not forward the ACK"),
        fault("no-record-route", &["ack-end-to-end", "bye-from-callee"], "no Record-Route"),
    ];
    reinvite: "reinvite" by [fault("drops-reinvite", &["reinvite"], "INVITE within a dialog")];
    forged_refused: "forged-refused" by [
        fault("token-not-checked", &["forged-refused"], "open relay"),
        fault("token-not-bound", &["forged-refused"], "open relay"),
        fault("no-token", &["forged-refused"], "signs nothing"),
        fault("token-not-checked", &["forged-refused"], "open relay").with("refuse: silence"),
    ];
    bye_from_caller: "bye-from-caller" by [
        fault("drops-bye-from-caller", &["bye-from-caller"], "BYE of the caller"),
    ];
    bye_from_callee: "bye-from-callee" by [
        fault("drops-bye-from-callee", &["bye-from-callee", "same-carrier"], "BYE of the callee"),
    ];
    same_carrier: "same-carrier" by [
        fault("egress-by-ingress", &["forwarded-from", "ack-end-to-end", "bye-from-callee", "same-carrier"], "ingress socket"),
    ];
    cancel: "cancel" by [
        fault("drops-cancel", &["cancel"], "does not send CANCEL on"),
        fault("drops-487", &["cancel"], "does not relay"),
    ];
    max_forwards: "max-forwards" by [fault("ignores-max-forwards", &["max-forwards"], "Max-Forwards")];
    stranger_refused: "stranger-refused" by [
        fault("open-list", &["stranger-refused"], "narrow the trunks' `from`"),
        fault("open-list", &["stranger-refused"], "narrow the trunks' `from`").with("refuse: silence"),
    ];
}

#[test]
fn every_check_has_a_test_that_breaks_what_it_is_about() {
    let Some(project) = Project::with_lab("every_check_has_a_test") else { return };
    // Those of the operator's call are broken in `tests/verify_operator.rs`.
    project.write_spec(&format!("{}\n{NO_ANSWERER}\n", project.spec()));
    project.deploy("load-balanced");
    let report = project.run(&["verify", "call", "--json"]).expect(0).json();
    let known = checks(&report);
    let known: BTreeSet<&str> = known.iter().filter_map(|check| check["id"].as_str()).collect();
    assert_eq!(known, CHECKS_WITH_TESTS.iter().copied().collect());
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

/// Asserts that each fault makes `check` fail for the cause that it is.
fn fails(test: &str, check: &str, faults: &[Fault]) {
    // Side by side, since a failing check waits for what does not come.
    std::thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || fails_by(test, check, fault));
        }
    });
}

fn fails_by(test: &str, check: &str, fault: &Fault) {
    let Some(project) = Project::with_lab(test) else { return };
    let verify = if fault.spec.starts_with("verify:") { "" } else { NO_ANSWERER };
    project.write_spec(&format!("{}\n{verify}\n{}\n", project.spec(), fault.spec));
    // The same program without the fault passes: it is the fault that the check finds.
    run(deploy_faulty(&project, "")).expect(0);
    fs::write(project.folder().join("faults"), fault.name).expect("the fault can be written");
    replace_instance(&project);
    assert_fails(&project, fault.name, check, fault.fails, fault.cause);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

/// A deploy of one faulty edge, which reads the file `faults` in the project's folder when it boots. One instance, so that all calls meet.
fn deploy_faulty(project: &Project, faults: &str) -> std::process::Command {
    let file = project.folder().join("faults");
    fs::write(&file, faults).expect("the faults can be written");
    let start = format!("exec '{}' \"$@\" --faults \"$(cat '{}')\"", faulty_edge().display(), file.display());
    let mut command = project.command(&["deploy", "load-balanced", "--target", "lab", "--instances", "1"]);
    command.env("SIPEDGE_PROXY", project.script("faulty-proxy", &start));
    command
}

/// Changes the text of user-data.
type Edit = fn(&str) -> String;

/// The proxy as it is, with user-data in which something is wrong.
struct Misconfiguration {
    topology: &'static str,
    edit: Edit,
    check: &'static str,
    fails: &'static [&'static str],
    cause: &'static str,
}

impl Misconfiguration {
    #[track_caller]
    fn is_found(&self, test: &str) {
        let Some(project) = Project::with_lab(test) else { return };
        project.run(&["deploy", self.topology, "--target", "lab", "--instances", "1"]).expect(0);
        let file = project.state(self.topology).join("lab/user-data");
        let before = fs::read_to_string(&file).expect("the user-data can be read");
        let after = (self.edit)(&before);
        assert_ne!(before, after, "{test} changes nothing");
        fs::write(&file, after).expect("the user-data can be written");
        replace_instance(&project);
        assert_fails(&project, test, self.check, self.fails, self.cause);
        project.run(&["destroy"]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn the_private_address_advertised() {
    // The replaced text has to be there in the one, and is not there in the other.
    let edits: [(&str, Edit); 2] = [
        ("single-ec2", |text| text.replace("advertise: metadata", "advertise: listen")),
        ("load-balanced", |text| text.replace("advertise: !host 203.0.113.10", "advertise: listen")),
    ];
    for (topology, edit) in edits {
        let fails = &["via-reply-path", "ack-end-to-end", "bye-from-callee", "same-carrier"];
        let cause = "set `advertise` to its public address 203.0.113.";
        Misconfiguration { topology, edit, check: "via-reply-path", fails, cause }
            .is_found("the_private_address_advertised");
    }
}

#[test]
fn strangers_admitted() {
    for topology in ["load-balanced", "single-ec2"] {
        let edit = |text: &str| text.replace("  from:\n", "  from:\n  - 0.0.0.0/0\n");
        let fails = &["stranger-refused"];
        let cause = "198.18.0.1:5060, which is in no carrier's range: narrow";
        Misconfiguration { topology, edit, check: "stranger-refused", fails, cause }.is_found("strangers_admitted");
    }
}

#[test]
fn strangers_refused_in_another_way_than_planned() {
    let edit = |text: &str| text.replace("refuse: answer", "refuse: silence");
    let (fails, cause) = (&["stranger-refused"], "does not do what `refuse` in its configuration says");
    Misconfiguration { topology: "single-ec2", edit, check: "stranger-refused", fails, cause }
        .is_found("strangers_refused_in_another_way_than_planned");
}

#[test]
fn a_target_without_the_domain() {
    let edit = |text: &str| text.replace("sip:your-account.sip.twilio.com", "sip:192.0.2.1");
    let (fails, cause) = (&["request-uri-rewritten"], "domain or target differs");
    Misconfiguration { topology: "load-balanced", edit, check: "request-uri-rewritten", fails, cause }
        .is_found("a_target_without_the_domain");
}

#[test]
fn a_domain_that_nobody_has() {
    let edit = |text: &str| text.replace("sip:your-account.sip", "sip:your-acount.sip");
    let fails = &["reached", "bye-from-callee", "same-carrier", "cancel"];
    Misconfiguration {
        topology: "load-balanced",
        edit,
        check: "reached",
        fails,
        cause: "no address for the destination's domain",
    }
    .is_found("a_domain_that_nobody_has");
}

#[test]
fn the_callers_range_left_out() {
    let edit = |text: &str| text.replace("  - 192.0.2.4/30\n", "");
    let fails = &["reached", "bye-from-callee", "cancel", "max-forwards"];
    Misconfiguration {
        topology: "load-balanced",
        edit,
        check: "reached",
        fails,
        cause: "192.0.2.5: add it to the source trunk's `from`",
    }
    .is_found("the_callers_range_left_out");
}

#[test]
fn one_port_in_both_roles_behind_nat() {
    let edit = |text: &str| text.replace("egress_port: 5080", "egress_port: 5060");
    let fails = &["forwarded-from", "ack-end-to-end", "bye-from-callee", "same-carrier"];
    let cause = "ingress socket: they have to leave by the egress port";
    Misconfiguration { topology: "load-balanced", edit, check: "same-carrier", fails, cause }
        .is_found("one_port_in_both_roles_behind_nat");
}

#[test]
fn a_trunk_that_admits_no_call() {
    let edit = |text: &str| text.replace("limits: {}", "limits: { calls: 0 }");
    let fails = &["reached", "bye-from-callee", "same-carrier", "cancel"];
    Misconfiguration { topology: "single-ec2", edit, check: "reached", fails, cause: "a limit of the trunk" }
        .is_found("a_trunk_that_admits_no_call");
}

/// Kills the instance and boots another one in its place.
#[track_caller]
fn replace_instance(project: &Project) {
    project.run(&["lab", "kill", "i-1"]).expect(0);
    project.run(&["lab", "add"]).expect(0);
}

/// Asserts that the smoke call fails, that the checks which fail are `fails`, and that `check`, one of them, gives this cause.
#[track_caller]
fn assert_fails(project: &Project, what: &str, check: &str, fails: &[&str], cause: &str) {
    let ran = project.run(&["verify", "call", "--json"]).expect(6);
    let report = ran.json();
    assert_eq!(report["passed"], false, "{what}");
    let all = checks(&report);
    let brief: Vec<String> = all
        .iter()
        .filter(|check| check["passed"] != true)
        .map(|check| format!("{}: {} | {} | {}", check["id"], check["expected"], check["came"], check["cause"]))
        .collect();
    assert_eq!(failed(&report), fails, "{what}:\n{}", brief.join("\n"));
    let found = all.iter().find(|found| found["id"] == check).unwrap_or_else(|| panic!("{what}: no check {check}"));
    assert!(found["passed"] == false && found["tried"] == true, "{what}: {found}");
    assert!(found["expected"].is_string() && found["came"].is_string(), "{what}: {found}");
    assert!(found["cause"].as_str().is_some_and(|text| text.contains(cause)), "{what}: no {cause:?} in {found}");
}

/// The checks of the report's call from carrier to carrier. (The operator's is looked at in `verify_operator.rs`.)
fn checks(report: &Value) -> Vec<Value> {
    let calls = report["calls"].as_array().cloned().unwrap_or_default();
    let calls: Vec<&Value> = calls.iter().filter(|call| call["from"] != "operator").collect();
    assert_eq!(calls.len(), 1, "{report}");
    calls[0]["checks"].as_array().cloned().unwrap_or_default()
}

/// The ids of the checks that were tried and failed.
fn failed(report: &Value) -> Vec<String> {
    let failed = checks(report).into_iter().filter(|check| check["tried"] == true && check["passed"] == false);
    failed.filter_map(|check| check["id"].as_str().map(str::to_owned)).collect()
}

/// Asserts that a JUnit file is well-formed and has a suite for each of so many calls, a case for each check, and a failure in each of
/// those that failed.
#[track_caller]
fn assert_junit(text: &str, calls: usize, checks: &[Value]) {
    let elements = elements(text, &[]);
    let named = |name: &str| elements.iter().filter(|element| *element == name).count();
    let with = |tried: bool| checks.iter().filter(|check| check["passed"] == false && check["tried"] == tried).count();
    assert_eq!(elements.first().map(String::as_str), Some("testsuites"));
    assert_eq!((named("testsuite"), named("testcase")), (calls, checks.len()), "{text}");
    assert_eq!((named("failure"), named("error")), (with(true), with(false)), "{text}");
    assert!(checks.iter().all(|check| text.contains(check["id"].as_str().expect("an id"))), "{text}");
}

/// Asserts that an HTML page is well-formed, shows every check and a ladder, and needs nothing from outside.
#[track_caller]
fn assert_page(text: &str, checks: &[Value]) {
    let elements = elements(text, &["meta", "br", "hr", "img", "input", "link"]);
    for name in ["html", "title", "svg", "table"] {
        assert!(elements.iter().any(|element| element == name), "no {name} in {elements:?}");
    }
    for name in ["script", "link", "img", "iframe"] {
        assert!(elements.iter().all(|element| element != name), "{name} in {elements:?}");
    }
    assert!(!text.contains("url(") && !text.contains("@import"), "it loads something");
    assert!(checks.iter().all(|check| text.contains(check["id"].as_str().expect("an id"))), "a check is missing");
}

/// The names of a document's elements in their order. Fails unless each is closed where it has to be; those of `void` are not closed.
#[track_caller]
fn elements(text: &str, void: &[&str]) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_str(text);
    reader.config_mut().check_end_names = false;
    let (mut names, mut open) = (Vec::new(), Vec::new());
    loop {
        let place = reader.buffer_position();
        let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match reader.read_event().unwrap_or_else(|error| panic!("at {place}: {error}")) {
            Event::Start(start) => {
                let name = name(start.name().as_ref());
                if !void.contains(&name.as_str()) {
                    open.push(name.clone());
                }
                names.push(name);
            }
            Event::Empty(empty) => names.push(name(empty.name().as_ref())),
            Event::End(end) => {
                let name = name(end.name().as_ref());
                assert_eq!(open.pop(), Some(name), "closed at {place}");
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    names
}
