//! Secrets in SSM Parameter Store: made when they are absent, and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use sipedge_aws::Aws;
use sipedge_proxy::config::SecretRef;

use super::super::certificates;
use super::super::error::Cause;
use super::super::progress::{Event, Progress};
use super::super::rotation::{self, TwoLooks};
use super::super::secrets::{SecretStore, StoreError, TokenKeys, answerer_password};
use super::super::state::{State, StateError};
use super::{account, connect, tags};
use crate::plan::{AwsPlan, Plan};

/// The secrets of one topology in an account.
pub struct AwsSecrets {
    aws: Aws,
    prefix: String,
    tags: BTreeMap<String, String>,
}

impl AwsSecrets {
    /// Those of the deployed topology of `state`, and how its instances come to know of a change.
    ///
    /// # Errors
    /// Nothing is deployed, or the account cannot be asked.
    pub fn of(state: &State) -> Result<(Self, TwoLooks), Cause> {
        let gone = || Cause::NotRunning { edge: state.edge().to_owned(), topology: state.topology() };
        let plan = state.plan()?.ok_or_else(gone)?;
        let account = account(&plan)?;
        let aws = connect(account)?;
        let poll = Duration::from_secs(plan.proxy.secrets.poll_s.into());
        Ok((Self { aws, prefix: account.parameter_prefix.clone(), tags: tags(account) }, TwoLooks { poll }))
    }

    fn below(&self) -> Below<'_> {
        Below { aws: &self.aws, prefix: &self.prefix, tags: &self.tags }
    }
}

/// The secrets below a prefix, by a connection that somebody else has.
struct Below<'a> {
    aws: &'a Aws,
    prefix: &'a str,
    tags: &'a BTreeMap<String, String>,
}

impl<'a> Below<'a> {
    fn of(account: &'a AwsPlan, aws: &'a Aws) -> Self {
        Self { aws, prefix: &account.parameter_prefix, tags: &account.tags }
    }

    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    fn failed(&self, verb: &'static str, name: &str, error: &sipedge_aws::AwsError) -> StoreError {
        StoreError { verb, name: name.to_owned(), place: self.place(name), reason: error.to_string() }
    }
}

impl fmt::Debug for AwsSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSecrets").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl SecretStore for AwsSecrets {
    fn read(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.below().read(name)
    }

    fn write(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.below().write(name, value)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.below().remove(name)
    }
}

impl SecretStore for Below<'_> {
    fn read(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.aws.secret(&self.place(name)).map_err(|error| self.failed("read", name, &error))
    }

    fn write(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let written = self.aws.put_secret(&self.place(name), value, self.tags);
        written.map(|_| ()).map_err(|error| self.failed("write", name, &error))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.aws.delete_secrets(&[self.place(name)]).map_err(|error| self.failed("remove", name, &error))
    }
}

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
            let kept = rotation::finish_if_due(&Below::of(account, aws))?;
            detail.push("token keys kept".to_owned());
            detail.extend(kept.map(|id| format!("key {id} withdrawn")));
        } else {
            // Read by nobody here and written to no file: what instances need is in the parameter alone.
            let keys = TokenKeys::generate().map_err(StateError::io("make token keys for", name.as_ref()))?;
            let value = serde_json::to_string(&keys)
                .map_err(|error| StateError::io("write", name.as_ref())(std::io::Error::other(error)))?;
            // Another deploy may have made them since the look: those stay, since instances may have them.
            let made = aws.make_secret(name, &value, &tags(account))?;
            detail.push(if made { "token keys made" } else { "token keys kept" }.to_owned());
            if made && state.outputs()?.is_some() {
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
        if aws.make_secret(name, &password, &tags(account))? {
            detail.push("answerer's password made".to_owned());
        }
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
