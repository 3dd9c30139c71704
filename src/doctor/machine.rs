//! This machine: what the lab needs, and Terraform.

use super::{Check, Health};
use crate::target::aws::terraform::{PLUGIN_FOLDER_VARIABLE, Program};
use crate::target::lab;

/// User namespaces and the appliance's program.
pub(super) fn lab() -> Vec<Check> {
    let namespaces = match lab::user_namespaces_forbidden() {
        None => Check::new("lab", Health::Ok, "no setting of this machine forbids user namespaces"),
        Some(setting) => {
            let says = format!("user namespaces are forbidden: {setting}. Change that, or run as root");
            Check::new("lab", Health::Problem, says)
        }
    };
    let program = match lab::proxy_program() {
        Ok(path) => Check::new("sipedge-proxy", Health::Ok, format!("is at {}", path.display())),
        Err(error) => Check::new("sipedge-proxy", Health::Problem, error.to_string()),
    };
    vec![
        namespaces.confirmed_by("unshare --user --map-root-user --net true"),
        program.confirmed_by("sipedge-proxy --version"),
    ]
}

/// Terraform or OpenTofu, new enough; `bucket`: for a state in S3.
pub(super) fn terraform(bucket: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    match Program::find() {
        Err(error) => {
            checks.push(Check::new("terraform", Health::Problem, error.to_string()).confirmed_by("terraform version"));
        }
        Ok(program) => {
            let check = match program.check(bucket) {
                Ok(()) => {
                    let says = format!("{} {} at {}", program.name(), program.version(), program.path().display());
                    Check::new("terraform", Health::Ok, says)
                }
                Err(error) => Check::new("terraform", Health::Problem, error.to_string()),
            };
            checks.push(check.confirmed_by(format!("{} version", program.path().display())));
        }
    }
    if let Some(folder) = std::env::var_os(PLUGIN_FOLDER_VARIABLE).filter(|value| !value.is_empty()) {
        let folder = std::path::PathBuf::from(folder);
        let provider = folder.join("registry.terraform.io/hashicorp/aws");
        let check = if provider.is_dir() {
            Check::new("providers", Health::Ok, format!("come from {}", folder.display()))
        } else {
            let says =
                format!("{PLUGIN_FOLDER_VARIABLE} names {}, which has no provider hashicorp/aws", folder.display());
            Check::new("providers", Health::Problem, says)
        };
        checks.push(check.confirmed_by(format!("ls {}", provider.display())));
    }
    checks
}
