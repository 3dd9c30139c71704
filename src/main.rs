//! The command line. For now only what the lab needs of it.

use std::path::Path;
use std::process::ExitCode;

use sipedge::target::lab;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let error = match words.as_slice() {
        ["lab", "supervise", folder] => match lab::supervise(Path::new(folder)) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => error.to_string(),
        },
        ["lab", "exec", folder, namespace, "--", command @ ..] => {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            lab::exec(Path::new(folder), namespace, &command).to_string()
        }
        _ => "usage: sipedge lab supervise FOLDER | sipedge lab exec FOLDER NAMESPACE -- COMMAND".to_owned(),
    };
    eprintln!("sipedge: {error}");
    ExitCode::FAILURE
}
