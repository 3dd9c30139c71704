//! Checks of ports and certificates.

use std::collections::BTreeSet;

use super::{Checks, trunk};
use crate::spec::ADMIN_PORT;
use crate::spec::report::What;
use crate::spec::structure::{listed, nearest};
use crate::spec::tree::Path;

pub(super) fn ports(checks: &mut Checks<'_>) {
    let listen = checks.spec.listen.clone();
    let (port, tls_port) = (Path::of(["listen", "port"]), Path::of(["listen", "tls", "port"]));
    if listen.port == ADMIN_PORT {
        checks.report(port.clone(), taken_by_admin("listen.port"));
    }
    let egress = Path::of(["egress", "port"]);
    if checks.spec.egress.port == ADMIN_PORT {
        checks.report(egress.clone(), taken_by_admin("egress.port"));
    }
    let Some(tls) = &listen.tls else { return };
    if checks.spec.egress.port == tls.port && checks.all_sound(&[egress.clone(), tls_port.clone()]) {
        let at = if checks.document.at(&egress).is_some() { egress } else { tls_port.clone() };
        let message = format!(
            "`egress.port` and `listen.tls.port` are both {}: the security group cannot tell answers to the edge from calls to it",
            tls.port
        );
        checks.report(at, What::error("spec::ports", message, "write another egress port, such as 5080"));
    }
    if tls.port == ADMIN_PORT {
        checks.report(tls_port.clone(), taken_by_admin("listen.tls.port"));
    }
    if listen.port == tls.port && checks.all_sound(&[port.clone(), tls_port.clone()]) {
        let at = if checks.document.at(&tls_port).is_some() { tls_port } else { port };
        let message = format!(
            "`listen.port` and `listen.tls.port` are both {}: a load balancer has one listener per port, and it cannot tell TLS from TCP",
            tls.port
        );
        let help = "write another port for one of them; TLS is usually on 5061";
        checks.report(at, What::error("spec::ports", message, help));
    }
    let roots = Path::of(["listen", "tls", "client_roots"]);
    if tls.require_client && tls.client_roots.is_none() && checks.is_sound(&roots) {
        let message = "clients have to show a certificate, but nothing says from which roots it may come";
        let help = "add `client_roots: NAME` with a PEM file of roots, or take `require_client` out";
        checks.report(Path::of(["listen", "tls", "require_client"]), What::error("spec::certificate", message, help));
    }
}

fn taken_by_admin(setting: &str) -> What {
    What::error(
        "spec::ports",
        format!("`{setting}` is {ADMIN_PORT}, where each instance answers health checks and metrics"),
        "write another port; SIP's are 5060 and 5061",
    )
}

/// Every certificate that is named is there, and every one that is there is named.
pub(super) fn certificates(checks: &mut Checks<'_>) {
    let spec = checks.spec;
    let mut named: Vec<(Path, &String)> = Vec::new();
    if let Some(tls) = &spec.listen.tls {
        let at = |setting: &str| Path::of(["listen", "tls", setting]);
        named.push((at("certificate"), &tls.certificate));
        named.extend(tls.client_roots.iter().map(|roots| (at("client_roots"), roots)));
    }
    for (name, settings) in &spec.trunks {
        let Some(tls) = &settings.tls else { continue };
        let at = |setting: &str| trunk(name, "tls").key(setting);
        named.extend(tls.certificate.iter().map(|certificate| (at("certificate"), certificate)));
        named.extend(tls.roots.iter().map(|roots| (at("roots"), roots)));
    }
    let all = Path::of(["certificates"]);
    let known: Vec<&str> = spec.certificates.keys().map(String::as_str).collect();
    for (at, name) in &named {
        if known.contains(&name.as_str()) || !checks.is_sound(&all) {
            continue;
        }
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => {
                format!("add `certificates: {{ {name}: {{ file: {name}.pem }} }}` with your PEM file")
            }
            None => format!("the certificates are {}", listed(known.iter().copied())),
        };
        checks.report(at.clone(), What::error("spec::certificate", format!("there is no certificate `{name}`"), help));
    }
    let named: BTreeSet<&String> = named.into_iter().map(|(_, name)| name).collect();
    let sound = checks.all_sound(&[Path::of(["listen"]), Path::of(["trunks"])]);
    for name in spec.certificates.keys().filter(|name| sound && !named.contains(name)) {
        let message = format!("nothing names the certificate `{name}`");
        let help = "name it in `listen.tls` or in a trunk's `tls`, or take it out";
        checks.report_key(all.key(name), What::warning("spec::unused", message, help));
    }
}
