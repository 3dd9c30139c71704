//! The little of AWS that an instance needs: its metadata, the credentials of its role, and four calls, signed here instead of by an
//! SDK that is larger than the proxy.

mod call;
mod client;
mod credentials;
mod endpoints;
mod error;
mod http;
mod metadata;
mod sign;
mod time;

pub use client::{Association, Cloud, Patience};
pub use endpoints::Endpoints;
pub use error::CloudError;
pub use metadata::{METADATA_URL, Metadata, MetadataError};

/// The lifecycle action of one instance at one hook of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleAction {
    /// The autoscaling group.
    pub group: String,
    /// The hook's name.
    pub hook: String,
    /// The instance.
    pub instance: String,
}
