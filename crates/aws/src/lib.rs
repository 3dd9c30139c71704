//! What sipedge asks of an AWS account, and nothing more: a blocking facade over the AWS SDK, which no other crate links.
//!
//! [`Aws::connect`] finds credentials by the SDK's own rules (environment, profiles, SSO, web identity, containers, instance metadata)
//! and says at once why there are none. Every call names what failed, where and why ([`AwsError`]). `AWS_ENDPOINT_URL`, `AWS_CA_BUNDLE`
//! and the proxies of the environment are honoured.

mod alarms;
mod classify;
mod client;
mod commands;
mod credentials;
mod error;
mod group;
mod images;
mod quotas;
mod refresh;
mod regions;
mod secrets;
mod snapshots;
mod targets;
mod templates;
mod uses;

pub use client::{Aws, Identity, Settings};
pub use commands::{CommandAnswer, CommandAnswers};
pub use error::{At, AwsError};
pub use group::{Group, GroupInstance};
pub use images::{BootMode, Image, ImageFilter, NewImage};
pub use refresh::{Refresh, RefreshPreferences};
pub use secrets::SecretInfo;
pub use snapshots::{BLOCK_BYTES, Block, NewSnapshot, Snapshot, Started};
pub use targets::TargetHealth;
pub use templates::TemplateVersion;
