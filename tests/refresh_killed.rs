//! A deploy of a new version that is killed in any step, and run again, ends as one that nobody disturbed.

#[path = "support/project.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use support::Project;

const TOPOLOGY: &str = "load-balanced";
const DEPLOY: [&str; 5] = ["deploy", TOPOLOGY, "--target", "lab", "--json"];

/// What a deploy leaves: everything that the next command looks at, without names, numbers and times that differ from run to run.
#[track_caller]
fn end_state(project: &Project) -> BTreeMap<String, Value> {
    let state = project.state(TOPOLOGY);
    let read = |name: &str| fs::read_to_string(state.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let status = project.status(TOPOLOGY);
    let live = status["group"]["version"].clone();
    let instances = status["group"]["instances"].as_array().cloned().unwrap_or_default();
    let verified: Value = serde_json::from_str(&read("versions.json")).expect("JSON");
    let last = verified["verified"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
    let plan: Value = serde_json::from_str(&read("plan.json")).expect("JSON");
    let of_live: Value = serde_json::from_str(&read(&format!("versions/{live}.json"))).expect("JSON");
    let booted = fs::read_to_string(state.join("lab/versions").join(live.to_string())).expect("user-data");
    let running = |it: &Value| json!([it["lifecycle"], it["healthy"], it["version"] == live]);
    BTreeMap::from([
        ("instances".to_owned(), instances.iter().map(running).collect()),
        ("refresh".to_owned(), status["refresh"]["status"].clone()),
        ("damages".to_owned(), status["damages"].clone()),
        ("last run".to_owned(), status["last_run"]["outcome"].clone()),
        ("live is the newest that was found good".to_owned(), json!(last["version"] == live)),
        ("the plan of what is live".to_owned(), json!(plan == of_live)),
        ("proxy".to_owned(), plan["proxy"].clone()),
        ("user-data".to_owned(), json!(booted)),
        ("artefact".to_owned(), json!(read("artefacts/proxy.yaml"))),
        ("nothing left to lead".to_owned(), {
            let journal: Value = serde_json::from_str(&read("journal.json")).expect("JSON");
            json!(journal.get("refresh").is_none())
        }),
    ])
}

/// The project's first spec, changed in a setting of the proxy.
fn changed(spec: &str, seconds: u32) -> String {
    format!("{spec}\ntimers: {{ invite: {seconds}s }}\n")
}

/// Kills a deploy in each of `steps`, `later` after its begin, and runs it again.
fn killed_in(test: &str, steps: &[&str], later: Duration) {
    let Some(project) = Project::with_lab(test) else { return };
    let spec = project.spec();
    project.deploy(TOPOLOGY);
    // Undisturbed, from the spec as it was to the one that is changed.
    project.write_spec(&changed(&spec, 90));
    project.run(&DEPLOY).expect(0);
    let undisturbed = end_state(&project);
    assert_eq!(undisturbed["refresh"], "successful");
    for step in steps {
        project.write_spec(&changed(&spec, 60));
        project.run(&DEPLOY).expect(0);
        project.write_spec(&changed(&spec, 90));
        let mut deploy = project.start(&DEPLOY);
        deploy.wait_for(step, |line| line["event"] == "step-started" && line["step"] == *step);
        // The moment of the cut, not a wait for something: any moment has to do.
        std::thread::sleep(later);
        deploy.kill();
        let again = project.run(&DEPLOY).expect(0);
        assert!(again.notes().iter().any(|note| note.contains("was cut off in step")), "{step}: {}", again.stdout);
        let ended = end_state(&project);
        for (part, value) in &undisturbed {
            assert_eq!(&ended[part], value, "{step}: {part}");
        }
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn before_the_refresh() {
    killed_in("before_the_refresh", &["plan", "artefacts", "secrets", "infrastructure"], Duration::ZERO);
}

#[test]
fn in_the_refresh() {
    killed_in("in_the_refresh", &["refresh", "smoke-call", "bake"], Duration::ZERO);
}

#[test]
fn in_the_middle_of_its_steps() {
    killed_in("in_the_middle_of_its_steps", &["refresh", "smoke-call", "bake"], Duration::from_millis(150));
}

#[test]
fn after_the_refresh() {
    killed_in("after_the_refresh", &["instances", "ready", "verified-call"], Duration::ZERO);
}

#[test]
fn a_refresh_that_is_killed_is_led_on_by_the_next() {
    let Some(project) = Project::with_lab("a_refresh_that_is_killed_is_led_on_by_the_next") else { return };
    project.deploy(TOPOLOGY);
    let before = project.instances(TOPOLOGY);
    let mut first = project.start(&["refresh", "--json"]);
    first.wait_for("bake", |line| line["event"] == "step-started" && line["step"] == "bake");
    first.kill();
    let second = project.run(&["refresh", "--json"]).expect(0);
    assert!(second.notes().iter().any(|note| note.contains("is in progress: going on with it")), "{}", second.stdout);
    assert!(second.stdout.contains("it has passed before"), "the smoke call is not repeated: {}", second.stdout);
    let after = project.instances(TOPOLOGY);
    assert!(after.len() == before.len() && after.iter().all(|it| !before.contains(it)), "{before:?}, then {after:?}");
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
