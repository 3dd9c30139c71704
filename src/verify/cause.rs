//! The likely causes of failed checks, read off the messages that did come.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rsip::Request;

use super::Addresses;
use super::agent::{AgentError, Via, route_host, values};

/// What the messages are compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clues<'a> {
    pub(super) addresses: &'a Addresses,
    pub(super) names: &'a BTreeMap<String, IpAddr>,
}

impl Clues<'_> {
    /// Why an INVITE did not arrive.
    pub(super) fn unreached(&self, error: &AgentError, caller: IpAddr) -> String {
        match error {
            AgentError::Instead { code: Some(403), .. } => {
                format!("the edge does not know the caller's address {caller}: add it to the source trunk's `from`")
            }
            AgentError::Instead { code: Some(404 | 416), .. } => "no route leads from the caller's trunk to the destination".to_owned(),
            AgentError::Instead { code: Some(503), .. } => {
                "the edge has no address for the destination's domain, drains, or has reached a limit of the trunk".to_owned()
            }
            AgentError::Instead { code: Some(408), .. } => {
                "the edge sent the INVITE to an address where nobody answers: the destination's domain resolves to another one".to_owned()
            }
            AgentError::Instead { .. } => "the edge refuses the call by itself; its log says why".to_owned(),
            _ => "no instance is healthy behind the ingress address, the caller's address is refused in silence, or the destination's \
                  domain resolves to another address"
                .to_owned(),
        }
    }

    /// What is wrong with the Via by which responses are to find their way back.
    pub(super) fn via(&self, invite: &Request) -> Option<String> {
        let via = match Via::top(&invite.headers) {
            Ok(via) => via,
            Err(error) => return Some(error.to_string()),
        };
        let ingress = self.addresses.ingress.ip();
        if !self.is_ingress(&via.host) {
            return Some(format!(
                "the edge advertises {} in Via: set `advertise` to its public address {ingress}",
                via.host
            ));
        }
        (!via.rport).then(|| {
            format!(
                "the edge's Via has no rport: the callee answers to port {} and not to the port that the INVITE came from, and no NAT \
                 flow leads back from there",
                via.port.unwrap_or(5060)
            )
        })
    }

    /// What is wrong with the Record-Route by which requests in the dialog are to find the edge.
    pub(super) fn routes(&self, routes: &[String]) -> Option<String> {
        let ingress = self.addresses.ingress.ip();
        let Some(top) = routes.first() else {
            return Some("the edge puts no Record-Route into the INVITE: requests in the dialog go past it".to_owned());
        };
        match route_host(top) {
            Ok(host) if self.is_ingress(&host) => None,
            Ok(host) => Some(format!(
                "the edge advertises {host} in Record-Route: set `advertise` to its public address {ingress}"
            )),
            Err(error) => Some(error.to_string()),
        }
    }

    /// [`Clues::routes`] of the INVITE as it reached the callee.
    pub(super) fn routes_of(&self, invite: &Request) -> Option<String> {
        self.routes(&values(&invite.headers, "Record-Route"))
    }

    /// Why a response did not come back, judged by the INVITE that the callee got.
    pub(super) fn response_lost(&self, invite: &Request) -> String {
        self.via(invite).unwrap_or_else(|| {
            "the edge does not relay it to the caller, or by a socket other than the one that the INVITE came in by"
                .to_owned()
        })
    }

    /// Whether a request came from an address that the peer whitelists; if not, why.
    pub(super) fn egress(&self, source: IpAddr) -> Result<(), String> {
        let addresses = self.addresses;
        if addresses.egress.contains(&source) {
            return Ok(());
        }
        Err(match source == addresses.ingress.ip() {
            true => {
                "requests leave by the ingress socket: they have to leave by the egress port, through the NAT gateway"
                    .to_owned()
            }
            false => {
                "requests leave from an address that no carrier was told to admit, or go past the edge for want of a \
                      Record-Route"
                    .to_owned()
            }
        })
    }

    /// The egress addresses in words.
    pub(super) fn egress_words(&self) -> String {
        self.addresses.egress.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    }

    fn is_ingress(&self, host: &str) -> bool {
        let address = host.parse().ok().or_else(|| self.names.get(&host.to_ascii_lowercase()).copied());
        address == Some(self.addresses.ingress.ip())
    }
}
