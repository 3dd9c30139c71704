//! Secrets in SSM Parameter Store: made when they are absent, and nowhere else.

use std::time::SystemTime;

use sipedge_aws::Aws;
use sipedge_proxy::config::SecretRef;

use super::super::certificates;
use super::super::error::Cause;
use super::super::progress::{Event, Progress};
use super::super::secrets::{TokenKeys, answerer_password};
use super::super::state::{State, StateError};
use super::{account, tags};
use crate::plan::Plan;

/// Puts what the plan names and the account lacks where instances find it.
pub(super) fn bring(plan: &Plan, state: &State, aws: &Aws, progress: &mut dyn Progress) -> Result<((), String), Cause> {
    let account = account(plan)?;
    let certificates = certificates::read(plan, &state.spec_folder(), SystemTime::now())?;
    for warning in certificates.iter().filter_map(|certificate| certificate.warning.as_ref()) {
        progress.event(&Event::Note { text: warning });
    }
    let there = aws.secrets_below(&account.parameter_prefix)?;
    let is_there = |name: &str| there.iter().any(|secret| secret.name == name);
    let mut detail = Vec::new();
    if let SecretRef::Ssm(name) = &plan.proxy.secrets.token_keys {
        if is_there(name) {
            detail.push("token keys kept".to_owned());
        } else {
            // Read by nobody here and written to no file: what instances need is in the parameter alone.
            let keys = TokenKeys::generate().map_err(StateError::io("make token keys for", name.as_ref()))?;
            let value = serde_json::to_string(&keys)
                .map_err(|error| StateError::io("write", name.as_ref())(std::io::Error::other(error)))?;
            aws.put_secret(name, &value, &tags(account))?;
            detail.push("token keys made".to_owned());
            if state.outputs()?.is_some() {
                let text = "the token keys were gone: instances that run keep theirs until they read the new ones, and calls that are up \
                            then can no longer be ended through the edge";
                progress.event(&Event::Note { text });
            }
        }
    }
    if let Some(SecretRef::Ssm(name)) = plan.proxy.answerer.as_ref().map(|answerer| &answerer.password)
        && !is_there(name)
    {
        let password = answerer_password().map_err(StateError::io("make a password for", name.as_ref()))?;
        aws.put_secret(name, &password, &tags(account))?;
        detail.push("answerer's password made".to_owned());
    }
    let mut written = 0;
    for certificate in &certificates {
        let pem = String::from_utf8_lossy(&certificate.pem);
        if is_there(&certificate.name) && aws.secret(&certificate.name)?.is_some_and(|before| before == pem) {
            continue;
        }
        aws.put_secret(&certificate.name, &pem, &tags(account))?;
        written += 1;
    }
    if !certificates.is_empty() {
        detail.push(format!("{} certificates checked, {written} written", certificates.len()));
    }
    Ok(((), detail.join(", ")))
}

/// Removes all secrets of the topology; returns how many there were.
pub(super) fn remove(plan: &Plan, aws: &Aws) -> Result<usize, Cause> {
    let names: Vec<String> =
        aws.secrets_below(&account(plan)?.parameter_prefix)?.into_iter().map(|secret| secret.name).collect();
    aws.delete_secrets(&names)?;
    Ok(names.len())
}
