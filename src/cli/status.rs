//! `sipedge status`.

use std::io::{self, IsTerminal};
use std::time::Duration;

use serde_json::{Value, json};
use sipedge::deploy::{self, Project, TopologyStatus};

use super::edge::{deployed_project, nothing_deployed, require_lab};
use super::exit::{self, Exit, Failure};
use super::{Global, Status};

/// Time between two pictures of `--watch`.
const EVERY: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its upper left corner (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) fn status(global: &Global, args: &Status) -> Result<Exit, Failure> {
    require_lab(global.target, "sipedge status --target lab")?;
    let project = deployed_project(global)?;
    if !args.watch {
        let found = look(&project)?;
        let shown = if global.json { format!("{:#}", as_json(&project, &found)) } else { as_text(&found) };
        exit::print(&shown)?;
        return Ok(exit_of(&found));
    }
    // Until a signal ends it, its reader goes away, or nothing runs any more.
    let clear = if !global.json && io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        let found = look(&project)?;
        let shown = if global.json { as_json(&project, &found).to_string() } else { as_text(&found) };
        let is_read = exit::print_to_reader(&format!("{clear}{shown}"))?;
        let exit = exit_of(&found);
        if exit == Exit::NothingDeployed || !is_read {
            return Ok(exit);
        }
        std::thread::sleep(EVERY);
    }
}

fn look(project: &Project) -> Result<Vec<TopologyStatus>, Failure> {
    let present = project.present();
    let found: Vec<TopologyStatus> =
        present.into_iter().map(|topology| deploy::status(&project.state(topology))).collect();
    if found.is_empty() { Err(nothing_deployed(project, None)) } else { Ok(found) }
}

fn as_json(project: &Project, found: &[TopologyStatus]) -> Value {
    json!({ "edge": project.edge(), "topologies": found })
}

fn as_text(found: &[TopologyStatus]) -> String {
    found.iter().map(TopologyStatus::render).collect::<Vec<_>>().join("\n")
}

fn exit_of(found: &[TopologyStatus]) -> Exit {
    let damaged = found.iter().any(|status| !status.damages.is_empty());
    let running = found.iter().any(|status| status.running);
    match (damaged, running) {
        (true, _) => Exit::StateDamaged,
        (false, true) => Exit::Done,
        (false, false) => Exit::NothingDeployed,
    }
}
