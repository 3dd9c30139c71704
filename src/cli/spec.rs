//! Commands that read or write the spec and change nothing else: init, check, plan, schema.

use std::path::Path;

use serde_json::{Value, json};
use sipedge::deploy::{self, Project, TOPOLOGIES, topology_name, write_whole};
use sipedge::plan::{self, TargetKind, Topology};
use sipedge::spec::{self, Spec};

use super::exit::{self, Exit, Failure};
use super::{Global, Init, Plan, Target};

pub(super) fn init(global: &Global, args: &Init) -> Result<Exit, Failure> {
    let path = &global.spec;
    if path.exists() && !args.force {
        let message = format!("{} is there already", path.display());
        return Err(Failure::new(Exit::Usage, message).next("sipedge init --force", "overwrites it"));
    }
    let name = edge_name_from_folder(path);
    write_whole(path, spec::init_text(&name).as_bytes(), SPEC_MODE)?;
    if global.json {
        exit::print_json(&json!({ "spec": path, "name": name }))?;
    } else {
        exit::print(&format!(
            "{} is written: a carrier bridge named {name}.\nNext: put your carrier's domain in, then: sipedge check",
            path.display()
        ))?;
    }
    Ok(Exit::Done)
}

pub(super) fn check(global: &Global) -> Result<Exit, Failure> {
    let loaded = Spec::load(&global.spec)?;
    for topology in TOPOLOGIES {
        plan::plan(&loaded, topology, target_or_aws(global))?;
    }
    if global.json {
        exit::print_json(&json!({ "spec": global.spec, "edge": loaded.spec.name, "warnings": loaded.warnings }))?;
    } else {
        let mut text = String::new();
        for warning in &loaded.warnings {
            let place = format!("{}:{}:{}", warning.file, warning.line, warning.column);
            text.push_str(&format!("warning: {place}: {}; {}\n", warning.message, warning.help));
        }
        text.push_str(&format!("{} is good: edge {}", global.spec.display(), loaded.spec.name));
        exit::print(&text)?;
    }
    Ok(Exit::Done)
}

pub(super) fn plan(global: &Global, args: &Plan) -> Result<Exit, Failure> {
    let loaded = Spec::load(&global.spec)?;
    let project = Project::new(&global.spec, &loaded.spec.name)
        .map_err(|error| Failure::new(Exit::Unexpected, format!("cannot find the folder of the spec: {error}")))?;
    let topologies: Vec<Topology> = match args.topology {
        Some(topology) => vec![topology.into()],
        None => TOPOLOGIES.to_vec(),
    };
    let mut text = String::new();
    let mut data: Vec<Value> = Vec::new();
    for topology in topologies {
        let planned = plan::plan(&loaded, topology, target_or_aws(global))?;
        // What is damaged counts as not deployed, as it does for a deploy.
        let deployed = project.state(topology).plan().ok().flatten();
        if global.json {
            let difference = plan::difference(deployed.as_ref(), &planned);
            data.push(json!({ "plan": planned, "difference": difference }));
        } else {
            text.push_str(plan::render(&planned, deployed.as_ref()).trim_end());
            text.push_str("\n\n");
        }
        if let Some(out) = &args.out {
            let folder = out.join(topology_name(topology));
            deploy::write_artefacts(&planned, &folder)?;
            text.push_str(&format!("Written to {}: {} files\n\n", folder.display(), planned.artefacts.len()));
        }
    }
    if global.json {
        exit::print_json(&json!({ "plans": data }))?;
    } else {
        exit::print(&format!("{}\n", text.trim_end()))?;
    }
    Ok(Exit::Done)
}

pub(super) fn schema() -> Result<Exit, Failure> {
    exit::print_json(&spec::schema())?;
    Ok(Exit::Done)
}

/// The spec is for people to read and change.
const SPEC_MODE: u32 = 0o644;
/// Longest name that is proposed; the names of AWS load balancers are limited to 32 characters and get a suffix.
const PROPOSED_NAME_CHARACTERS: usize = 20;

fn target_or_aws(global: &Global) -> TargetKind {
    global.target.unwrap_or(Target::Aws).into()
}

/// The name of the folder that the spec is in, made fit for an edge's name.
fn edge_name_from_folder(spec_file: &Path) -> String {
    let absolute = std::path::absolute(spec_file).unwrap_or_default();
    let folder = absolute.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().to_lowercase());
    let name: String = folder
        .unwrap_or_default()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .skip_while(|letter| !letter.is_ascii_lowercase())
        .take(PROPOSED_NAME_CHARACTERS)
        .collect();
    let name = name.trim_end_matches('-');
    if name.is_empty() { "carrier-bridge".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_the_edge_its_name() {
        assert_eq!(edge_name_from_folder(Path::new("/srv/My Bridge/sipedge.yaml")), "my-bridge");
        assert_eq!(edge_name_from_folder(Path::new("/srv/.tmp1a/sipedge.yaml")), "tmp1a");
        assert_eq!(edge_name_from_folder(Path::new("/sipedge.yaml")), "carrier-bridge");
        assert_eq!(edge_name_from_folder(Path::new("/42/sipedge.yaml")), "carrier-bridge");
    }
}
