//! Where user namespaces are forbidden, deploy says which setting forbids them, and leaves nothing.

#[path = "support/project.rs"]
mod support;

use std::process::Command;

use support::{Project, program, run, sipedge, skip};

#[test]
fn no_user_namespaces() {
    let test = "no_user_namespaces";
    if program("unshare").is_none() || program("setpriv").is_none() {
        return skip(test, "it needs unshare and setpriv (util-linux)");
    }
    let project = Project::new();
    // A user namespace of the test's own, in which nobody may create another one, and a user in it without capabilities.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --ambient-caps=-all --inh-caps=-all \"$0\" deploy single-ec2 --target lab --json";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--keep-caps", "sh", "-c", script]).arg(sipedge());
    command.current_dir(project.folder());
    let ran = run(command);
    if ran.stderr.starts_with("unshare:") {
        return skip(test, &ran.stderr);
    }
    let error = ran.expect(4).json_error();
    assert_eq!(error["kind"], "target-not-available");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("max_user_namespaces"), "it names the setting: {message}");
    assert!(message.contains("root"), "it says that root works: {message}");
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
