//! Connections to accounts.

use sipedge_aws::{Aws, AwsError, Settings};

use crate::plan::AwsPlan;

/// Connections that are kept from one look at an account to the next.
#[derive(Debug, Default)]
pub struct Connections(Vec<(Settings, Aws)>);

impl Connections {
    /// The connection to the account that a plan names; made when there is none yet.
    ///
    /// # Errors
    /// As [`connect`].
    pub fn to(&mut self, account: &AwsPlan) -> Result<&Aws, AwsError> {
        let wanted = settings(account);
        let place = match self.0.iter().position(|(settings, _)| *settings == wanted) {
            Some(place) => place,
            None => {
                let aws = Aws::connect(&wanted)?;
                self.0.push((wanted.clone(), aws));
                self.0.len() - 1
            }
        };
        self.0.get(place).map(|(_, aws)| aws).ok_or_else(|| AwsError::Setup {
            what: format!("the connection to {}", wanted.region),
            reason: "it was not kept".to_owned(),
        })
    }

    /// Makes each anew at its next use: credentials may have come meanwhile.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// The account that the plan names.
///
/// # Errors
/// No credentials, no such profile, no such region.
pub fn connect(account: &AwsPlan) -> Result<Aws, AwsError> {
    Aws::connect(&settings(account))
}

fn settings(account: &AwsPlan) -> Settings {
    Settings { region: account.region.clone(), profile: Some(account.profile.clone()) }
}
