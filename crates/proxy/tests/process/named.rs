//! A running proxy whose calls go to a destination with a name.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sipedge_proxy::config::{Config, Target};
use sipedge_proxy::engine::{Control, Place};
use sipedge_proxy::net::{Proxy, TlsMaterial};

use super::dns::Dns;
use super::sip::{Agent, Message};
use super::{DEADLINE, EGRESS, INGRESS, address, config, keys};

/// The proxy, its caller and its name server.
pub struct Named {
    pub proxy: Proxy,
    pub edge: SocketAddr,
    pub caller: Agent,
    pub dns: Dns,
}

/// How long a call may take that nothing holds up. A name server that did not answer would take a second.
pub const AT_ONCE: Duration = Duration::from_millis(700);

impl Named {
    /// The edge is at the address with this number, its caller at the next one. It serves once its names have been answered.
    pub fn start(number: u8, targets: &[&str], dns: Dns) -> Self {
        let named = Self::start_unanswered(settings(number, targets, &dns), number, dns);
        named.wait_for_answers();
        named.proxy.control(Control::Open);
        named
    }

    /// It serves nobody yet.
    pub fn start_unanswered(config: Config, number: u8, dns: Dns) -> Self {
        let ip = address(number);
        let (edge, egress) = (SocketAddr::new(ip, INGRESS), SocketAddr::new(ip, EGRESS));
        let place = Place { ingress: edge, egress, advertised: ip.to_string(), shards: 2 };
        let proxy = Proxy::start(config, place, &keys(), &TlsMaterial::default()).unwrap();
        Self { proxy, edge, caller: Agent::bind(address(number + 1), 0), dns }
    }

    /// Waits until the name servers have answered, or not, whatever was asked for.
    pub fn wait_for_answers(&self) {
        let deadline = Instant::now() + DEADLINE;
        while self.proxy.names_unanswered() > 0 {
            assert!(Instant::now() < deadline, "{} names unanswered", self.proxy.names_unanswered());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A new call: which of `callees` gets it, and the INVITE. It is busy.
    pub fn call(&self, call_id: &str, callees: &[&Agent]) -> Option<(usize, Message)> {
        let started = Instant::now();
        self.caller.send(&self.caller.request("INVITE", &format!("sip:42@{}", self.edge), call_id), self.edge);
        while started.elapsed() < AT_ONCE {
            for (index, callee) in callees.iter().enumerate() {
                if let Some(invite) = callee.next(Duration::from_millis(1))
                    && invite.first_line().starts_with("INVITE")
                    && invite.header("Call-ID") == call_id
                {
                    callee.respond(&invite, "486 Busy Here");
                    self.caller.expect("486");
                    return Some((index, invite));
                }
            }
        }
        None
    }

    /// How many of so many calls each of `callees` gets.
    pub fn shares(&self, calls: usize, callees: &[&Agent]) -> Vec<usize> {
        let mut shares = vec![0; callees.len()];
        for call in 0..calls {
            let (callee, _) = self.call(&format!("share-{call}"), callees).expect("each call reaches a callee");
            shares[callee] += 1;
        }
        shares
    }
}

/// A configuration whose calls go to these targets.
pub fn settings(number: u8, targets: &[&str], dns: &Dns) -> Config {
    let mut config = config(address(number), address(number + 1), dns.address);
    config.trunks[1].targets = targets.iter().map(|target| Target::new(*target)).collect();
    config.dns.servers = vec![dns.address];
    config
}
