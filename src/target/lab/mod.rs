//! The topologies on this machine: network namespaces joined by veth, NLB and NAT gateway as nf_tables rules, instance metadata, a
//! resolver, and one process per instance, kept by a supervisor.
//!
//! [`Lab`] is the client: it starts a supervisor, finds a running one by its folder, and talks to it over a Unix socket.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// Namespace that belongs to no carrier: the rest of the Internet.
pub const STRANGER_NAMESPACE: &str = "stranger";

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
}

impl Lab {
    /// Starts a supervisor with its state in `folder` and returns when the network stands: no instance yet.
    ///
    /// Writes the plan there first. A folder whose supervisor is gone is cleaned and used again; one that is damaged too.
    pub fn start(plan: &Plan, folder: &Path) -> Result<Self, LabError> {
        let _ = (plan, folder);
        unreachable!("stub")
    }

    /// The lab of `folder`, when its supervisor is alive.
    pub fn attach(folder: &Path) -> Result<Option<Self>, LabError> {
        let _ = folder;
        unreachable!("stub")
    }

    /// The state folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Instances, load balancer, addresses.
    pub fn status(&self) -> Result<LabStatus, LabError> {
        unreachable!("stub")
    }

    /// Boots one more instance. Returns at once; [`Lab::status`] tells when it is healthy.
    pub fn add_instance(&self) -> Result<InstanceId, LabError> {
        unreachable!("stub")
    }

    /// Kills an instance's processes (SIGKILL), takes it out of the load balancer and forgets its flows.
    pub fn kill_instance(&self, id: &InstanceId) -> Result<(), LabError> {
        let _ = id;
        unreachable!("stub")
    }

    /// Ends an instance as AWS does: out of the load balancer, SIGTERM, and SIGKILL after `grace`. Returns its exit status.
    pub fn terminate_instance(&self, id: &InstanceId, grace: Duration) -> Result<Option<i32>, LabError> {
        let _ = (id, grace);
        unreachable!("stub")
    }

    /// Takes an instance out of the load balancer: no new flows; existing ones go on.
    pub fn deregister(&self, id: &InstanceId) -> Result<(), LabError> {
        let _ = id;
        unreachable!("stub")
    }

    /// Puts an instance back; it gets flows once it is healthy.
    pub fn register(&self, id: &InstanceId) -> Result<(), LabError> {
        let _ = id;
        unreachable!("stub")
    }

    /// Forgets every tracked flow, as if all had idled out.
    pub fn flush_flows(&self) -> Result<(), LabError> {
        unreachable!("stub")
    }

    /// A UDP socket bound to `address` inside `namespace`.
    pub fn udp_socket(&self, namespace: &str, address: SocketAddr) -> Result<UdpSocket, LabError> {
        let _ = (namespace, address);
        unreachable!("stub")
    }

    /// `GET path` from an instance's admin port: status code and body.
    pub fn http_get(&self, id: &InstanceId, path: &str) -> Result<(u16, String), LabError> {
        let _ = (id, path);
        unreachable!("stub")
    }

    /// Stub.
    pub fn wait_healthy(&self, id: &InstanceId, deadline: Duration) -> Result<(), LabError> {
        let _ = (id, deadline);
        unreachable!("stub")
    }

    /// The last lines of an instance's log.
    pub fn log(&self, id: &InstanceId, lines: usize) -> Result<Vec<String>, LabError> {
        let _ = (id, lines);
        unreachable!("stub")
    }

    /// Ends all processes, namespaces and the supervisor, waits until they are gone, and removes the folder.
    pub fn destroy(self) -> Result<(), LabError> {
        unreachable!("stub")
    }
}

/// Replaces this process by `command`, run inside `namespace` of the lab in `folder`. Returns only on error.
///
/// Must be called before the process has a second thread.
pub fn exec(folder: &Path, namespace: &str, command: &[String]) -> LabError {
    let _ = (folder, namespace, command);
    unreachable!("stub")
}

/// The process that owns a lab: what `sipedge lab supervise FOLDER` (hidden) runs. Must be called before the process has a second thread.
pub fn supervise(folder: &Path) -> Result<(), LabError> {
    let _ = folder;
    unreachable!("stub")
}

/// Name of an instance, `i-1`, `i-2`, …; also its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub String);

/// What a lab is doing now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabStatus {
    /// Process id of the supervisor.
    pub supervisor_pid: i32,
    /// The instances, in the order they were started.
    pub instances: Vec<InstanceStatus>,
    /// Ingress addresses.
    pub ingress_addresses: Vec<IpAddr>,
    /// Addresses that new flows of the edge come from.
    pub egress_addresses: Vec<IpAddr>,
    /// The namespaces that `exec` and `udp_socket` know.
    pub namespaces: Vec<String>,
}

/// What one instance is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub id: InstanceId,
    /// Private address.
    pub address: IpAddr,
    /// Availability zone.
    pub zone: String,
    /// Process id, while it runs.
    pub pid: Option<i32>,
    /// Exit code, once it has ended by itself or by a signal (128 + number).
    pub exit_code: Option<i32>,
    /// Whether the load balancer counts it as a target.
    pub registered: bool,
    /// Whether its health check passes.
    pub healthy: bool,
}

/// Why the lab did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// Placeholder.
    #[error("{0}")]
    Other(String),
    /// Stub.
    #[error("cannot create a user namespace ({reason}): {setting}")]
    UserNamespaces {
        /// Stub.
        reason: String,
        /// Stub.
        setting: String,
    },
    /// Stub.
    #[error("no sipedge-proxy at {}", tried.display())]
    NoProxy {
        /// Stub.
        tried: PathBuf,
    },
}
