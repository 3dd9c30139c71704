//! The VPC's resolver: it knows the carriers' domains, and that nothing else exists.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::LabError;
use crate::plan::Carrier;

/// DNS (RFC 1035 §4.2.1).
const PORT: u16 = 53;
/// Seconds that an answer may be cached.
const TTL_S: u32 = 60;
/// Largest query that is read; a query for one name fits many times.
const MAX_QUERY: usize = 4096;

/// The domains and their addresses.
#[derive(Debug, Clone)]
pub(super) struct Zone(Vec<(String, Vec<IpAddr>)>);

impl Zone {
    /// The domains of the plan's carriers.
    pub(super) fn of(carriers: &[Carrier]) -> Self {
        let domains = carriers.iter().flat_map(|carrier| &carrier.domains);
        Self(domains.map(|domain| (normal(&domain.name), domain.addresses.clone())).collect())
    }

    /// Opens the socket, in the namespace in which this thread is.
    pub(super) async fn listen(address: Ipv4Addr) -> Result<UdpSocket, LabError> {
        let socket = UdpSocket::bind((address, PORT)).await;
        socket.map_err(|error| LabError::kernel(format!("listen as the resolver on {address}"), error))
    }

    /// Answers queries for ever.
    pub(super) async fn serve(self: Rc<Self>, socket: UdpSocket) {
        let mut buffer = vec![0; MAX_QUERY];
        loop {
            // An error is an ICMP message about an earlier answer: the client has gone.
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
            let Some(answer) = buffer.get(..length).and_then(|query| self.answer(query)) else { continue };
            if let Err(error) = socket.send_to(&answer, client).await {
                tracing::warn!(%client, %error, "cannot answer a DNS query");
            }
        }
    }

    /// The answer to a query; none to what is no query.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.queries.clone_from(&query.queries);
        match query.queries.as_slice() {
            [question] if query.metadata.op_code == OpCode::Query => {
                let name = normal(&question.name.to_ascii());
                match self.0.iter().find(|(domain, _)| *domain == name) {
                    None => answer.metadata.response_code = ResponseCode::NXDomain,
                    Some((_, addresses)) => {
                        let data = addresses.iter().filter_map(|address| match (question.query_type, address) {
                            (RecordType::A, IpAddr::V4(address)) => Some(RData::A(A(*address))),
                            (RecordType::AAAA, IpAddr::V6(address)) => Some(RData::AAAA(AAAA(*address))),
                            _ => None,
                        });
                        answer.add_answers(data.map(|data| Record::from_rdata(question.name.clone(), TTL_S, data)));
                    }
                }
            }
            _ => answer.metadata.response_code = ResponseCode::NotImp,
        }
        answer.to_vec().ok()
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;

    fn answer(name: &str, record_type: RecordType) -> (ResponseCode, Vec<RData>) {
        let zone = Zone(vec![("pstn.example".into(), vec!["203.0.113.7".parse().unwrap()])]);
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
        let answer = Message::from_vec(&zone.answer(&query.to_vec().unwrap()).unwrap()).unwrap();
        assert_eq!((answer.metadata.id, &answer.queries), (query.metadata.id, &query.queries));
        (answer.metadata.response_code, answer.answers.into_iter().map(|record| record.data).collect())
    }

    /// The proxy asks for NAPTR, SRV and addresses in turn: whatever was not answered would hold up each boot by seconds.
    #[test]
    fn every_question_that_the_proxy_has_is_answered() {
        let address = RData::A(A(Ipv4Addr::new(203, 0, 113, 7)));
        assert_eq!(answer("PSTN.example.", RecordType::A), (ResponseCode::NoError, vec![address]));
        for record_type in [RecordType::NAPTR, RecordType::SRV, RecordType::AAAA, RecordType::CNAME] {
            assert_eq!(answer("pstn.example.", record_type), (ResponseCode::NoError, vec![]), "{record_type}");
        }
        for service in ["_sip._udp", "_sip._tcp", "_sips._tcp"] {
            let name = format!("{service}.pstn.example.");
            assert_eq!(answer(&name, RecordType::SRV), (ResponseCode::NXDomain, vec![]), "{service}");
        }
        assert_eq!(answer("elsewhere.example.", RecordType::NAPTR), (ResponseCode::NXDomain, vec![]));
        assert_eq!(answer("elsewhere.example.", RecordType::A), (ResponseCode::NXDomain, vec![]));
    }
}
