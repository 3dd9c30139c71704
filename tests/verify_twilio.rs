//! A call by Twilio's API: against a stand-in that speaks the API and places the SIP call into the lab, and its failures.

#[path = "support/project.rs"]
mod support;
#[path = "support/twilio.rs"]
mod twilio;

use std::time::{Duration, Instant};

use serde_json::Value;
use sipedge::plan::{Endpoint, TargetKind, Topology, plan};
use sipedge::spec::{Loaded, Spec};
use sipedge::target::lab::Lab;
use sipedge::verify::agent::{Agent, Call, End, Invite, Settings};
use sipedge::verify::trace::Trace;
use sipedge::verify::twilio::{Account, Pace, run};
use sipedge::verify::{Check, Report};
use support::{Project, repository};
use twilio::{SID, StandIn, TOKEN, answer, call};

const PACE: Pace = Pace {
    answer: Duration::from_millis(500),
    poll: Duration::from_millis(20),
    ring: Duration::from_millis(700),
    talk: Duration::from_millis(20),
    end: Duration::from_millis(700),
};

fn account(base: &str) -> Account {
    let base = base.to_owned();
    let variable = move |name: &str| {
        Some(match name {
            "TWILIO_ACCOUNT_SID" => SID.to_owned(),
            "TWILIO_AUTH_TOKEN" => TOKEN.to_owned(),
            "TWILIO_FROM" => "+15005550006".to_owned(),
            "TWILIO_TO" => "+15551234567".to_owned(),
            "TWILIO_API_BASE" => base.clone(),
            _ => return None,
        })
    };
    Account::from_environment(variable).expect("a sound account")
}

fn loaded() -> Loaded {
    let spec = std::fs::read_to_string(repository().join("examples/carrier-bridge.yaml")).expect("the example");
    Spec::parse("sipedge.yaml", &spec).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The report of a call whose API answers with these statuses, one after the other; the last stays.
fn report(base: &str) -> Report {
    let plan = plan(&loaded(), Topology::LoadBalanced, TargetKind::Aws).expect("a plan");
    let report = run(&plan, &account(base), PACE, "2026-01-01T00:00:00Z");
    for text in [
        sipedge::verify::report::json(&report),
        sipedge::verify::report::terminal(&report),
        sipedge::verify::report::junit(&report),
        sipedge::verify::report::html(&report).expect("a page"),
    ] {
        assert!(!text.contains(TOKEN), "a secret in {text}");
    }
    report
}

fn checks(report: &Report) -> &[Check] {
    &report.calls[0].checks
}

/// Id, came and cause of the only check that was tried and failed.
#[track_caller]
fn failed(report: &Report) -> (&str, &str, &str) {
    let all = checks(report);
    let failed: Vec<&Check> = all.iter().filter(|check| check.tried && !check.passed).collect();
    assert!(!report.passed);
    let first = failed.first().unwrap_or_else(|| panic!("nothing failed: {all:#?}"));
    (&first.id, first.came.as_deref().unwrap_or_default(), first.cause.as_deref().unwrap_or_default())
}

fn scripted(statuses: &'static [&'static str]) -> StandIn {
    let mut looks = 0;
    StandIn::start(move |request| {
        if request.method == "POST" && request.path.ends_with("Calls.json") {
            return answer(201, &call("queued"));
        }
        if request.body.contains("Status=completed") {
            let is_over = statuses.last().is_some_and(|last| ["busy", "failed", "no-answer"].contains(last));
            return answer(200, &call(if is_over { statuses[statuses.len() - 1] } else { "completed" }));
        }
        let status = statuses[looks.min(statuses.len() - 1)];
        looks += 1;
        answer(200, &call(status))
    })
}

#[test]
fn a_call_that_is_answered_passes_and_each_status_has_its_time() {
    let stand_in = scripted(&["queued", "initiated", "ringing", "ringing", "in-progress"]);
    let report = report(&stand_in.base);
    assert!(report.passed, "{report:#?}");
    let ids: Vec<&str> = checks(&report).iter().map(|check| check.id.as_str()).collect();
    assert_eq!(ids, ["call-accepted", "ringing", "answered", "completed"]);
    let note = checks(&report)[2].note.clone().expect("statuses");
    let statuses: Vec<&str> = note.split(" → ").map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(statuses, ["queued", "initiated", "ringing", "in-progress", "completed"], "{note}");
    let requests = stand_in.requests();
    let first = &requests[0];
    assert_eq!(first.path, format!("/2010-04-01/Accounts/{SID}/Calls.json"));
    for field in ["From=%2B15005550006", "To=%2B15551234567", "Twiml=%3CResponse%3E"] {
        assert!(first.body.contains(field), "{}", first.body);
    }
    assert!(requests.iter().all(|request| request.is_authorized), "basic authentication on each");
    assert!(requests.iter().any(|request| request.method == "POST" && request.body == "Status=completed"));
}

#[test]
fn a_call_that_nobody_takes_fails_by_twilios_own_word() {
    for (statuses, came, cause) in [
        (&["queued", "ringing", "busy"][..], "the status busy", "486"),
        (&["queued", "failed"], "the status failed", "did not reach the edge"),
        (&["ringing", "no-answer"], "the status no-answer", "nobody answered"),
        (&["ringing", "\u{1b}[31mhacked\u{7}"], "the status ", "does not know"),
    ] {
        let statuses: &'static [&'static str] = Box::leak(statuses.to_vec().into_boxed_slice());
        let report = report(&scripted(statuses).base);
        let last = statuses[statuses.len() - 1];
        let (_, text, why) = failed(&report);
        assert!(text.starts_with(came) && !text.contains(char::is_control), "{last}: {text}");
        assert!(why.contains(cause), "{last}: {why}");
        let answered = checks(&report).iter().find(|check| check.id == "answered").expect("the check");
        assert!(!answered.passed && answered.tried);
    }
}

#[test]
fn a_call_that_rings_for_ever_is_cancelled() {
    let stand_in = scripted(&["ringing"]);
    let (report, began) = (report(&stand_in.base), Instant::now());
    assert!(began.elapsed() < Duration::from_secs(5));
    let (id, came, cause) = failed(&report);
    assert_eq!(id, "answered");
    assert!(came.contains("ringing") && cause.contains("nobody answers"), "{came}, {cause}");
    assert!(stand_in.requests().iter().any(|request| request.body == "Status=completed"), "it is not left behind");
}

#[test]
fn what_the_api_refuses_is_said_with_its_code_and_what_to_do() {
    let problem = |code: u32, message: &str| {
        serde_json::json!({
            "code": code, "message": message, "status": 400,
            "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
        })
        .to_string()
    };
    for (status, body, text, cause) in [
        (401, problem(20_003, "Authenticate"), "HTTP 401, error 20003: Authenticate", "TWILIO_AUTH_TOKEN"),
        (403, "{}".to_owned(), "HTTP 403", "one active account"),
        (400, problem(21_211, "The 'To' number is not valid"), "https://www.twilio.com/docs/errors/21211", "TWILIO_TO"),
        (400, problem(21_212, "The 'From' number is not valid"), "error 21212", "TWILIO_FROM"),
        (400, problem(21_219, "unverified"), "error 21219", "trial account"),
        (400, problem(21_215, "geo"), "error 21215", "geographic permissions"),
        (429, problem(20_429, "Too Many Requests"), "error 20429", "wait a minute"),
        (500, problem(20_500, "Internal"), "HTTP 500", "problem of its own"),
        (302, "moved".to_owned(), "HTTP 302", "captive portal"),
        (200, "<html>Log in to the hotel's network</html>".to_owned(), "Log in to the hotel", "captive portal"),
        (201, "{\"sid\": \"../../etc\", \"status\": \"queued\"}".to_owned(), "what is no call", "captive portal"),
        (201, "\u{0}".repeat(200_000), "what is no call", "captive portal"),
    ] {
        let stand_in = StandIn::start(move |_| answer(status, &body));
        let report = report(&stand_in.base);
        let (id, came, why) = failed(&report);
        assert_eq!(id, "call-accepted", "{status}");
        assert!(came.contains(text), "{status}: {came}");
        assert!(why.contains(cause), "{status}: {why}");
        assert_eq!(stand_in.requests().len(), 1, "{status}: there is no call to follow");
    }
}

#[test]
fn an_api_that_is_away_or_slow_is_told_apart_from_one_that_refuses() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address").port();
    let away = report(&format!("http://127.0.0.1:{port}"));
    let (id, came, cause) = failed(&away);
    assert_eq!(id, "call-accepted");
    assert!(came.contains("is not reached") && came.contains(&port.to_string()) && !came.contains(SID), "{came}");
    assert!(cause.contains("no network"), "{cause}");

    let slow = StandIn::start(|_| {
        std::thread::sleep(Duration::from_secs(2));
        answer(201, &call("queued"))
    });
    let slow = report(&slow.base);
    assert!(failed(&slow).1.contains("is not reached"), "{:?}", failed(&slow));
}

#[test]
fn one_look_that_fails_does_not_end_a_call_that_goes_on() {
    let mut looks = 0;
    let stand_in = StandIn::start(move |request| {
        looks += 1;
        match looks {
            1 => answer(201, &call("queued")),
            2 | 3 => answer(503, "overloaded"),
            _ if request.body.contains("Status") => answer(200, &call("completed")),
            _ => answer(200, &call("in-progress")),
        }
    });
    assert!(report(&stand_in.base).passed);
    let mut looks = 0;
    let stand_in = StandIn::start(move |request| {
        looks += 1;
        match looks {
            1 => answer(201, &call("queued")),
            _ if request.body.contains("Status") => answer(200, &call("canceled")),
            _ => answer(503, "overloaded"),
        }
    });
    let report = report(&stand_in.base);
    assert_eq!(failed(&report).0, "ringing");
    assert!(stand_in.requests().iter().any(|request| request.body == "Status=completed"));
}

#[test]
fn a_call_that_could_not_be_hung_up_is_hung_up_again() {
    let mut tries = 0;
    let stand_in = StandIn::start(move |request| {
        if request.body.contains("Status=completed") {
            tries += 1;
            return if tries < 3 { answer(503, "overloaded") } else { answer(200, &call("completed")) };
        }
        answer(if request.method == "POST" { 201 } else { 200 }, &call("in-progress"))
    });
    let report = report(&stand_in.base);
    assert!(report.passed, "{report:#?}");
    let told = stand_in.requests().iter().filter(|request| request.body == "Status=completed").count();
    assert_eq!(told, 3, "and no more once it was heard");
}

#[test]
fn the_command_needs_its_environment_and_prints_no_secret() {
    let project = Project::new();
    let mut command = project.command(&["verify", "call", "--carrier", "twilio", "--json"]);
    for name in ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_API_KEY", "TWILIO_FROM", "TWILIO_TO"] {
        command.env_remove(name);
    }
    let error = support::run(command).expect(2).json_error();
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("TWILIO_ACCOUNT_SID") && message.contains("TWILIO_TO"), "{message}");

    let stand_in = StandIn::start(|_| answer(401, "{\"code\": 20003, \"message\": \"Authenticate\"}"));
    let mut command = project.command(&["verify", "call", "--carrier", "twilio"]);
    command.env("TWILIO_ACCOUNT_SID", SID).env("TWILIO_AUTH_TOKEN", TOKEN).env("TWILIO_FROM", "+15005550006");
    command.env("TWILIO_TO", "+15551234567").env("TWILIO_API_BASE", &stand_in.base).env_remove("TWILIO_API_KEY");
    let ran = support::run(command).expect(6);
    assert!(ran.stdout.contains("error 20003") && ran.stdout.contains("✗ call-accepted"), "{}", ran.stdout);
    assert!(!ran.stdout.contains(TOKEN) && !ran.stderr.contains(TOKEN));
}

#[test]
fn a_call_that_the_stand_in_places_into_the_lab_goes_through_the_edge() {
    let Some(project) = Project::with_lab("a_call_that_the_stand_in_places") else { return };
    project.deploy("load-balanced");
    let folder = project.state("load-balanced").join("lab");
    let lab = Lab::attach(&folder).expect("the lab").expect("it runs");
    let lab_plan = plan(&loaded(), Topology::LoadBalanced, TargetKind::Lab).expect("a plan");
    let smoke = lab_plan.verify.calls.first().expect("a route").clone();
    let ingress = *lab.status().expect("status").ingress_addresses.first().expect("an ingress address");
    let edge = (ingress, lab_plan.proxy.listen.ingress_port).into();
    let socket = |place: &Endpoint| lab.udp_socket(&place.namespace, place.address).expect("a socket in the lab");
    let sockets = (socket(&smoke.caller), smoke.callee.iter().map(socket).collect::<Vec<_>>());

    // Twilio's part: the call of the API is a SIP call from the carrier's address, in a thread of its own.
    let (say, statuses) = std::sync::mpsc::channel();
    let (hang_up, hung_up) = tokio::sync::oneshot::channel::<()>();
    let mut start = Some((sockets, hung_up, say));
    let mut hang_up = Some(hang_up);
    let mut status = "queued".to_owned();
    let stand_in = StandIn::start(move |request| {
        if let Some((sockets, hung_up, say)) = start.take() {
            let number = smoke.number.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let trace = Trace::new();
                    let agent = |socket| Agent::new(socket, Settings::default(), &trace).expect("an agent");
                    let (caller, callees) = (agent(sockets.0), sockets.1.into_iter().map(agent).collect::<Vec<_>>());
                    let _ = say.send("ringing");
                    let placed = Call::place(&caller, &callees, &Invite::new(edge, &number)).await;
                    let _ = say.send(if placed.is_ok() { "in-progress" } else { "failed" });
                    if let Ok(up) = placed {
                        let _ = hung_up.await;
                        let ended = up.hang_up(End::Caller).await;
                        let _ = say.send(if ended.is_ok() { "completed" } else { "failed" });
                    }
                });
            });
            return answer(201, &call("queued"));
        }
        if request.body.contains("Status=completed")
            && let Some(hang_up) = hang_up.take()
        {
            let _ = hang_up.send(());
        }
        if let Some(last) = statuses.try_iter().last() {
            status = last.to_owned();
        }
        answer(200, &call(&status))
    });
    let pace = Pace { ring: Duration::from_secs(8), end: Duration::from_secs(8), ..PACE };
    let report = run(&lab_plan, &account(&stand_in.base), pace, "2026-01-01T00:00:00Z");
    assert!(report.passed, "{report:#?}");
    let json: Value = serde_json::from_str(&sipedge::verify::report::json(&report)).expect("JSON");
    let note = json["calls"][0]["checks"][2]["note"].as_str().expect("statuses").to_owned();
    assert!(note.contains("in-progress") && note.contains("completed"), "{note}");
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
