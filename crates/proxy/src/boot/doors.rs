//! The ports that a configuration opens, for the firewall of the machine.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::source::{Document, USER_DATA};
use super::{BootError, Signals, check, read};
use crate::config::Config;

/// The table of nftables whose sets of ports are filled; the role `base` of `ansible/` makes it.
const TABLE: &str = "inet sipedge";

/// The ports on which a configuration listens. Its text is a script for `nft --file`, one transaction, after which these ports and no others
/// are in the sets `sip_udp`, `sip_tcp` and `health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doors {
    sip_udp: BTreeSet<u16>,
    sip_tcp: BTreeSet<u16>,
    health: u16,
}

impl Doors {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let listen = &config.listen;
        let tcp = listen.tcp.then_some(listen.ingress_port);
        Self {
            sip_udp: [listen.ingress_port, listen.egress_port].into(),
            sip_tcp: tcp.into_iter().chain(listen.tls.as_ref().map(|tls| tls.port)).collect(),
            health: config.admin.port,
        }
    }

    /// Those of a configuration file.
    ///
    /// # Errors
    /// [`BootError`]: the file cannot be read, or is refused.
    pub fn of_file(file: &Path) -> Result<Self, BootError> {
        let config = read(file)?;
        check(&config, &file.display().to_string())?;
        Ok(Self::of(&config))
    }

    /// Those of this instance's user-data; none when the process was told to end before. `deadline`: for the metadata. `health` becomes the
    /// address at which this instance is asked whether it is ready, as it gets known.
    ///
    /// # Errors
    /// [`BootError`]: no metadata, no user-data, or they are refused.
    pub async fn of_instance(
        metadata: &str,
        deadline: Duration,
        health: &mut SocketAddr,
    ) -> Result<Option<Self>, BootError> {
        let mut signals = Signals::new()?;
        let document = Document::UserData { metadata: metadata.to_owned(), deadline };
        let begun = tokio::select! {
            begun = document.begin(health) => begun?,
            () = signals.terminated() => return Ok(None),
        };
        check(&begun.config, USER_DATA)?;
        Ok(Some(Self::of(&begun.config)))
    }
}

impl fmt::Display for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let health = BTreeSet::from([self.health]);
        for (set, ports) in [("sip_udp", &self.sip_udp), ("sip_tcp", &self.sip_tcp), ("health", &health)] {
            writeln!(f, "flush set {TABLE} {set}")?;
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            if !ports.is_empty() {
                writeln!(f, "add element {TABLE} {set} {{ {} }}", ports.join(", "))?;
            }
        }
        Ok(())
    }
}
