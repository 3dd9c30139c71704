//! Reload: the configuration is read again from where it came, and taken up whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc::Receiver;

use super::source::{Document, Source};
use super::{BootError, DocumentError, read_password};
use crate::admin::report::{Reason, Reload};
use crate::admin::{Admin, ReloadRequest};
use crate::answerer::Service;
use crate::config::Config;
use crate::net::{Proxy, ReloadError};

/// How long a reload waits for the metadata service. An instance that runs has a network: it answers within milliseconds.
const METADATA: Duration = Duration::from_secs(10);

/// Carries out reloads, one after the other, whoever wants them.
#[derive(Debug)]
pub(super) struct Reloader {
    source: Source,
    proxy: Arc<Proxy>,
    admin: Arc<Admin>,
    answerer: Arc<Service>,
}

/// Sections of the configuration that changed, and what becomes of calls in progress.
type Taken = (Vec<String>, Vec<String>);

impl Reloader {
    /// Reloads from `source`.
    pub(super) fn new(mut source: Source, proxy: Arc<Proxy>, admin: Arc<Admin>, answerer: Arc<Service>) -> Self {
        if let Document::UserData { deadline, .. } = &mut source.document {
            *deadline = (*deadline).min(METADATA);
        }
        Self { source, proxy, admin, answerer }
    }

    /// Reloads at every SIGHUP and at every request, until it is dropped.
    pub(super) async fn run(self, mut hang_up: Signal, mut requests: Receiver<ReloadRequest>) {
        loop {
            tokio::select! {
                Some(()) = hang_up.recv() => drop(self.reload("SIGHUP").await),
                Some(reply) = requests.recv() => {
                    let reload = self.reload("control").await;
                    // Whoever asked may have gone; the reload is done all the same.
                    let _ = reply.send(reload);
                }
                else => return,
            }
        }
    }

    async fn reload(&self, trigger: &str) -> Reload {
        let reload = self.admin.reloaded(trigger, self.take_up().await);
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

    async fn take_up(&self) -> Result<Taken, Vec<Reason>> {
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
        let password = read_password(&loaded.config, &self.source.secrets);
        let password = password.map_err(|error| refused.push(Reason::new(error.to_string()))).ok().flatten();
        if !refused.is_empty() {
            let restarts = loaded.place.map(|place| self.proxy.needs_restart(&loaded.config, &place));
            refused.extend(restarts.into_iter().flatten().map(|text| self.reason(text)));
            return Err(refused);
        }
        let (config, place, keys, tls) = loaded.whole().map_err(|error| reasons(&error))?;
        let changed = changed(&self.proxy.setup().config, &config);
        match self.proxy.reload(config, &place, &keys, &tls) {
            Ok(reloaded) => {
                if let Err(error) = self.answerer.follow(&self.proxy.setup().config, password) {
                    // Calls matter more than the one that tries them.
                    tracing::warn!("reload: the answerer cannot be called: {error}");
                }
                if !self.proxy.settled().await {
                    tracing::warn!(
                        "reload: a shard has not taken up the configuration within a second; it will, when it turns"
                    );
                }
                Ok((changed, reloaded.consequences))
            }
            Err(ReloadError::Refused { reasons }) => Err(reasons.into_iter().map(|text| self.reason(text)).collect()),
            Err(error) => Err(alone(error.to_string())),
        }
    }

    fn reason(&self, text: String) -> Reason {
        Reason { file: Some(self.source.origin()), ..Reason::new(text) }
    }
}

/// Names of the sections that differ.
fn changed(old: &Config, new: &Config) -> Vec<String> {
    let sections = |config| match serde_json::to_value(config) {
        Ok(serde_json::Value::Object(sections)) => sections,
        // A configuration is always an object.
        _ => serde_json::Map::new(),
    };
    let (old, new) = (sections(old), sections(new));
    let mut names: Vec<String> =
        old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name)).cloned().collect();
    names.sort_unstable();
    names.dedup();
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
