//! What the Internet sends to an edge: scanners, forged requests within other people's calls, noise.

use std::net::SocketAddr;

use crate::agent::Datagram;
use crate::profile::EDGE;
use crate::rng::Rng;
use crate::wire::Msg;

/// One datagram from an address that no trunk has. `seen`: messages of carriers, as somebody could have overheard them.
pub fn datagram(rng: &mut Rng, seen: &[Vec<u8>]) -> Option<Datagram> {
    let from = SocketAddr::new([203, 0, 113, 128 + rng.range(0, 100) as u8].into(), rng.range(1_024, 60_000) as u16);
    let overheard = if seen.is_empty() { None } else { Msg::parse(rng.pick(seen).as_slice()).ok() };
    let branch = format!("z9hG4bKstranger{:x}", rng.next());
    let bytes = match (rng.range(0, 6), overheard) {
        (0, _) => (0..rng.range(0, 600)).map(|_| rng.next() as u8).collect(),
        (1, Some(msg)) => {
            let mut bytes = msg.to_bytes();
            // Cut before the end of the headers: never a whole message.
            bytes.truncate(rng.range(0, 60) as usize);
            bytes
        }
        (2 | 3, Some(mut msg)) => {
            // Somebody else's request, as a transaction of the stranger's own, with a token that was made up.
            rewrite_via(&mut msg, from, &branch);
            let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let token: String = (0..32).map(|_| char::from(*rng.pick(letters))).collect();
            let host = *rng.pick(&[EDGE, "203.0.113.10", "10.0.0.10:5060", "10.0.1.10:5080"]);
            for (name, value) in &mut msg.headers {
                if name == "Route" {
                    *value = format!("<sip:{token}@{host};lr>");
                }
            }
            if rng.chance(50) {
                msg.headers.push(("Route".into(), "<sip:198.51.100.4;lr>".into()));
            }
            msg.to_bytes()
        }
        (4, Some(mut msg)) => {
            // A good token in the wrong call.
            rewrite_via(&mut msg, from, &branch);
            for (name, value) in &mut msg.headers {
                if matches!(name.as_str(), "Call-ID" | "i") {
                    value.push_str("-other");
                }
            }
            msg.to_bytes()
        }
        _ => {
            let method = *rng.pick(&["INVITE", "OPTIONS", "REGISTER", "BYE", "CANCEL", "ACK", "MESSAGE", "FOO"]);
            let tag = if rng.chance(50) { ";tag=x" } else { "" };
            let head =
                format!("{method} sip:+1900@203.0.113.10 SIP/2.0\r\nVia: SIP/2.0/UDP {from};rport;branch={branch}\r\n");
            let rest = format!(
                "From: <sip:s@{from}>;tag=s\r\nTo: <sip:+1900@x>{tag}\r\nCall-ID: call-0-{branch}\r\nCSeq: 1 {method}\r\n"
            );
            format!("{head}Max-Forwards: 70\r\n{rest}Contact: <sip:{from}>\r\nContent-Length: 0\r\n\r\n").into_bytes()
        }
    };
    Some(Datagram { from, to: EDGE.parse().ok()?, bytes })
}

fn rewrite_via(msg: &mut Msg, from: SocketAddr, branch: &str) {
    if let Some((_, value)) = msg.headers.iter_mut().find(|(name, _)| name == "Via") {
        *value = format!("SIP/2.0/UDP {from};rport;branch={branch}");
    }
}
