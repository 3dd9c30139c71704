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

#[cfg(test)]
mod tests {
    /// The policy of the role that Terraform makes.
    const POLICY: &str = include_str!("../../../../terraform/modules/instances/iam.tf");

    #[test]
    fn the_role_may_do_every_action_that_is_called() {
        let source = include_str!("client.rs");
        let is_action = |text: &&str| {
            let mut parts = text.split(':');
            let service = parts.next().is_some_and(|name| ["ssm", "ec2", "autoscaling"].contains(&name));
            let is_name = |name: &str| !name.is_empty() && name.bytes().all(|letter| letter.is_ascii_alphabetic());
            service && parts.next().is_some_and(is_name) && parts.next().is_none()
        };
        let called: Vec<&str> = source.split('"').filter(is_action).collect();
        // Each call is named where it is made.
        assert_eq!(called.len(), 4, "{called:?}");
        assert_eq!(source.matches("::json(").count() + source.matches("::query(").count(), 3, "a call without a name");
        for action in called {
            assert!(POLICY.contains(&format!("\"{action}\"")), "{action} is not allowed by iam.tf");
        }
    }
}
