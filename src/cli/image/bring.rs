//! `sipedge deploy --build-image`: the image that a deploy wants, published from this machine when it is not there.

use std::process::{Command, Stdio};

use sipedge::deploy::aws::IMAGE_FLAVOUR;
use sipedge::image::{Image, published, way_to_published};
use sipedge::spec;

use super::default_cache;
use crate::cli::Global;
use crate::cli::exit::{Exit, Failure};

/// Runs the commands that lead to a published image, from the first that is still to be done; how the last of them ended. What failed has
/// said why.
pub(in crate::cli) fn bring(global: &Global, account: &spec::Aws) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if published::newest(&published::connect(account)?, version, IMAGE_FLAVOUR)?.is_some() {
        return Ok(Exit::Done);
    }
    for (command, _) in way_to_published(IMAGE_FLAVOUR).into_iter().skip(done_so_far()?) {
        let exit = run(global, &command)?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}

/// How many of the commands need not be run: what is built and booted is published as it is.
fn done_so_far() -> Result<usize, Failure> {
    let Ok(image) = Image::newest(&default_cache()?, IMAGE_FLAVOUR) else { return Ok(0) };
    if image.manifest.version != env!("CARGO_PKG_VERSION") || image.check().is_err() {
        return Ok(0);
    }
    Ok(if image.booted().is_some() { 2 } else { 1 })
}

/// Runs another command of this program, which tells by itself what it does.
fn run(global: &Global, command: &str) -> Result<Exit, Failure> {
    let cannot = |error| Failure::new(Exit::Unexpected, format!("cannot run `{command}`: {error}"));
    let mut words = Command::new(std::env::current_exe().map_err(cannot)?);
    words.args(command.split_whitespace().skip(1)).arg("--spec").arg(&global.spec).stdin(Stdio::null());
    if let Some(environment) = &global.environment {
        words.arg("--environment").arg(environment);
    }
    if global.json {
        words.arg("--json");
    } else {
        eprintln!("{command}");
    }
    Ok(Exit::of(words.status().map_err(cannot)?.code()))
}
