//! On a terminal, a deploy to AWS shows what would change and asks, and a destroy asks for the edge's name. Anything but the word changes
//! nothing.

#![cfg(feature = "aws")]

#[path = "support/account.rs"]
mod account;
#[path = "support/cloud.rs"]
mod cloud;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use account::nothing_is_left;
use cloud::project::{program, sipedge, skip};
use cloud::{Cloud, DEPLOY_DEADLINE};
use serde_json::json;

const DEPLOY: [&str; 3] = ["deploy", "single-ec2", "--no-verify"];
const DESTROY: [&str; 3] = ["destroy", "--target", "aws"];

const MAKE_THESE_CHANGES: &str = "Make these changes? (yes/no) ";
const TYPE_THE_NAME: &str = "Type the edge's name (twilio-bridge) to go on: ";

/// What a terminal sends for Ctrl-D: the end of what is typed.
const END_OF_INPUT: &str = "\u{4}";

#[test]
fn nothing_changes_without_the_word() {
    let test = "nothing_changes_without_the_word";
    let Some(cloud) = Cloud::start(test) else { return };
    if program("script").is_none() {
        // Of util-linux, and with that on every Debian.
        skip(test, "there is no `script`, which gives a command a terminal");
        return;
    }
    for answer in ["y\n", END_OF_INPUT] {
        let (code, said) = asked(&cloud, &DEPLOY, MAKE_THESE_CHANGES, answer);
        assert_eq!(code, 2, "{answer:?}: {said}");
        assert!(said.contains("nothing was changed: the answer was not `yes`"), "{answer:?}: {said}");
        let before = said.split(MAKE_THESE_CHANGES).next().unwrap_or_default();
        assert!(before.contains("module.instances.aws_autoscaling_group.this"), "what is agreed to is shown: {said}");
        nothing_is_left(&cloud);
    }
    let (code, said) = asked(&cloud, &DEPLOY, MAKE_THESE_CHANGES, "yes\n");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("single-ec2 is up on AWS"), "{said}");

    for answer in ["yes\n", "twilio\n", END_OF_INPUT] {
        let (code, said) = asked(&cloud, &DESTROY, TYPE_THE_NAME, answer);
        assert_eq!(code, 2, "{answer:?}: {said}");
        assert!(said.contains("nothing was removed: the answer was not the edge's name"), "{answer:?}: {said}");
        assert!(said.contains("calls in progress end"), "it says what that means: {said}");
        assert_eq!(groups(&cloud), 1, "{answer:?}");
    }
    let (code, said) = asked(&cloud, &DESTROY, TYPE_THE_NAME, "twilio-bridge\n");
    assert_eq!(code, 0, "{said}");
    nothing_is_left(&cloud);
    cloud.project.assert_no_trace();
}

fn groups(cloud: &Cloud) -> usize {
    let groups = cloud.moto.ask("autoscaling", "describe_auto_scaling_groups", json!({}));
    groups["AutoScalingGroups"].as_array().map_or(0, Vec::len)
}

/// Runs `sipedge` on a terminal of its own and types `answer` when it has asked `question`. Returns its exit code and what it showed.
#[track_caller]
fn asked(cloud: &Cloud, arguments: &[&str], question: &str, answer: &str) -> (i32, String) {
    let program = sipedge();
    let words = [program.to_str().expect("a path in UTF-8")].into_iter().chain(arguments.iter().copied());
    let command: Vec<String> = words.map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--return", "--command", &command.join(" "), "/dev/null"]);
    // The environment is that of any other command here.
    let like = cloud.command(&[]);
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.env("TERM", "xterm").env("SHELL", "/bin/sh").current_dir(cloud.project.folder());
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("`script` starts");
    let mut typed = child.stdin.take().expect("standard input is a pipe");
    let shown = reader(child.stdout.take().expect("standard output is a pipe"));

    let (begun, mut said, mut answered) = (Instant::now(), String::new(), false);
    while let Ok(part) = shown.recv_timeout(DEPLOY_DEADLINE.saturating_sub(begun.elapsed())) {
        said.push_str(&part);
        if !answered && said.contains(question) {
            typed.write_all(answer.as_bytes()).expect("it takes an answer");
            answered = true;
        }
    }
    if begun.elapsed() > DEPLOY_DEADLINE {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{arguments:?} did not end within {DEPLOY_DEADLINE:?}: {said}");
    }
    assert!(answered, "{arguments:?} never asked {question:?}: {said}");
    let code = child.wait().expect("it has ended").code();
    (code.unwrap_or(-1), said)
}

/// What is shown, in parts as they come; ends with the terminal.
fn reader(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, parts) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).is_err() {
                return;
            }
        }
    });
    parts
}
