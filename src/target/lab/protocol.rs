//! What client and supervisor say to each other: one JSON line per request and per response over `control.sock`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{DrainTimes, InstanceId, LabError, LabStatus};
use crate::deploy::{Preferences, Refresh};

/// What a client asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    Status,
    AddInstance,
    KillInstance { id: InstanceId },
    PressPowerButton { id: InstanceId },
    TerminateInstance { id: InstanceId, grace_ms: u64 },
    SetRegistered { id: InstanceId, registered: bool },
    WaitHealthy { id: InstanceId, deadline_ms: u64 },
    FlushFlows,
    EndFlows { id: InstanceId },
    UdpSocket { namespace: String, address: SocketAddr },
    TcpSocket { namespace: String, address: SocketAddr },
    Namespace { name: String },
    HttpGet { id: InstanceId, path: String },
    Pin { namespace: String, source: SocketAddr, edge: SocketAddr, to: Vec<InstanceId> },
    SetSize { min: u32, max: u32 },
    PutVersion { user_data: String, drain: DrainTimes },
    StartRefresh { version: u64, preferences: Preferences },
    Refresh { id: String },
    RollBack { id: String },
    Cancel { id: String },
    Destroy,
}

/// What the supervisor answers. File descriptors travel beside `Descriptors`, in that order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Response {
    Done,
    Status(LabStatus),
    Added(InstanceId),
    Ended { exit_code: Option<i32> },
    Descriptors { count: usize },
    Http { status: u16, body: String },
    Target(Option<InstanceId>),
    Version(u64),
    Started { id: String },
    Refresh(Refresh),
    Failed(LabError),
}

/// What the supervisor says on its standard output, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Started {
    Ready,
    Failed(LabError),
}
