//! A state folder that is damaged is recognised, what is damaged is named, and deploy and destroy go on cleanly.

#[path = "support/project.rs"]
mod support;

use std::fs;
use std::path::Path;

use support::Project;

const TOPOLOGY: &str = "load-balanced";

/// A way to damage the state of a running edge.
struct Damage {
    name: &'static str,
    /// What messages have to name.
    file: &'static str,
    apply: fn(&Path),
}

fn overwrite(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

const DAMAGES: [Damage; 6] = [
    Damage {
        name: "plan cut short",
        file: "plan.json",
        apply: |state| overwrite(&state.join("plan.json"), b"{\"name\":"),
    },
    Damage {
        name: "plan of another format",
        file: "plan.json",
        apply: |state| overwrite(&state.join("plan.json"), b"{}"),
    },
    Damage { name: "empty journal", file: "journal.json", apply: |state| overwrite(&state.join("journal.json"), b"") },
    Damage {
        name: "journal with bytes that are no text",
        file: "journal.json",
        apply: |state| overwrite(&state.join("journal.json"), &[0xff, 0x00, 0xfe]),
    },
    Damage {
        name: "token keys that are none",
        file: "token-keys.json",
        apply: |state| overwrite(&state.join("secrets/token-keys.json"), b"[]"),
    },
    Damage {
        name: "a file in place of the artefacts",
        file: "artefacts",
        apply: |state| {
            fs::remove_dir_all(state.join("artefacts")).expect("remove");
            overwrite(&state.join("artefacts"), b"");
        },
    },
];

#[test]
fn status_names_what_is_damaged() {
    let Some(project) = Project::with_lab("status_names_what_is_damaged") else { return };
    project.deploy(TOPOLOGY);
    overwrite(&project.state(TOPOLOGY).join("plan.json"), b"{");
    let ran = project.run(&["status"]).expect(9);
    assert!(ran.stdout.contains("damaged:") && ran.stdout.contains("plan.json"), "{}", ran.stdout);
    let error = project.run(&["verify", "call", "--json"]).expect(9).json_error();
    assert!(error["message"].as_str().is_some_and(|text| text.contains("plan.json")), "{error}");
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn deploy_goes_on_and_says_what_was_damaged() {
    let Some(project) = Project::with_lab("deploy_goes_on_and_says_what_was_damaged") else { return };
    project.deploy(TOPOLOGY);
    for damage in DAMAGES {
        (damage.apply)(&project.state(TOPOLOGY));
        let notes = project.deploy(TOPOLOGY).notes();
        let told = notes.iter().any(|note| note.contains("damaged") && note.contains(damage.file));
        assert!(told, "{}: {notes:?}", damage.name);
        project.run(&["verify", "call"]).expect(0);
        assert_eq!(project.status(TOPOLOGY)["damages"], serde_json::json!([]), "{}", damage.name);
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn destroy_goes_on_cleanly() {
    let Some(project) = Project::with_lab("destroy_goes_on_cleanly") else { return };
    for damage in DAMAGES {
        project.deploy(TOPOLOGY);
        (damage.apply)(&project.state(TOPOLOGY));
        project.run(&["destroy", TOPOLOGY]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn a_file_in_place_of_the_folder() {
    let Some(project) = Project::with_lab("a_file_in_place_of_the_folder") else { return };
    for destroy in [true, false] {
        fs::create_dir_all(project.folder().join(".sipedge/twilio-bridge")).expect("create");
        overwrite(&project.state(TOPOLOGY), b"");
        if !destroy {
            project.deploy(TOPOLOGY);
        }
        project.run(&["destroy"]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn the_labs_folder_is_removed_while_it_runs() {
    let Some(project) = Project::with_lab("the_labs_folder_is_removed_while_it_runs") else { return };
    for destroy in [true, false] {
        project.deploy(TOPOLOGY);
        fs::remove_dir_all(project.state(TOPOLOGY).join("lab")).expect("remove");
        if !destroy {
            project.deploy(TOPOLOGY);
        }
        project.run(&["destroy"]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn each_file_of_the_lab_is_overwritten_while_it_runs() {
    let Some(project) = Project::with_lab("each_file_of_the_lab_is_overwritten_while_it_runs") else { return };
    project.deploy(TOPOLOGY);
    let lab = project.state(TOPOLOGY).join("lab");
    let files: Vec<String> = fs::read_dir(&lab)
        .expect("the lab's folder")
        .flatten()
        .filter(|entry| !entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    for name in files {
        fs::remove_file(lab.join(&name)).expect("remove");
        overwrite(&lab.join(&name), b"\0damaged");
        project.deploy(TOPOLOGY);
        fs::remove_file(lab.join(&name)).unwrap_or_default();
        overwrite(&lab.join(&name), b"\0damaged");
        project.run(&["destroy"]).expect(0);
        project.assert_no_trace();
        project.deploy(TOPOLOGY);
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
