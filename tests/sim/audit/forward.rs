//! What changes of a message on its way, and nothing else may.

use std::net::SocketAddr;

use sipedge_proxy::engine::Transport;

use super::{Audit, Sent};
use crate::profile::{edge, transport_suffix};
use crate::wire::{Msg, address, hop, is_name, parameter, uri_of};

impl Audit {
    /// A request that goes on: one Via, one Max-Breadth and, for a new call, the edge's Record-Route more, two of them where the
    /// transports differ; all else as it came, in its order.
    pub(super) fn forwarded_request(
        &self,
        (source, arrival): (SocketAddr, Transport),
        input: &Msg,
        (one, output): (&Sent, &Msg),
        breadth: usize,
    ) -> Result<(), String> {
        let is_initial = input.tag("To").is_empty();
        let opens = input.method() == "INVITE" && is_initial;
        // RFC 5393 §5.3.3: the sender had none; a CANCEL that is sent to several goes on as broad as it came.
        let breadth = if opens { breadth } else { 60 };
        let allowed = |value: &str| value == breadth.to_string() || (input.method() == "CANCEL" && value != "0");
        if !output.headers.get(1).is_some_and(|(name, value)| name == "Max-Breadth" && allowed(value)) {
            return Err(format!("{:?} instead of Max-Breadth: {breadth}", output.headers.get(1)));
        }
        let mut added = 2;
        if opens {
            let later = (arrival != one.transport).then_some(arrival);
            for transport in [one.transport].into_iter().chain(later) {
                let (name, value) = &output.headers[added];
                let ends = format!("@{}{};lr>", edge(transport), transport_suffix(transport));
                if name != "Record-Route" || hop(value) != Some((transport, edge(transport))) || !value.ends_with(&ends)
                {
                    return Err(format!("{name}: {value} instead of the edge's Record-Route over {transport}"));
                }
                added += 1;
            }
        }
        let mut is_top = true;
        let mut expected: Vec<(String, String)> = Vec::new();
        for (name, value) in input.headers.iter().filter(|(name, _)| !is_name(name, "Route")) {
            let mut value = value.clone();
            if is_name(name, "Via") && std::mem::take(&mut is_top) && parameter(&value, "rport") == Some("") {
                value = value.replacen(";rport", &format!(";rport={}", source.port()), 1);
                value += &format!(";received={}", source.ip());
            }
            if is_name(name, "Max-Forwards") {
                value = (value.parse::<u8>().unwrap_or_default() - 1).to_string();
            }
            expected.push((name.clone(), value));
        }
        let rest = output.headers[added..].iter().filter(|(name, _)| !is_name(name, "Route"));
        if !rest.clone().eq(expected.iter()) {
            return Err(format!("headers changed on the way: {:#?} became {:#?}", expected, rest.collect::<Vec<_>>()));
        }
        let is_own = |route: &String| address(route).is_some_and(|route| route.ip() == self.edge);
        let routes = input.list("Route").into_iter().skip_while(is_own);
        let routes: Vec<String> = routes.filter(|_| !is_initial).collect();
        if output.list("Route") != routes {
            return Err(format!("Route {:?} became {:?}", input.list("Route"), output.list("Route")));
        }
        let uri = if is_initial {
            let user = input.uri().split('@').next().unwrap_or_default();
            format!("{user}@{}", self.hosts.get(&one.to).map(String::as_str).unwrap_or_default())
        } else {
            input.uri().to_owned()
        };
        if output.uri() != uri || output.body != input.body {
            return Err(format!("Request-URI {} or body changed", output.uri()));
        }
        if !is_initial {
            let next = routes.first().map_or(input.uri(), |route| uri_of(route));
            if hop(next) != Some((one.transport, one.to)) {
                return Err(format!("a request for {next} went to {} over {}", one.to, one.transport));
            }
        }
        Ok(())
    }
}

/// A response that goes on: one Via less, and 503 as 500.
pub(super) fn forwarded_response(input: &Msg, output: &Msg) -> Result<(), String> {
    let is_start =
        input.start == output.start || (input.code() == 503 && output.start == "SIP/2.0 500 Server Internal Error");
    let mut expected = input.headers.clone();
    expected.remove(input.headers.iter().position(|(name, _)| is_name(name, "Via")).unwrap_or_default());
    if !is_start || expected != output.headers || input.body != output.body || output.code() == 503 {
        return Err(format!("a response changed on the way: {input:#?} became {output:#?}"));
    }
    Ok(())
}

/// A response of the edge: Via, From, To, Call-ID and CSeq of the request.
pub(super) fn own_answer(source: SocketAddr, input: &Msg, output: &Msg) -> Result<(), String> {
    if input.method() == "ACK" {
        return Err("an ACK was answered".to_owned());
    }
    let same = |name| input.get(name) == output.get(name);
    let is_to = output.get("To").starts_with(input.get("To"));
    let mut vias = input.list("Via");
    if parameter(&vias[0], "rport") == Some("") {
        vias[0] =
            vias[0].replacen(";rport", &format!(";rport={}", source.port()), 1) + &format!(";received={}", source.ip());
    }
    if !(same("From") && same("Call-ID") && same("CSeq") && is_to) || output.list("Via") != vias {
        return Err(format!("{} does not fit {input:#?}: {output:#?}", output.start));
    }
    Ok(())
}
