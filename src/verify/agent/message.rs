//! What the user agents read from messages, on top of rsip: header values by name in any form (long, compact, comma-separated), Via,
//! URIs of routes and contacts.

use std::net::{IpAddr, SocketAddr};

use rsip::common::uri::Host;
use rsip::headers::{ToTypedHeader, UntypedHeader};
use rsip::param::{OtherParam, OtherParamValue};
use rsip::{Headers, Method, Param, StatusCode, Uri};

use super::{AgentError, Hop};
use crate::spec::Transport;

/// Port of SIP over UDP and TCP when a URI or Via has none (RFC 3261 §18.1.1, §19.1.2).
const SIP_PORT: u16 = Transport::Udp.default_port();

/// The values of every header called `name`, in order, comma-separated lists split (RFC 3261 §7.3.1).
pub(crate) fn values(headers: &Headers, name: &str) -> Vec<String> {
    let compact = match name {
        "Via" => "v",
        "From" => "f",
        "To" => "t",
        "Call-ID" => "i",
        "Contact" => "m",
        _ => name,
    };
    headers
        .iter()
        .filter_map(|header| {
            let text = header.to_string();
            let (found, value) = text.split_once(':')?;
            let found = found.trim();
            (found.eq_ignore_ascii_case(name) || found.eq_ignore_ascii_case(compact)).then(|| split_list(value))
        })
        .flatten()
        .collect()
}

/// The first value of header `name`, or the reason why the message is of no use.
pub(crate) fn value(headers: &Headers, name: &'static str) -> Result<String, AgentError> {
    values(headers, name).into_iter().next().ok_or(AgentError::MissingHeader { name })
}

/// The tag parameter of a From or To value.
pub(crate) fn tag(value: &str) -> Option<String> {
    let parameters = value.rsplit_once('>').map_or(value, |(_, after)| after);
    parameters.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("tag").then(|| value.trim().to_owned())
    })
}

/// The URI of a name-addr or addr-spec, without angle brackets and header parameters.
pub(crate) fn uri_text(value: &str) -> &str {
    match value.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        Some((uri, _)) => uri,
        None => value.split(';').next().unwrap_or(value).trim(),
    }
}

/// CSeq number and method.
pub(crate) fn cseq(headers: &Headers) -> Result<(u32, Method), AgentError> {
    let text = value(headers, "CSeq")?;
    let malformed = || AgentError::Malformed { what: "CSeq", text: text.clone() };
    let (number, method) = text.split_once(' ').ok_or_else(malformed)?;
    let number = number.trim().parse().map_err(|_| malformed())?;
    let method = method.trim().parse().map_err(|_| malformed())?;
    Ok((number, method))
}

/// The top Via, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Via {
    /// Host of sent-by.
    pub(crate) host: String,
    /// Port of sent-by, when it has one.
    pub(crate) port: Option<u16>,
    /// The transaction's branch.
    pub(crate) branch: String,
    /// Whether the sender asks for RFC 3581.
    pub(crate) rport: bool,
}

impl Via {
    /// The first Via of a message.
    pub(crate) fn top(headers: &Headers) -> Result<Self, AgentError> {
        let text = value(headers, "Via")?;
        let malformed = || AgentError::Malformed { what: "Via", text: text.clone() };
        let via = rsip::headers::Via::new(text.clone()).typed().map_err(|_| malformed())?;
        let branch = via.branch().map(ToString::to_string).ok_or_else(malformed)?;
        let rport = via.params.iter().any(|parameter| is_other(parameter, "rport"));
        let port = via.uri.port().map(|port| *port.value());
        Ok(Self { host: via.uri.host().to_string(), port, branch, rport })
    }

    /// sent-by as text, as transaction keys have it.
    pub(crate) fn sent_by(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// Where a response goes that answers a request from `source` (RFC 3261 §18.2.2, RFC 3581 §4): by the connection that it came on;
    /// over UDP to source address and port when rport was asked for; else to the source address and the port of sent-by, whatever
    /// port the request came from.
    pub(crate) fn reply_hop(&self, source: Hop) -> Hop {
        match self.rport || source.transport != Transport::Udp {
            true => source,
            false => Hop::udp(SocketAddr::new(source.address.ip(), self.port.unwrap_or(SIP_PORT))),
        }
    }
}

/// The Via headers of a request as its response has them: received and rport filled in on the first (RFC 3261 §18.2.1, RFC 3581 §4).
pub(crate) fn vias_for_response(headers: &Headers, source: SocketAddr) -> Result<Vec<String>, AgentError> {
    let top = Via::top(headers)?;
    let mut vias = values(headers, "Via");
    if let Some(first) = vias.first_mut() {
        let mut typed = rsip::headers::Via::new(first.clone())
            .typed()
            .map_err(|_| AgentError::Malformed { what: "Via", text: first.clone() })?;
        if top.rport || top.host.parse::<IpAddr>().ok() != Some(source.ip()) {
            typed.params.retain(|parameter| !matches!(parameter, Param::Received(_)));
            typed.params.push(Param::Received(source.ip().to_string().into()));
        }
        if top.rport {
            typed.params.retain(|parameter| !is_other(parameter, "rport"));
            let port = OtherParamValue::new(source.port().to_string());
            typed.params.push(Param::Other(OtherParam::new("rport"), Some(port)));
        }
        *first = typed.to_string();
    }
    Ok(vias)
}

/// Parses the URI of a route or contact.
pub(crate) fn uri(text: &str) -> Result<Uri, AgentError> {
    Uri::try_from(text).map_err(|_| AgentError::Malformed { what: "URI", text: text.to_owned() })
}

/// The transport of a URI: its parameter, else UDP.
pub(crate) fn transport(uri: &Uri) -> Transport {
    let named = uri.params.iter().find_map(|parameter| match parameter {
        Param::Transport(transport) => Some(transport.to_string().to_ascii_lowercase()),
        _ => None,
    });
    Transport::ALL.into_iter().find(|known| Some(known.as_str()) == named.as_deref()).unwrap_or(Transport::Udp)
}

/// A URI of this user at this place.
pub(crate) fn contact(user: &str, hop: Hop) -> String {
    match hop.transport {
        Transport::Udp => format!("sip:{user}@{}", hop.address),
        other => format!("sip:{user}@{};transport={other}", hop.address),
    }
}

/// Host and port of a URI; the port defaults to that of its transport.
pub(crate) fn host_port(uri: &Uri) -> (String, u16) {
    let host = match uri.host() {
        Host::IpAddr(address) => address.to_string(),
        Host::Domain(domain) => domain.to_string(),
    };
    (host, uri.port().map_or(transport(uri).default_port(), |port| *port.value()))
}

/// The host of a Route or Record-Route value.
pub(crate) fn route_host(route: &str) -> Result<String, AgentError> {
    Ok(host_port(&uri(uri_text(route))?).0)
}

/// Whether a route is a loose router (RFC 3261 §16.12): its URI has `lr`, with or without a value.
pub(crate) fn is_loose(uri: &Uri) -> bool {
    uri.params.iter().any(|parameter| matches!(parameter, Param::Lr) || is_other(parameter, "lr"))
}

/// A status with the reason phrase of RFC 3261 §21.
pub(crate) fn status(code: u16) -> StatusCode {
    let reason = match code {
        100 => "Trying",
        180 => "Ringing",
        200 => "OK",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        500 => "Server Internal Error",
        _ => return StatusCode::from(code),
    };
    StatusCode::Other(code, reason.to_owned())
}

/// First line of a message.
pub(crate) fn start_line(raw: &str) -> String {
    raw.lines().next().unwrap_or_default().to_owned()
}

fn is_other(parameter: &Param, wanted: &str) -> bool {
    matches!(parameter, Param::Other(name, _) if name.value().eq_ignore_ascii_case(wanted))
}

/// Splits at commas that are neither quoted nor inside angle brackets.
pub(crate) fn split_list(value: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut quoted, mut bracketed, mut escaped) = (false, false, false);
    for character in value.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            ',' if !quoted && !bracketed => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    parts.push(part.trim().to_owned());
    parts
}

#[cfg(test)]
mod tests {
    use rsip::SipMessage;

    use super::*;

    fn headers(message: &SipMessage) -> &Headers {
        rsip::message::HasHeaders::headers(message)
    }

    fn request(headers: &str) -> SipMessage {
        SipMessage::try_from(format!("OPTIONS sip:a@192.0.2.1 SIP/2.0\r\n{headers}\r\n\r\n")).unwrap()
    }

    #[test]
    fn lists_and_compact_names_are_read_in_order() {
        let message = request(
            "v: SIP/2.0/UDP a:1;branch=z9hG4bK1, SIP/2.0/UDP b;branch=z9hG4bK2\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK3",
        );
        let vias = values(headers(&message), "Via");
        assert_eq!(vias.len(), 3, "{vias:?}");
        assert!(vias[1].starts_with("SIP/2.0/UDP b") && vias[2].starts_with("SIP/2.0/UDP c"), "{vias:?}");
    }

    #[test]
    fn commas_in_quotes_and_brackets_do_not_split() {
        assert_eq!(split_list("\"A, \\\" B\" <sip:a,b@c>, <sip:d>"), ["\"A, \\\" B\" <sip:a,b@c>", "<sip:d>"]);
    }

    #[test]
    fn a_reply_without_rport_goes_to_the_port_of_sent_by() {
        let message = request("Via: SIP/2.0/UDP 198.51.100.1:5070;branch=z9hG4bK1");
        let via = Via::top(headers(&message)).unwrap();
        let source = Hop::udp("203.0.113.9:1234".parse().unwrap());
        assert_eq!(via.reply_hop(source), Hop::udp("203.0.113.9:5070".parse().unwrap()));
        let connection = Hop { transport: Transport::Tcp, ..source };
        assert_eq!(via.reply_hop(connection), connection, "by the connection that it came on");
    }

    #[test]
    fn a_reply_with_rport_goes_where_the_request_came_from_and_says_so() {
        let message = request("Via: SIP/2.0/UDP 198.51.100.1;rport;branch=z9hG4bK1");
        let source = "203.0.113.9:1234".parse().unwrap();
        let hop = Hop::udp(source);
        assert_eq!(Via::top(headers(&message)).unwrap().reply_hop(hop), hop);
        let vias = vias_for_response(headers(&message), source).unwrap();
        assert!(vias[0].contains(";received=203.0.113.9") && vias[0].contains(";rport=1234"), "{vias:?}");
    }

    #[test]
    fn tags_uris_and_loose_routers_are_found() {
        assert_eq!(tag("\"x\" <sip:a@b;tag=no>;tag=yes").as_deref(), Some("yes"));
        assert_eq!(uri_text("\"x\" <sip:a@b;lr>;q=1"), "sip:a@b;lr");
        assert!(is_loose(&uri("sip:192.0.2.1:5060;lr;t=ab-12").unwrap()));
        assert!(!is_loose(&uri("sip:192.0.2.1:5060").unwrap()));
        for (text, expected, port) in [
            ("sip:192.0.2.1", Transport::Udp, 5060),
            ("sip:192.0.2.1;transport=TCP;lr", Transport::Tcp, 5060),
            ("sip:a.example;lr;transport=tls", Transport::Tls, 5061),
        ] {
            let uri = uri(text).unwrap();
            assert_eq!((transport(&uri), host_port(&uri).1), (expected, port), "{text}");
        }
    }
}
