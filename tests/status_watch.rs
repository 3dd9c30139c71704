//! `sipedge status --watch`: what a refresh does can be seen while it happens.

#[path = "support/project.rs"]
mod support;

use support::Project;

#[test]
fn versions_and_states_are_seen_as_they_change() {
    let Some(project) = Project::with_lab("versions_and_states_are_seen_as_they_change") else { return };
    project.deploy("load-balanced");
    let text = project.run(&["status"]).expect(0).stdout;
    for part in ["live is version 1", "in service", "healthy", "in progress", "calls come in at"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let mut watch = project.start(&["status", "--watch", "--json"]);
    let one = |line: &serde_json::Value| line["topologies"][0].clone();
    watch.wait_for("two instances of version 1", |line| {
        let group = &one(line)["group"];
        group["instances"].as_array().is_some_and(|all| {
            all.len() == 2 && all.iter().all(|it| it["lifecycle"] == "in-service" && it["in_progress"].is_u64())
        })
    });
    let mut deploy = project.start(&["refresh", "--json"]);
    watch.wait_for("a refresh in progress", |line| {
        let refresh = one(line)["refresh"].clone();
        matches!(refresh["status"].as_str(), Some("in-progress" | "baking"))
    });
    deploy.wait_for("the end of the bake", |line| line["event"] == "step-done" && line["step"] == "bake");
    watch.wait_for("the end of the refresh", |line| one(line)["refresh"]["status"] == "successful");
    deploy.finish().expect(0);
    project.run(&["destroy"]).expect(0);
    // What is watched is gone, and so is its reason to go on.
    watch.finish().expect(7);
    project.assert_no_trace();
}
