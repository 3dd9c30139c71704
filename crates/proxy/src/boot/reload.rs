//! Reload: the configuration is read again from where it came, and taken up whole or not at all. The secrets are looked at besides, again
//! and again: those that have changed are taken up in the same way, with the configuration that is in force.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};

use super::secrets::{Digest, Secrets, SecretsError};
use super::source::{Document, Source};
use super::{BootError, DocumentError};
use crate::admin::report::{Reason, Reload};
use crate::admin::{Admin, ReloadRequest};
use crate::answerer::Service;
use crate::cloud::Patience;
use crate::config::Config;
use crate::net::{Proxy, ReloadError, Reloaded};

/// How long a reload waits for the metadata service. An instance that runs has a network: it answers within milliseconds.
const METADATA: Duration = Duration::from_secs(10);

/// How long secrets are waited for once the instance runs. The old ones go on, and the next look follows.
const SECRETS: Patience = Patience { after: Duration::from_secs(10), denied_may_pass: false };

/// Carries out reloads, one after the other, whoever wants them.
#[derive(Debug)]
pub(super) struct Reloader {
    source: Source,
    proxy: Arc<Proxy>,
    admin: Arc<Admin>,
    answerer: Arc<Service>,
    /// The secrets in force.
    in_force: Digest,
    /// The last ones that were refused: they are not tried again.
    refused: Option<Digest>,
}

/// Sections of the configuration that changed, and what becomes of calls in progress.
type Taken = (Vec<String>, Vec<String>);

impl Reloader {
    /// Reloads from `source`, whose secrets `in_force` stands for.
    pub(super) fn new(
        mut source: Source,
        in_force: Digest,
        proxy: Arc<Proxy>,
        admin: Arc<Admin>,
        answerer: Arc<Service>,
    ) -> Self {
        if let Document::UserData { deadline, .. } = &mut source.document {
            *deadline = (*deadline).min(METADATA);
        }
        source.patience = SECRETS;
        Self { source, proxy, admin, answerer, in_force, refused: None }
    }

    /// Reloads at every SIGHUP and at every request, and looks at the secrets as often as the configuration says, until it is dropped.
    pub(super) async fn run(mut self, mut hang_up: Signal, mut requests: Receiver<ReloadRequest>) {
        let mut looked = Instant::now();
        let mut part = jitter();
        loop {
            let poll_s = self.proxy.setup().config.secrets.poll_s;
            let next = looked + Duration::from_secs(poll_s.into()).mul_f64(part);
            tokio::select! {
                () = sleep_until(next), if poll_s > 0 => {
                    self.look().await;
                    (looked, part) = (Instant::now(), jitter());
                }
                Some(()) = hang_up.recv() => drop(self.reload("SIGHUP").await),
                Some(reply) = requests.recv() => {
                    let reload = self.reload("control").await;
                    // Whoever asked may have gone; the reload is done all the same.
                    let _ = reply.send(reload);
                }
            }
        }
    }

    async fn reload(&mut self, trigger: &str) -> Reload {
        let taken = self.take_up().await;
        let reload = self.admin.reloaded(trigger, taken);
        let configuration = &reload.configuration;
        if reload.reasons.is_empty() {
            let changed = reload.changed.join(", ");
            tracing::info!(trigger, hash = configuration.hash, changed, "configuration reloaded");
        }
        for consequence in &reload.consequences {
            tracing::warn!("reload: {consequence}");
        }
        for reason in &reload.reasons {
            tracing::error!(trigger, "reload refused: {reason}");
        }
        if !reload.reasons.is_empty() {
            tracing::error!(trigger, hash = configuration.hash, "the configuration of before stays in force");
        }
        reload
    }

    async fn take_up(&mut self) -> Result<Taken, Vec<Reason>> {
        let alone = |text: String| vec![Reason::new(text)];
        if self.proxy.is_draining() {
            return Err(alone(ReloadError::Draining.to_string()));
        }
        // A pipe gave what it had when the proxy started, and to wait for more would hold up all reloads after this one.
        if let Document::File(file) = &self.source.document
            && std::fs::metadata(file).is_ok_and(|file| !file.is_file())
        {
            let file = file.display();
            return Err(alone(format!("{file}: is no regular file, and cannot be read again; restart with a file")));
        }
        let loaded = self.source.load().await.map_err(|error| reasons(&error))?;
        let mut refused: Vec<Reason> = loaded.errors.iter().flat_map(reasons).collect();
        if !refused.is_empty() {
            let restarts = loaded.place.map(|place| self.proxy.needs_restart(&loaded.config, &place));
            refused.extend(restarts.into_iter().flatten().map(|text| self.reason(text)));
            return Err(refused);
        }
        let (config, place, secrets) = loaded.whole().map_err(|error| reasons(&error))?;
        let changed = changed(&self.proxy.setup().config, &config);
        match self.proxy.reload(config, &place, &secrets.keys.for_engine(), &secrets.tls) {
            Ok(reloaded) => {
                let Reloaded { consequences } = self.settle(&secrets, reloaded).await;
                Ok((changed, consequences))
            }
            Err(ReloadError::Refused { reasons }) => Err(reasons.into_iter().map(|text| self.reason(text)).collect()),
            Err(error) => Err(alone(error.to_string())),
        }
    }

    /// Looks at the secrets, and takes them up if they have changed.
    async fn look(&mut self) {
        let setup = self.proxy.setup();
        let secrets = match self.source.vault.read(&setup.config, self.source.patience).await {
            Ok(secrets) => secrets,
            Err(errors) => return tell(&self.admin, &errors, AS_BEFORE),
        };
        if secrets.digest == self.in_force {
            self.refused = None;
            self.admin.looked_at_secrets(secrets.no_password.is_none());
            if let Some(error) = &secrets.no_password {
                tell(&self.admin, slice::from_ref(error), WITHOUT_PASSWORD);
            }
            return;
        }
        if self.refused == Some(secrets.digest) {
            return;
        }
        match self.proxy.renew(&secrets.keys.for_engine(), &secrets.tls) {
            Ok(reloaded) => {
                let Reloaded { consequences } = self.settle(&secrets, reloaded).await;
                self.admin.changed_secrets();
                tracing::info!(
                    token_keys =
                        secrets.keys.tokens.iter().map(|key| key.id.to_string()).collect::<Vec<_>>().join(", "),
                    "the secrets have changed and are taken up; the first token key signs"
                );
                for consequence in consequences {
                    tracing::warn!("secrets: {consequence}");
                }
            }
            Err(error) => {
                self.refused = Some(secrets.digest);
                self.admin.refused_secrets(error.to_string());
                tracing::error!("secrets refused: {error}; those of before stay in force");
            }
        }
    }

    /// Waits until all shards have what was taken up, and remembers that it is in force.
    async fn settle(&mut self, secrets: &Secrets, mut reloaded: Reloaded) -> Reloaded {
        (self.in_force, self.refused) = (secrets.digest, None);
        self.admin.secrets_in_force(&secrets.keys);
        if let Some(error) = &secrets.no_password {
            tell(&self.admin, slice::from_ref(error), WITHOUT_PASSWORD);
            reloaded.consequences.push(format!("the answerer: {}; {WITHOUT_PASSWORD}", error.cause()));
        }
        if let Err(error) = self.answerer.follow(&self.proxy.setup().config, secrets.password.clone()) {
            // Calls matter more than the one that tries them.
            tracing::warn!("reload: the answerer cannot be called: {error}");
        }
        if !self.proxy.settled().await {
            tracing::warn!(
                "reload: a shard has not taken up the configuration within a second; it will, when it turns"
            );
        }
        reloaded
    }

    fn reason(&self, text: String) -> Reason {
        Reason { file: Some(self.source.origin()), ..Reason::new(text) }
    }
}

/// What becomes of secrets that cannot be had at a look.
const AS_BEFORE: &str = "those of before stay in force";

/// What becomes of an answerer whose password cannot be had.
pub(super) const WITHOUT_PASSWORD: &str =
    "it can be called by the password of before, if there was one, and else not at all; calls go on";

/// Tells of secrets that cannot be read, and counts it: once, until something else is wrong with them.
pub(super) fn tell(admin: &Admin, errors: &[SecretsError], consequence: &str) {
    let text = errors.iter().map(SecretsError::cause).collect::<Vec<_>>().join("; ");
    // What cannot be understood was changed by somebody; what cannot be reached was not.
    let is_refused =
        errors.iter().any(|error| matches!(error, SecretsError::Malformed { .. } | SecretsError::Password { .. }));
    let is_new = if is_refused { admin.refused_secrets(text.clone()) } else { admin.missed_secrets(text.clone()) };
    if is_new {
        let what = if is_refused { "refused" } else { "not read" };
        tracing::error!("secrets {what}: {text}; {consequence}");
    }
}

/// From 0.9 to 1.1, another one each time: instances that were started together do not look in step.
fn jitter() -> f64 {
    // Each RandomState has other keys.
    let random = RandomState::new().hash_one(0) as u32;
    0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX)
}

/// Names of the sections that differ.
fn changed(old: &Config, new: &Config) -> Vec<String> {
    // By name, so that none is forgotten. Writing both and comparing that would take half a second with a million prefixes.
    let Config {
        version,
        edge,
        listen,
        advertise,
        admin,
        dns,
        secrets,
        trunks,
        routes,
        refuse,
        timers,
        budgets,
        streams,
        drain,
        cloud,
        answerer,
    } = new;
    let mut names = Vec::new();
    let mut compare = |name: &str, is_same: bool| {
        if !is_same {
            names.push(name.to_owned());
        }
    };
    compare("admin", old.admin == *admin);
    compare("advertise", old.advertise == *advertise);
    compare("answerer", old.answerer == *answerer);
    compare("budgets", old.budgets == *budgets);
    compare("cloud", old.cloud == *cloud);
    compare("dns", old.dns == *dns);
    compare("drain", old.drain == *drain);
    compare("edge", old.edge == *edge);
    compare("listen", old.listen == *listen);
    compare("refuse", old.refuse == *refuse);
    compare("routes", old.routes == *routes);
    compare("secrets", old.secrets == *secrets);
    compare("streams", old.streams == *streams);
    compare("timers", old.timers == *timers);
    compare("trunks", old.trunks == *trunks);
    compare("version", old.version == *version);
    names
}

fn reasons(error: &BootError) -> Vec<Reason> {
    let BootError::Document(DocumentError { origin, reasons }) = error else {
        return vec![Reason::new(error.to_string())];
    };
    let reason = |reason: &super::Reason| Reason {
        file: Some(origin.clone()),
        line: reason.position.map(|at| at.line),
        column: reason.position.map(|at| at.column),
        text: reason.text.clone(),
    };
    reasons.iter().map(reason).collect()
}
