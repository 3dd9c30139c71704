//! Every command that the README and the documents show is run, as it stands there.
//!
//! Commands stand in `console` blocks behind `$ `. A comment above a block changes how it is taken:
//! `<!-- exit 4 -->`: the exit code of its commands; `<!-- not run: reason -->`: it is for the reader alone; `<!-- first-command -->` and
//! `<!-- test-command -->`: the README's two commands, of which the building parts are not repeated here.

#[path = "support/project.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Project, repository, run, sipedge};

/// One block of commands.
#[derive(Debug)]
struct Block {
    line: usize,
    mark: Option<String>,
    commands: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut mark = None;
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        if inside {
            let block = found.last_mut().expect("a block was opened");
            let continued = block.commands.last().is_some_and(|command| command.ends_with('\\'));
            if line.starts_with("```") {
                inside = false;
            } else if let Some(command) = line.strip_prefix("$ ") {
                block.commands.push(command.to_owned());
            } else if let (true, Some(command)) = (continued, block.commands.last_mut()) {
                command.push('\n');
                command.push_str(line);
            }
        } else if line == "```console" {
            inside = true;
            found.push(Block { line: index + 1, mark: mark.take(), commands: Vec::new() });
        } else if let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            mark = Some(comment.to_owned());
        } else if !line.is_empty() {
            mark = None;
        }
    }
    assert!(!inside, "a block is not closed");
    found
}

fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(repository().join("docs")).expect("docs/");
    let mut found: Vec<PathBuf> = docs.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found.insert(0, repository().join("README.md"));
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn copy_examples(to: &Path) {
    let folder = to.join("examples");
    fs::create_dir_all(&folder).expect("create");
    for entry in fs::read_dir(repository().join("examples")).expect("examples/").flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("copy");
        }
    }
}

fn run_document(path: &Path, test: &str) {
    let Some(project) = Project::with_lab(test) else { return };
    fs::remove_file(project.folder().join("sipedge.yaml")).expect("documents write their own spec");
    copy_examples(project.folder());
    let binaries = sipedge().parent().expect("the binary is in a folder");
    let search = std::env::join_paths(
        [binaries.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .expect("PATH");
    for block in blocks(&read(path)) {
        let mark = block.mark.as_deref().unwrap_or_default();
        if mark.starts_with("not run: ") || mark == "test-command" {
            continue;
        }
        let code = mark.strip_prefix("exit ").map_or(0, |code| code.parse().expect("an exit code"));
        assert!(!block.commands.is_empty(), "{}:{}: a block without commands", path.display(), block.line);
        for command in &block.commands {
            let command = if mark == "first-command" {
                let built = command.strip_prefix("cargo build --release && ").expect("the first command builds");
                built.replace("./target/release/sipedge", "sipedge")
            } else {
                command.clone()
            };
            eprintln!("{}:{}: {command}", path.display(), block.line);
            let mut shell = Command::new("sh");
            shell.args(["-c", &command]).current_dir(project.folder()).env("PATH", &search).env("NO_COLOR", "1");
            run(shell).expect(code);
        }
    }
    for folder in [project.folder().join("examples"), project.folder().to_owned()] {
        if folder.join(".sipedge").exists() {
            let spec = if folder.ends_with("examples") { "examples/carrier-bridge.yaml" } else { "sipedge.yaml" };
            project.run(&["destroy", "--spec", spec]).expect(0);
        }
    }
    project.assert_no_trace();
}

macro_rules! documents {
    ($($test:ident: $path:literal,)+) => {
        $(
            #[test]
            fn $test() {
                run_document(&repository().join($path), stringify!($test));
            }
        )+

        #[test]
        fn no_document_with_commands_is_forgotten() {
            let tested: Vec<PathBuf> = [$($path),+].into_iter().map(|path| repository().join(path)).collect();
            for path in documents() {
                let has_commands = blocks(&read(&path)).iter().any(|block| !block.commands.is_empty());
                assert!(!has_commands || tested.contains(&path), "{} has commands that are not run", path.display());
            }
        }
    };
}

documents! {
    readme: "README.md",
    aws: "docs/aws.md",
    capacity: "docs/capacity.md",
    getting_started: "docs/getting-started.md",
    commands: "docs/commands.md",
    deploy: "docs/deploy.md",
    lab: "docs/lab.md",
    how_it_works: "docs/how-it-works.md",
    image: "docs/image.md",
    install: "docs/install.md",
    secrets: "docs/secrets.md",
    terraform: "docs/terraform.md",
    testing: "docs/testing.md",
    troubleshooting: "docs/troubleshooting.md",
    verify: "docs/verify.md",
}

#[test]
fn every_trouble_has_a_command_that_confirms_it() {
    let text = read(&repository().join("docs/troubleshooting.md"));
    let entries: Vec<&str> = text.split("\n\n").map(str::trim).filter(|part| part.starts_with("**")).collect();
    assert!(entries.len() >= 25, "{} entries", entries.len());
    for entry in entries {
        let last =
            entry.strip_suffix(')').and_then(|entry| entry.rsplit_once(" (`").or_else(|| entry.rsplit_once("\n(`")));
        assert!(last.is_some_and(|(_, command)| command.contains('`')), "no command at the end of: {entry}");
    }
}

#[test]
fn the_readmes_test_command_is_what_ci_runs() {
    let readme = read(&repository().join("README.md"));
    let block = blocks(&readme)
        .into_iter()
        .find(|block| block.mark.as_deref() == Some("test-command"))
        .expect("the README marks its test command");
    let [command] = block.commands.as_slice() else { panic!("one command: {block:?}") };
    let ci = read(&repository().join(".ci/run"));
    assert!(ci.lines().any(|line| line.trim() == command.as_str()), ".ci/run does not run `{command}`");
}

#[test]
fn a_block_that_is_not_run_says_why() {
    for path in documents() {
        for block in blocks(&read(&path)) {
            let Some(reason) = block.mark.as_deref().and_then(|mark| mark.strip_prefix("not run:")) else { continue };
            assert!(reason.trim().len() > 10, "{}:{}", path.display(), block.line);
        }
    }
}

#[test]
fn nothing_waits_to_be_filled_in() {
    for path in documents() {
        for (index, line) in read(&path).lines().enumerate() {
            assert!(!line.contains("PLACEHOLDER"), "{}:{}: {line}", path.display(), index + 1);
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for path in documents() {
        for part in read(&path).split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let file = path.parent().expect("a folder").join(target);
            assert!(file.exists(), "{}: {target} is not there", path.display());
        }
    }
}
