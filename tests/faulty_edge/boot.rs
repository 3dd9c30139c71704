//! Boots the faulty edge as the lab boots an instance: instance metadata, user-data, admin port.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::Duration;

use sipedge_proxy::config::{Advertise, Config, Refuse};

use crate::edge::{EdgeConfig, EdgeRoute};

/// The instance metadata service.
const METADATA: &str = "169.254.169.254:80";

/// Limit of each metadata request and name query.
const PATIENCE: Duration = Duration::from_secs(2);

/// The setup that metadata, user-data and secrets folder give. Faults are the words of the file `faults` in `secrets`.
pub(crate) fn from_metadata(secrets: &Path) -> Result<(EdgeConfig, Config), Box<dyn Error>> {
    let token = http("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60")?;
    let get = |path: &str| http("GET", path, &format!("X-aws-ec2-metadata-token: {token}"));
    let address: IpAddr = get("/latest/meta-data/local-ipv4")?.trim().parse()?;
    let config = find_config(&serde_yaml::from_str(&get("/latest/user-data")?)?)
        .ok_or("user-data holds no proxy configuration")?;
    let advertised = match &config.advertise {
        Advertise::Host(host) => host.clone(),
        Advertise::Listen => address.to_string(),
        Advertise::Metadata => get("/latest/meta-data/public-ipv4")?.trim().to_owned(),
    };
    let faults = std::fs::read_to_string(secrets.join("faults")).unwrap_or_default();
    let edge = EdgeConfig {
        ingress: SocketAddr::new(address, config.listen.ingress_port),
        egress: SocketAddr::new(address, config.listen.egress_port),
        advertised,
        private: address.to_string(),
        routes: routes(&config)?,
        silent: config.refuse == Refuse::Silence,
        // The same on all instances, so that any of them finds the others' branches and tokens.
        secret: 42,
        faults: split_faults(&faults),
    };
    Ok((edge, config))
}

/// Words of a list of faults.
pub(crate) fn split_faults(text: &str) -> BTreeSet<String> {
    text.split([',', ' ', '\n']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Answers every request on the admin port with 200. Never returns.
pub(crate) fn serve_admin(address: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut request = [0; 1024];
        stream.set_read_timeout(Some(PATIENCE))?;
        if stream.read(&mut request).is_ok() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nready\n");
        }
    }
    Ok(())
}

fn routes(config: &Config) -> Result<Vec<EdgeRoute>, Box<dyn Error>> {
    let trunk = |name: &str| config.trunks.iter().find(|trunk| trunk.name == name).ok_or(format!("no trunk {name}"));
    let mut routes = Vec::new();
    for route in &config.routes {
        let target = trunk(&route.to)?.targets.first().ok_or("a destination without target")?;
        let domain = target.uri.trim_start_matches("sip:").to_owned();
        let (host, port) = match domain.split_once(':') {
            Some((host, port)) => (host, port.parse()?),
            None => (domain.as_str(), 5060),
        };
        let address = match host.parse() {
            Ok(address) => address,
            Err(_) => resolve(host, *config.dns.servers.first().ok_or("no name server")?)?,
        };
        routes.push(EdgeRoute {
            allow: trunk(&route.from)?.from.clone(),
            callee: SocketAddr::new(address, port),
            domain,
        });
    }
    Ok(routes)
}

/// The first thing in the user-data that reads as a configuration, wherever the document has it.
fn find_config(value: &serde_yaml::Value) -> Option<Config> {
    if let Ok(config) = serde_yaml::from_value(value.clone()) {
        return Some(config);
    }
    match value {
        serde_yaml::Value::Mapping(map) => map.iter().find_map(|(_, value)| find_config(value)),
        serde_yaml::Value::Sequence(values) => values.iter().find_map(find_config),
        serde_yaml::Value::String(text) => serde_yaml::from_str(text).ok(),
        _ => None,
    }
}

fn http(method: &str, path: &str, header: &str) -> Result<String, Box<dyn Error>> {
    let address = METADATA.to_socket_addrs()?.next().ok_or("no metadata address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or("no HTTP response")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(format!("{method} {path}: {status:?}").into()),
    }
}

/// One A query (RFC 1035 §4). Enough for the lab's resolver, which answers with the records alone.
fn resolve(host: &str, server: SocketAddr) -> Result<IpAddr, Box<dyn Error>> {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in host.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&query, server)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    // The first A record with four bytes of data: type 1, class 1, TTL, length 4.
    let records = answer.get(query.len()..length).unwrap_or_default();
    let found = records.windows(14).find_map(|window| match window {
        [0, 1, 0, 1, _, _, _, _, 0, 4, a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d])),
        _ => None,
    });
    found.ok_or_else(|| format!("{server} knows no address of {host}").into())
}
