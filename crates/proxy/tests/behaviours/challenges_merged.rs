//! Callees that ask for credentials, each for its own: the caller has to hear of all of them (RFC 3261 §16.7 step 7).

use sipedge_proxy::config::Select;

use crate::stage::{Received, Stage};

const FIRST: &str = r#"Digest realm="one.example", nonce="a,b", qop="auth", algorithm=SHA-256"#;
const SECOND: &str = r#"Digest realm="one.example", nonce="a,b", qop="auth", algorithm=MD5"#;
const THIRD: &str = r#"Digest  realm="two.example" ,nonce="cd""#;

#[test]
fn the_caller_gets_every_challenge_once() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let answer = refused_in(order);
        let first_challenger = order.into_iter().find(|place| *place != 1);
        assert_eq!(answer.code(), if first_challenger == Some(0) { 407 } else { 401 }, "the first of the challenges");
        assert_eq!(sorted(answer.headers("Proxy-Authenticate")), sorted(vec![FIRST, SECOND]), "{}", answer.text());
        assert_eq!(answer.headers("WWW-Authenticate"), [THIRD], "{}", answer.text());
        assert!(!answer.has("X-Of-The-404"), "{}", answer.text());
    }
}

/// The final response when the callees refuse in this order.
fn refused_in(order: [usize; 3]) -> Received {
    let stage = Stage::start(3, |config| config.trunks[1].select = Select::All);
    let invite = stage.invite();
    stage.call(&invite);
    let arrived: Vec<_> = stage.callees.iter().map(|callee| callee.expect("INVITE")).collect();
    for place in order {
        let (callee, request) = (&stage.callees[place], &arrived[place]);
        let refusal = match place {
            0 => callee
                .response(request, "407 Proxy Authentication Required")
                .and("Proxy-Authenticate", FIRST)
                .and("Proxy-Authenticate", SECOND),
            1 => callee.response(request, "404 Not Found").and("X-Of-The-404", "yes"),
            _ => callee.response(request, "401 Unauthorized").and("WWW-Authenticate", THIRD),
        };
        callee.reply(request, &refusal);
        callee.expect("ACK");
    }
    stage.caller.expect_that("final response", |it| it.answers(&invite) && it.code() >= 200)
}

fn sorted(mut values: Vec<&str>) -> Vec<&str> {
    values.sort_unstable();
    values
}
