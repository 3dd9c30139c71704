//! Commands that read or write the spec and change nothing else: init, check, plan, schema.

use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};
use sipedge::deploy::{self, Project, TOPOLOGIES, write_whole};
use sipedge::plan::{self, TargetKind, Topology};
use sipedge::spec::{self, Loaded, stale_carriers};

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
        exit::print_json(&json!({ "spec": path.display().to_string(), "edge": name }))?;
    } else {
        exit::print(&format!(
            "{} is written: a carrier bridge named {name}.\nNext: put your carrier's domain in, then: sipedge check{}",
            path.display(),
            exit::spec_argument(path)
        ))?;
    }
    Ok(Exit::Done)
}

pub(super) fn check(global: &Global) -> Result<Exit, Failure> {
    let loaded = global.load_spec()?;
    for topology in TOPOLOGIES {
        plan::plan(&loaded, topology, target_or_aws(global))?;
    }
    if global.json {
        exit::print_json(&json!({
            "spec": global.spec.display().to_string(),
            "edge": loaded.spec.name,
            "warnings": loaded.warnings,
            "stale_carriers": stale_carriers(&loaded.spec, SystemTime::now()),
        }))?;
    } else {
        let warnings = warnings(&loaded, SystemTime::now());
        exit::print(&format!("{warnings}{} is good: edge {}", global.spec.display(), loaded.spec.name))?;
    }
    Ok(Exit::Done)
}

pub(super) fn plan(global: &Global, args: &Plan) -> Result<Exit, Failure> {
    let loaded = global.load_spec()?;
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
        let written = args.out.as_ref().map(|out| out.join(topology.as_str()));
        if let Some(folder) = &written {
            deploy::write_artefacts(&planned, folder)?;
        }
        let written = written.map(|folder| folder.display().to_string());
        if global.json {
            let difference = plan::difference(deployed.as_ref(), &planned);
            let mut entry = json!({ "plan": planned, "difference": difference });
            if let Some(folder) = written {
                entry["written"] = folder.into();
            }
            data.push(entry);
        } else {
            text.push_str(plan::render(&planned, deployed.as_ref()).trim_end());
            text.push_str("\n\n");
            if let Some(folder) = written {
                text.push_str(&format!("Written to {folder}: {} files\n\n", planned.artefacts.len()));
            }
        }
    }
    let stale = stale_carriers(&loaded.spec, SystemTime::now());
    let prices = match target_or_aws(global) {
        TargetKind::Aws => plan::stale_prices(&loaded.spec, SystemTime::now()),
        TargetKind::Lab => Vec::new(),
    };
    if global.json {
        exit::print_json(&json!({ "plans": data, "stale_carriers": stale, "stale_prices": prices }))?;
    } else {
        text.extend(stale.iter().chain(&prices).map(|warning| format!("warning: {warning}\n")));
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

/// What is doubtful of a spec at `now`, a line each.
fn warnings(loaded: &Loaded, now: SystemTime) -> String {
    let mut text = String::new();
    for warning in &loaded.warnings {
        let place = format!("{}:{}:{}", warning.file, warning.line, warning.column);
        text.push_str(&format!("warning: {place}: {}; {}\n", warning.message, warning.help));
    }
    text.extend(stale_carriers(&loaded.spec, now).iter().map(|warning| format!("warning: {warning}\n")));
    text
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
    use std::time::Duration;

    use sipedge::spec::Spec;

    use super::*;

    #[test]
    fn old_addresses_of_a_carrier_are_a_warning_beside_those_of_the_file() {
        let loaded = Spec::parse("sipedge.yaml", &spec::init_text("edge")).expect("the example is sound");
        let in_the_file = warnings(&loaded, SystemTime::UNIX_EPOCH);
        assert!(in_the_file.contains("that of the examples"), "{in_the_file}");
        let later = warnings(&loaded, SystemTime::UNIX_EPOCH + Duration::from_secs(100 * 365 * 86_400));
        let stale = later.strip_prefix(&in_the_file).expect("the same and more");
        assert!(stale.starts_with("warning: the addresses of Twilio are as of"), "{stale}");
    }

    #[test]
    fn a_folder_gives_the_edge_its_name() {
        assert_eq!(edge_name_from_folder(Path::new("/srv/My Bridge/sipedge.yaml")), "my-bridge");
        assert_eq!(edge_name_from_folder(Path::new("/srv/.tmp1a/sipedge.yaml")), "tmp1a");
        assert_eq!(edge_name_from_folder(Path::new("/sipedge.yaml")), "carrier-bridge");
        assert_eq!(edge_name_from_folder(Path::new("/42/sipedge.yaml")), "carrier-bridge");
    }
}
