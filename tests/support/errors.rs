//! Error messages against `tests/golden/errors/`. `UPDATE_GOLDEN=1` writes them anew.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::fs;
use std::path::Path;

/// Whether nothing may be skipped.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// A message and the commands that lead on, with `folder` as FOLDER.
pub fn told(message: &str, next: &[(String, String)], folder: &Path) -> String {
    let mut text = format!("{message}\n");
    for (command, does) in next {
        text.push_str(&format!("next: {command}   {does}\n"));
    }
    text.replace(&*folder.to_string_lossy(), "FOLDER")
}

/// The text without the lines that begin with `word`.
pub fn without(text: &str, word: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with(word)).map(|line| format!("{line}\n")).collect()
}

/// Fails unless the golden file has this text.
#[track_caller]
pub fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/errors/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        fs::write(&path, text).expect("the golden file can be written");
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{} is not what is said now; UPDATE_GOLDEN=1 writes it", path.display());
}
