//! The lab's supervisor is killed: its instances end with it, every command says so, and deploy and destroy go on.

#[path = "support/project.rs"]
mod support;

use support::{Project, eventually, kill_process, processes_of};

/// A project whose supervisor was killed.
fn killed(test: &str, topology: &str) -> Option<Project> {
    let project = Project::with_lab(test)?;
    project.deploy(topology);
    let pids: Vec<i64> = project.instances(topology).into_iter().map(|(_, pid)| pid).collect();
    assert!(!pids.is_empty());
    kill_process(project.supervisor(topology));
    eventually("its instances end with it", || processes_of(project.folder()).is_empty());
    Some(project)
}

#[test]
fn every_command_says_that_nothing_runs_and_what_to_type() {
    for topology in ["single-ec2", "load-balanced"] {
        let Some(project) = killed("every_command_says_that_nothing_runs", topology) else { return };
        let commands: [&[&str]; 7] = [
            &["verify", "call"],
            &["lab", "instances"],
            &["lab", "add"],
            &["lab", "kill", "i-1"],
            &["lab", "remove", "i-1"],
            &["lab", "flush"],
            &["lab", "exec", "twilio", "--", "true"],
        ];
        for command in commands {
            let ran = project.run(command).expect(7);
            assert!(ran.stderr.contains("no process of it runs"), "{}: {}", ran.command, ran.stderr);
            assert!(ran.stderr.contains(&format!("sipedge deploy {topology} --target lab")), "{}", ran.stderr);
            assert!(ran.stderr.contains(&format!("sipedge destroy {topology}")), "{}", ran.stderr);
        }
        let status = project.run(&["status", "--json"]).expect(7).json();
        assert_eq!(status["topologies"][0]["running"], false, "{status}");
        assert!(project.run(&["status"]).expect(7).stdout.contains("down"));
        project.run(&["destroy"]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn deploy_builds_it_again_with_the_same_keys() {
    let Some(project) = killed("deploy_builds_it_again", "load-balanced") else { return };
    let keys = || std::fs::read(project.state("load-balanced").join("secrets/token-keys.json")).expect("token keys");
    let before = keys();
    project.deploy("load-balanced");
    assert_eq!(keys(), before);
    project.run(&["verify", "call"]).expect(0);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn destroy_twice() {
    let Some(project) = killed("destroy_twice", "load-balanced") else { return };
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
