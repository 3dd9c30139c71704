//! Secrets are in no answer of the control endpoint unless somebody asks for them.

use std::fs;

use sipedge_proxy::config::{SecretRef, TlsListener};

use crate::process::certificates::{Authority, ip};
use crate::process::{self, get};
use crate::stage::{DEADLINE, Stage, loopback};
use crate::watching::{Watching, edge_with};

const RESPONSE: &str = "6629fae49393a05397450978507c4ef1";

#[test]
fn credentials_route_tokens_and_media_keys_are_hidden_unless_they_are_asked_for() {
    let stage = Stage::start(1, |_| {});
    let credentials = format!("Digest username=\"bob\", realm=\"edge\", nonce=\"n1\", response=\"{RESPONSE}\"");
    let sdp = "v=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgew|2^20\r\n";
    let whole =
        |arguments: &[&str]| Watching::watch_json(stage.folder(), &[&["--full", "--count", "3"], arguments].concat());
    let (hidden, open) = (whole(&[]), whole(&["--secrets"]));
    let invite = stage.invite().and("Authorization", &credentials).with_body("application/sdp", sdp);
    stage.call(&invite);
    let arrived = stage.callees[0].expect("INVITE");
    assert!(arrived.text().contains(RESPONSE), "the message itself is untouched");
    let token = arrived.header("Record-Route").split(['@', ':']).nth(1).unwrap().to_owned();
    assert_eq!(token.len(), 32);
    let (kept, signature) = token.split_at(16);

    let texts = |watching: &Watching| -> Vec<String> {
        (0..3).map(|_| watching.event()["message"].as_str().unwrap().to_owned()).collect()
    };
    let masked = [RESPONSE, signature, "WVNfX19zZW1jdGwgKCkgew"];
    for text in texts(&hidden) {
        assert!(masked.iter().all(|secret| !text.contains(secret)), "{text}");
        if text.starts_with("INVITE") {
            let length = text.split_once("\r\n\r\n").unwrap().1.len();
            assert!(text.contains(&format!("Content-Length: {length}")), "{text}");
            assert!(text.contains("nonce=\"n1\", response=\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\""), "{text}");
            assert!(text.contains("inline:xxxxxxxxxxxxxxxxxxxxxx|2^20"), "{text}");
        }
        if text.contains("Record-Route") {
            assert!(text.contains(&format!("sip:{kept}xxxxxxxxxxxxxxxx@")), "{text}");
        }
    }
    let open = texts(&open).concat();
    assert!(masked.iter().all(|secret| open.contains(secret)), "{open}");
}

#[test]
fn the_effective_configuration_names_its_secrets_and_has_none_of_them() {
    let edge = loopback();
    let mut config = process::with_answerer(process::config(edge, loopback(), (loopback(), 5060).into()));
    let certificate = SecretRef::File("edge.pem".into());
    config.listen.tls = Some(TlsListener { port: 5061, certificate, client_roots: None, require_client: false });
    let pem = Authority::new("roots").issue(&[ip(edge)]);
    let (process, folder) = edge_with(&config, &[("edge.pem", pem)]);

    let mut secrets = Vec::new();
    for (file, is_secret) in [("token-keys.json", "hex"), ("answerer", "word"), ("edge.pem", "line")] {
        let text = fs::read_to_string(folder.path().join(file)).unwrap();
        let words = text.split(|letter: char| letter.is_whitespace() || letter == '"').filter(|word| word.len() >= 16);
        let before = secrets.len();
        secrets.extend(words.map(str::to_owned));
        assert!(secrets.len() > before, "no {is_secret} in {file}");
    }
    let mut shown = vec![get(edge, "/metrics").unwrap().1, process.log()];
    for command in [&["config"][..], &["config", "--json"], &["status"], &["status", "--json"]] {
        let (status, out, error) = Watching::start(folder.path(), command).finish();
        assert_eq!((status.code(), error), (Some(0), vec![]), "{command:?} within {DEADLINE:?}");
        shown.push(out.join("\n"));
    }
    for name in ["token-keys.json", "answerer", "edge.pem"] {
        assert!(shown[2].contains(&format!("!file {name}")), "{}", shown[2]);
    }
    for text in &shown {
        let found = secrets.iter().find(|secret| text.contains(secret.as_str()));
        assert_eq!(found, None, "{text}");
    }
}
