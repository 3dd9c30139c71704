//! The faulty edge as a program, in place of an instance's proxy or on loopback:
//!
//! ```text
//! faulty-edge boot --secrets DIR [--faults no-rport,slow]
//! faulty-edge --listen 127.0.0.2:5060 --egress 127.0.0.3:5080 --advertise 127.0.0.2 --allow 127.0.0.10/32 \
//!             --callee 127.0.0.20:5060 [--domain destination.example] [--faults no-rport,slow]
//! ```

mod boot;
mod edge;

use std::error::Error;
use std::path::Path;

use edge::{Edge, EdgeConfig, EdgeRoute};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|verb| verb == "boot") {
        let secrets = option(&arguments, "--secrets").ok_or("boot needs --secrets DIR")?;
        let (mut config, proxy) = boot::from_metadata(Path::new(secrets))?;
        config.faults.extend(boot::split_faults(option(&arguments, "--faults").unwrap_or_default()));
        let admin = (config.ingress.ip(), proxy.admin.port).into();
        let _edge = Edge::start(config)?;
        return Ok(boot::serve_admin(admin)?);
    }
    let needed = |name: &str| option(&arguments, name).ok_or(format!("{name} is missing"));
    let callee = needed("--callee")?;
    let advertised = needed("--advertise")?.to_owned();
    let config = EdgeConfig {
        ingress: needed("--listen")?.parse()?,
        egress: needed("--egress")?.parse()?,
        private: option(&arguments, "--private").unwrap_or("127.0.0.77").to_owned(),
        advertised,
        routes: vec![EdgeRoute {
            allow: needed("--allow")?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            callee: callee.parse()?,
            domain: option(&arguments, "--domain").unwrap_or(callee).to_owned(),
        }],
        silent: arguments.iter().any(|argument| argument == "--silent"),
        secret: 42,
        faults: boot::split_faults(option(&arguments, "--faults").unwrap_or_default()),
    };
    let _edge = Edge::start(config)?;
    loop {
        std::thread::park();
    }
}

fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).map(String::as_str)
}
