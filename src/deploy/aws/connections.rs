//! Connections to accounts.

use std::collections::BTreeMap;

use sipedge_aws::{Aws, AwsError, Settings};

use super::proxies::Proxies;
use crate::plan::AwsPlan;

/// What is kept from one look at accounts to the next: connections, and what proxies have answered.
#[derive(Debug, Default)]
pub struct Connections {
    accounts: Vec<(Settings, Aws)>,
    /// By the group's name.
    proxies: BTreeMap<String, Proxies>,
}

impl Connections {
    /// The connection to the account that a plan names; made when there is none yet.
    ///
    /// # Errors
    /// As [`connect`].
    pub fn to(&mut self, account: &AwsPlan) -> Result<&Aws, AwsError> {
        let wanted = settings(account);
        let place = match self.accounts.iter().position(|(settings, _)| *settings == wanted) {
            Some(place) => place,
            None => {
                let aws = Aws::connect(&wanted)?;
                self.accounts.push((wanted.clone(), aws));
                self.accounts.len() - 1
            }
        };
        self.accounts.get(place).map(|(_, aws)| aws).ok_or_else(|| AwsError::Setup {
            what: format!("the connection to {}", wanted.region),
            reason: "it was not kept".to_owned(),
        })
    }

    /// What the proxies of a group have answered; taken out until it is put back.
    pub(super) fn take_proxies(&mut self, group: &str) -> Option<Proxies> {
        self.proxies.remove(group)
    }

    /// Keeps them for the next look.
    pub(super) fn keep_proxies(&mut self, group: &str, proxies: Proxies) {
        self.proxies.insert(group.to_owned(), proxies);
    }

    /// Makes each connection anew at its next use: credentials may have come meanwhile.
    pub fn forget(&mut self) {
        self.accounts.clear();
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
