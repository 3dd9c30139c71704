//! Reads a configuration document, from user-data or a file, with every reason why it cannot be used.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::BootError;
use crate::config::{Advertise, Cloud, Config, SecretRef, VERSION};
use crate::engine::{Place, Setup, TokenKey, TokenKeys};
use crate::net::{self, tls_references};

/// First line of user-data: what it is, and its format version. It is a YAML comment, so a configuration file may have it too.
pub const USER_DATA_MARKER: &str = "#sipedge-user-data 1";

/// A configuration document that cannot be used, with every reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", lines(origin, reasons).join("\n"))]
pub struct DocumentError {
    /// File name, or `user-data`.
    pub origin: String,
    /// At least one.
    pub reasons: Vec<Reason>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Line and column, from 1, where the text itself cannot be read.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// The setting, what is wrong, what would be right.
    pub text: String,
}

/// A place in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// Reads a configuration document: a file, or user-data. YAML, or JSON as the command `config --json` shows it, which takes a fifth of the
/// time: that counts where a trunk has a million sources.
pub fn parse(text: &str, origin: &str) -> Result<Config, DocumentError> {
    let refuse =
        |position, text: String| DocumentError { origin: origin.to_owned(), reasons: vec![Reason { position, text }] };
    if let Some(version) = marker_version(text)
        && Some(version) != marker_version(USER_DATA_MARKER)
    {
        let position = Some(Position { line: 1, column: 1 });
        let reason =
            format!("user-data format {version:?}: this build reads format 1 (first line `{USER_DATA_MARKER}`)");
        return Err(refuse(position, reason));
    }
    let json = text.starts_with('{').then(|| serde_json::from_str(text));
    let read = match json {
        Some(Ok(config)) => Ok(config),
        Some(Err(error)) if error.is_data() => {
            Err((Some(Position { line: error.line(), column: error.column() }), error.to_string()))
        }
        // What is no JSON may still be YAML.
        Some(Err(_)) | None => serde_yaml::from_str(text).map_err(|error| {
            let position = error.location().map(|at| Position { line: at.line(), column: at.column() });
            (position, error.to_string())
        }),
    };
    let version = match &read {
        Ok(Config { version, .. }) => Some(*version),
        // A document of another version is not judged by this version's keys.
        Err(_) => serde_yaml::from_str(text).ok().map(|Versioned { version }| version),
    };
    if let Some(version) = version.filter(|version| *version != VERSION) {
        return Err(refuse(None, format!("version: {version}: this build reads version {VERSION}")));
    }
    read.map_err(|(position, mut reason)| {
        if let Some(Position { line, column }) = position
            && let Some(stripped) = reason.strip_suffix(&format!(" at line {line} column {column}"))
        {
            reason = stripped.to_owned();
        }
        refuse(position, reason)
    })
}

/// Reads user-data, which has to begin with [`USER_DATA_MARKER`].
pub fn parse_user_data(user_data: &[u8]) -> Result<Config, DocumentError> {
    let origin = "user-data";
    let refuse = |line, text: String| DocumentError {
        origin: origin.into(),
        reasons: vec![Reason { position: Some(Position { line, column: 1 }), text }],
    };
    let text = std::str::from_utf8(user_data).map_err(|error| {
        let valid = user_data.get(..error.valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        refuse(line, "is not UTF-8 text: write it as `sipedge plan` renders it, neither compressed nor encoded".into())
    })?;
    if marker_version(text).is_none() {
        let first: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
        return Err(refuse(1, format!("the first line has to be `{USER_DATA_MARKER}`, but is `{first}`")));
    }
    parse(text, origin)
}

/// What is known of the instance, and its configuration checked against that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The private address that SIP and HTTP listen on.
    pub private: IpAddr,
    /// The public address, where there is one.
    pub public: Option<IpAddr>,
}

/// Where the proxy of `config` stands on `instance`.
///
/// `None`: it advertises the instance's public address, and there is none.
pub fn place(config: &Config, instance: &Instance) -> Option<Place> {
    let advertised = match &config.advertise {
        Advertise::Metadata => instance.public?.to_string(),
        Advertise::Listen => instance.private.to_string(),
        Advertise::Host(host) => host.clone(),
    };
    Some(Place {
        ingress: SocketAddr::new(instance.private, config.listen.ingress_port),
        egress: SocketAddr::new(instance.private, config.listen.egress_port),
        advertised,
        shards: net::shards(&config.listen),
    })
}

/// Checks a configuration as far as that goes without its instance and its secrets: with stand-ins for both.
pub fn check(config: &Config, origin: &str) -> Result<(), DocumentError> {
    let private = config.listen.address.unwrap_or(STAND_IN);
    let mut reasons = refusals(config);
    let keys =
        TokenKeys { branch: STAND_IN_KEY.repeat(32), tokens: vec![TokenKey { id: 0, key: STAND_IN_KEY.repeat(32) }] };
    let mut place = place(config, &Instance { private, public: Some(STAND_IN) });
    if let Some(place) = &mut place
        && is_template(&place.advertised)
    {
        // Said already, and better.
        place.advertised = STAND_IN.to_string();
    }
    if let Some(place) = place
        && let Err(error) = Setup::new(config.clone(), &place, &keys)
    {
        reasons.extend(error.reasons);
    }
    if reasons.is_empty() {
        return Ok(());
    }
    let reasons = reasons.into_iter().map(|text| Reason { position: None, text }).collect();
    Err(DocumentError { origin: origin.into(), reasons })
}

/// One line that says what a configuration does.
pub fn summary(config: &Config) -> String {
    let advertised = match &config.advertise {
        Advertise::Metadata => "the instance's public address".to_owned(),
        Advertise::Listen => "the address it listens on".to_owned(),
        Advertise::Host(host) => host.clone(),
    };
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    format!(
        "edge {:?}, ingress port {}, egress port {}, {}, {}, advertises {advertised}",
        config.edge,
        config.listen.ingress_port,
        config.listen.egress_port,
        count(config.trunks.len(), "trunk"),
        count(config.routes.len(), "route"),
    )
}

/// The result of a check as one JSON document.
pub fn check_report(origin: &str, checked: &Result<Config, BootError>) -> serde_json::Value {
    match checked {
        Ok(config) => serde_json::json!({
            "ok": true,
            "file": origin,
            "edge": config.edge,
            "summary": summary(config),
        }),
        Err(BootError::Document(error)) => serde_json::json!({ "ok": false, "file": origin, "reasons": error.reasons }),
        Err(error) => serde_json::json!({ "ok": false, "file": origin, "reasons": [{ "text": error.to_string() }] }),
    }
}

/// What the engine does not look at, since it concerns only what surrounds it.
fn refusals(config: &Config) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Advertise::Host(host) = &config.advertise
        && is_template(host)
    {
        reasons.push(format!(
            "advertise: !host {host:?}: the template's place was not filled in with the ingress address"
        ));
    }
    if config.admin.port == 0 {
        reasons.push("admin.port: 0: give the TCP port that the health check asks".into());
    }
    let token_keys = ("secrets.token_keys".to_owned(), &config.secrets.token_keys);
    let password = config.answerer.iter().map(|answerer| ("answerer.password".to_owned(), &answerer.password));
    for (setting, reference) in std::iter::once(token_keys).chain(password).chain(tls_references(config)) {
        if let SecretRef::File(name) = reference
            && (name.is_empty() || name.contains('/') || name == "." || name == "..")
        {
            reasons.push(format!("{setting}: !file {name:?}: a file name in the secrets folder, without `/`"));
        }
    }
    if let Some(url) = config.secrets.endpoint.as_deref().filter(|url| !is_private_enough(url)) {
        reasons.push(format!(
            "secrets.endpoint: {url:?}: of the form https://HOST[:PORT], or http:// with a loopback or link-local address: secrets \
             go through it"
        ));
    }
    reasons.extend(config.cloud.iter().flat_map(cloud_refusals));
    if let Some(answerer) = &config.answerer {
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if answerer.user.is_empty() || answerer.user.len() > LONGEST_USER || !answerer.user.chars().all(is_allowed) {
            reasons.push(format!(
                "answerer.user: {:?}: letters, digits, `-`, `_` and `.`, {LONGEST_USER} at most",
                answerer.user
            ));
        }
    }
    reasons.extend(stream_refusals(config));
    if config.drain.grace_ms < config.drain.accept_ms {
        reasons.push(format!(
            "drain.grace_ms: {}: less than accept_ms ({}): the process would end while it still takes calls",
            config.drain.grace_ms, config.drain.accept_ms
        ));
    }
    reasons
}

/// Whether secrets may come from there: nobody beside the machine can read along.
fn is_private_enough(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let nearby = match url.host_str().and_then(|host| host.parse().ok()) {
        Some(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Some(IpAddr::V6(_)) | None => false,
    };
    url.path() == "/" && url.host_str().is_some() && (url.scheme() == "https" || (url.scheme() == "http" && nearby))
}

fn cloud_refusals(cloud: &Cloud) -> Vec<String> {
    let mut reasons = Vec::new();
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if cloud.region.is_empty() || !cloud.region.chars().all(is_name) {
        reasons.push(format!("cloud.region: {:?}: the name of a region, such as us-east-1", cloud.region));
    }
    for (setting, hook) in [("ready_hook", &cloud.ready_hook), ("drain_hook", &cloud.drain_hook)] {
        if let Some(hook) = hook
            && cloud.group.is_none()
        {
            reasons.push(format!("cloud.{setting}: {hook:?}: a hook belongs to a group: name it by cloud.group"));
        }
    }
    if let Some(allocation) = &cloud.elastic_ip
        && !allocation.starts_with("eipalloc-")
    {
        let what = if is_template(allocation) {
            "the template's place was not filled in with the allocation of the Elastic IP"
        } else {
            "the allocation of an Elastic IP, such as eipalloc-0123456789abcdef0"
        };
        reasons.push(format!("cloud.elastic_ip: {allocation:?}: {what}"));
    }
    reasons
}

fn stream_refusals(config: &Config) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(tls) = &config.listen.tls {
        if tls.port == 0 || (config.listen.tcp && tls.port == config.listen.ingress_port) {
            reasons.push(format!("listen.tls.port: {}: a TCP port of its own, usually 5061", tls.port));
        }
        if tls.require_client && tls.client_roots.is_none() {
            reasons.push(
                "listen.tls.require_client: without client_roots no client could be verified: name the roots that their \
                 certificates come from"
                    .into(),
            );
        }
    }
    let streams = &config.streams;
    for (name, value) in
        [("idle_ms", streams.idle_ms), ("connect_ms", streams.connect_ms), ("message_ms", streams.message_ms)]
    {
        if value == 0 {
            reasons.push(format!("streams.{name}: 0: every connection would be closed at once"));
        }
    }
    reasons
}

/// Whether a host name still has a place of Terraform's `templatefile` in it.
fn is_template(host: &str) -> bool {
    host.contains("${")
}

fn marker_version(text: &str) -> Option<&str> {
    text.lines().next()?.strip_prefix("#sipedge-user-data").map(str::trim)
}

fn lines(origin: &str, reasons: &[Reason]) -> Vec<String> {
    reasons
        .iter()
        .map(|Reason { position, text }| match position {
            Some(Position { line, column }) => format!("{origin}:{line}:{column}: {text}"),
            None => format!("{origin}: {text}"),
        })
        .collect()
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Characters of the answerer's user.
const LONGEST_USER: usize = 64;

/// Stands for addresses that only the instance knows (TEST-NET-1, RFC 5737).
const STAND_IN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Stands, 32 times, for a key that only the instance has.
const STAND_IN_KEY: &str = "a5";
