//! From an interface without an address to a network: link, DHCP, address, route, resolv.conf.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use socket2::{Domain, Protocol, Socket, Type};

use crate::dhcp::{self, Answer, Kind, Question};

/// How long an address is asked for before the machine says that there is none: longer than a port of a VPC takes to come up.
const DEADLINE: Duration = Duration::from_secs(60);

/// First and longest pause before a question is asked again (RFC 2131, 4.1 starts at 4 s: too slow for a machine that starts in 3).
const PATIENCE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// Pause between looks for an interface, whose driver may still be at work.
const LOOK: Duration = Duration::from_millis(20);

/// Lease of a server that says none, and bounds of when it is renewed: a server that says 0 or years is not followed.
const DEFAULT_LEASE: u32 = 3600;
const RENEWAL: (u32, u32) = (60, 86_400);

/// Bytes of the longest answer that is read: a frame.
const LONGEST: usize = 1600;

/// Protocol number of IPv4 in a frame (IEEE EtherType).
const ETHERTYPE_IPV4: u16 = 0x0800;

/// The interface that never leads anywhere.
const LOOPBACK: u32 = 1;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NetworkError {
    /// No device, or no driver for it.
    #[error("no Ethernet interface within {} s: the image has no driver for this machine's", DEADLINE.as_secs())]
    NoInterface,
    /// A call to the kernel failed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a change of links, addresses or routes.
    #[error("cannot {what}: {source}")]
    Netlink {
        /// What was to be done.
        what: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// Nobody answered.
    #[error("no DHCP server gave {interface} an address within {} s", DEADLINE.as_secs())]
    NoLease {
        /// The interface.
        interface: String,
    },
}

/// An interface and what the server said.
#[derive(Debug)]
pub(crate) struct Network {
    interface: String,
    hardware: [u8; 6],
    pub(crate) lease: Answer,
}

impl Network {
    /// Brings the first Ethernet interface up, and returns when it has an address.
    pub(crate) async fn bring_up() -> Result<Self, NetworkError> {
        let (connection, links, _) = rtnetlink::new_connection().map_err(system("open a route socket"))?;
        tokio::spawn(connection);
        up(&links, LOOPBACK).await?;
        let interface = first_interface().await?;
        let index = if_nametoindex(interface.as_str()).map_err(|error| system("find the interface")(error.into()))?;
        up(&links, index).await?;
        let hardware = hardware_address(&interface)?;
        let lease = ask(&interface, hardware).await?;
        configure(&links, index, &lease).await?;
        fs::write("/etc/resolv.conf", resolv_conf(&lease)).map_err(system("write /etc/resolv.conf"))?;
        Ok(Self { interface, hardware, lease })
    }

    /// Renews the lease for as long as the machine runs. An address that the server no longer grants is kept and said: a cloud never takes
    /// an instance's address away, and calls are up.
    pub(crate) async fn keep(self) {
        loop {
            let lease = self.lease.lease.unwrap_or(DEFAULT_LEASE);
            let half = (lease / 2).clamp(RENEWAL.0, RENEWAL.1);
            tokio::time::sleep(Duration::from_secs(half.into())).await;
            let question = Question::Renew { address: self.lease.address };
            match self.conversation().await.map(|mut talk| talk.send(question).map(|()| talk)) {
                Ok(Ok(mut talk)) => match talk.answer(PATIENCE.1).await {
                    Some(Answer { kind: Kind::Acknowledged, .. }) => tracing::debug!("lease renewed"),
                    Some(Answer { kind, .. }) => tracing::warn!(?kind, "the DHCP server does not renew the lease"),
                    None => tracing::warn!("no DHCP server renews the lease"),
                },
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lease"),
                Err(error) => tracing::warn!(%error, "cannot renew the lease"),
            }
        }
    }

    async fn conversation(&self) -> Result<Conversation, NetworkError> {
        Conversation::new(&self.interface, self.hardware)
    }
}

/// The two sockets of a conversation with DHCP servers.
///
/// An answer may be addressed to what the client does not have yet, and would not reach a UDP socket: it is read from the frames.
#[derive(Debug)]
struct Conversation {
    outgoing: Socket,
    incoming: Socket,
    transaction: u32,
    hardware: [u8; 6],
}

impl Conversation {
    fn new(interface: &str, hardware: [u8; 6]) -> Result<Self, NetworkError> {
        let outgoing =
            Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(system("open a UDP socket"))?;
        outgoing.set_reuse_address(true).map_err(system("share the DHCP port"))?;
        outgoing.set_broadcast(true).map_err(system("allow broadcasts"))?;
        outgoing.bind_device(Some(interface.as_bytes())).map_err(system("bind to the interface"))?;
        let port = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, dhcp::CLIENT_PORT);
        outgoing.bind(&port.into()).map_err(system("bind the DHCP port"))?;
        let protocol = Protocol::from(i32::from(ETHERTYPE_IPV4.to_be()));
        let incoming =
            Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).map_err(system("open a packet socket"))?;
        incoming.set_nonblocking(true).map_err(system("set a socket non-blocking"))?;
        Ok(Self { outgoing, incoming, transaction: drawn()?, hardware })
    }

    fn send(&mut self, question: Question) -> Result<(), NetworkError> {
        let bytes = dhcp::write(question, self.transaction, self.hardware);
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, dhcp::SERVER_PORT);
        self.outgoing.send_to(&bytes, &everybody.into()).map(drop).map_err(system("send to DHCP servers"))
    }

    /// The next answer to this conversation within `patience`. Looks again every few milliseconds: it is needed once in the life of a machine.
    async fn answer(&mut self, patience: Duration) -> Option<Answer> {
        let until = Instant::now() + patience;
        let mut frame = [0; LONGEST];
        loop {
            match (&self.incoming).read(&mut frame) {
                Ok(length) => {
                    let payload = frame.get(..length).and_then(dhcp::payload);
                    if let Some(answer) = payload.and_then(|bytes| dhcp::read(bytes, self.transaction, self.hardware)) {
                        return Some(answer);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::time::sleep(LOOK).await,
                Err(error) => {
                    tracing::warn!(%error, "cannot read frames");
                    tokio::time::sleep(LOOK).await;
                }
            }
            // Checked on frames too: other traffic must not keep it here.
            if Instant::now() >= until {
                return None;
            }
        }
    }
}

/// Asks until a server has given an address.
async fn ask(interface: &str, hardware: [u8; 6]) -> Result<Answer, NetworkError> {
    let until = Instant::now() + DEADLINE;
    let mut patience = PATIENCE.0;
    while Instant::now() < until {
        // A conversation of its own each time: a late answer to an earlier one is not taken for this one's.
        let mut talk = Conversation::new(interface, hardware)?;
        talk.send(Question::Discover)?;
        if let Some(offer) = talk.answer(patience).await.filter(|answer| answer.kind == Kind::Offer) {
            talk.send(Question::Request { address: offer.address, server: offer.server })?;
            if let Some(lease) = talk.answer(patience).await.filter(|answer| answer.kind == Kind::Acknowledged) {
                return Ok(lease);
            }
        }
        patience = (patience * 2).min(PATIENCE.1);
    }
    Err(NetworkError::NoLease { interface: interface.to_owned() })
}

async fn configure(links: &Handle, index: u32, lease: &Answer) -> Result<(), NetworkError> {
    if let Some(mtu) = lease.mtu {
        let message = LinkUnspec::new_with_index(index).mtu(u32::from(mtu)).build();
        links.link().set(message).execute().await.map_err(netlink("set the MTU"))?;
    }
    let address = links.address().add(index, IpAddr::V4(lease.address), lease.prefix).execute().await;
    address.map_err(netlink("add the address"))?;
    if let Some(router) = lease.router {
        // On the link whatever the prefix says: some networks give single addresses.
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(router)
            .output_interface(index)
            .pref_source(lease.address)
            .onlink()
            .build();
        links.route().add(route).execute().await.map_err(netlink("add the default route"))?;
    }
    Ok(())
}

async fn up(links: &Handle, index: u32) -> Result<(), NetworkError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    links.link().set(message).execute().await.map_err(netlink("set a link up"))
}

/// The first interface by name that is Ethernet and no bridge or the like: it has a device.
async fn first_interface() -> Result<String, NetworkError> {
    let until = Instant::now() + DEADLINE;
    loop {
        let mut names: Vec<String> = fs::read_dir("/sys/class/net")
            .map_err(system("list interfaces"))?
            .flatten()
            .filter(|entry| entry.path().join("device").exists() && is_ethernet(&entry.path()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        if let Some(name) = names.into_iter().next() {
            return Ok(name);
        }
        if Instant::now() >= until {
            return Err(NetworkError::NoInterface);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// ARPHRD_ETHER is 1.
fn is_ethernet(interface: &Path) -> bool {
    fs::read_to_string(interface.join("type")).is_ok_and(|kind| kind.trim() == "1")
}

fn hardware_address(interface: &str) -> Result<[u8; 6], NetworkError> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/address")).map_err(system("read the address"))?;
    let bytes: Vec<u8> = text.trim().split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let wrong = |_| system("read the address")(io::Error::new(ErrorKind::InvalidData, text.trim().to_owned()));
    bytes.try_into().map_err(wrong)
}

fn resolv_conf(lease: &Answer) -> String {
    let search = lease.domain.iter().map(|domain| format!("search {domain}\n"));
    search.chain(lease.name_servers.iter().map(|server| format!("nameserver {server}\n"))).collect()
}

/// A number that two machines that start at once do not share.
fn drawn() -> Result<u32, NetworkError> {
    let mut bytes = [0; 4];
    let mut source = fs::File::open("/dev/urandom").map_err(system("open /dev/urandom"))?;
    source.read_exact(&mut bytes).map_err(system("read /dev/urandom"))?;
    Ok(u32::from_ne_bytes(bytes))
}

fn system(what: &'static str) -> impl Fn(io::Error) -> NetworkError {
    move |source| NetworkError::System { what, source }
}

fn netlink(what: &'static str) -> impl Fn(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Netlink { what, source }
}
