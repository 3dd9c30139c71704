//! A real call, placed by Twilio's REST API: Twilio calls a number or a SIP URI of the operator's, whose way leads through the edge, and
//! its own word on how far the call got is followed. What it proves is the carrier's side, which no other check reaches.
//!
//! API: <https://www.twilio.com/docs/voice/api/call-resource>.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::report::{CallReport, Check, milliseconds};
use super::sheet::{Failure, Sheet};
use super::{Report, report_of};
use crate::plan::Plan;

const ACCEPTED: &str = "call-accepted";
const RINGING: &str = "ringing";
const ANSWERED: &str = "answered";
const COMPLETED: &str = "completed";

const PART: &str = "Twilio's call";

/// Every check with its title, in the order of the report.
const CHECKS: [(&str, &str); 4] = [
    (ACCEPTED, "Twilio takes the call"),
    (RINGING, "the called side is reached"),
    (ANSWERED, "the called side answers"),
    (COMPLETED, "hung up, and completed"),
];

/// Where the API is, unless `TWILIO_API_BASE` says otherwise.
const BASE: &str = "https://api.twilio.com";

/// What Twilio does with an answered call: nothing, until it is hung up.
const TWIML: &str = "<Response><Pause length=\"30\"/></Response>";

/// An account, and whom it calls.
#[derive(Clone)]
pub struct Account {
    sid: String,
    /// The account, or an API key of it; and what proves it.
    user: String,
    secret: String,
    from: String,
    to: String,
    base: Url,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// One answer of the API.
    pub answer: Duration,
    /// Between two looks at the call.
    pub poll: Duration,
    /// From the first request until somebody answers; Twilio is told to let it ring no longer.
    pub ring: Duration,
    /// How long the call is left up.
    pub talk: Duration,
    /// From hanging up until Twilio says that the call is over.
    pub end: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            answer: seconds(10),
            // Twilio's own examples look once a second; a call has two or three states in that time.
            poll: Duration::from_millis(500),
            ring: seconds(30),
            talk: seconds(2),
            end: seconds(15),
        }
    }
}

/// Why Twilio could not be asked, or did not do as it was asked. No text of it has a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TwilioError {
    /// The environment lacks settings.
    #[error("{} not set: {}", names.join(" and "), if names.len() == 1 { "it is" } else { "they are" })]
    Missing {
        /// Names of the variables.
        names: Vec<&'static str>,
    },
    /// A setting makes no sense.
    #[error("{name}: {reason}")]
    Setting {
        /// Name of the variable.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection, no answer in time, or the connection broke.
    #[error("{base} is not reached: {reason}")]
    Unreachable {
        /// The API's address.
        base: String,
        /// Why.
        reason: String,
    },
    /// 401 or 403.
    #[error("Twilio refuses the credentials (HTTP {status}{})", in_words(*code, message))]
    Credentials {
        /// HTTP status.
        status: u16,
        /// Twilio's error code.
        code: Option<u32>,
        /// Twilio's text.
        message: String,
    },
    /// Another refusal.
    #[error("Twilio refuses the request (HTTP {status}{}){}", in_words(*code, message), more(more_info.as_deref()))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Twilio's error code, such as 21211.
        code: Option<u32>,
        /// Twilio's text.
        message: String,
        /// The page that explains the code.
        more_info: Option<String>,
    },
    /// Something that is no answer of this API.
    #[error("{base} answers HTTP {status} with what is no call: {text:?}")]
    Garbage {
        /// The API's address.
        base: String,
        /// HTTP status.
        status: u16,
        /// How it begins.
        text: String,
    },
}

fn in_words(code: Option<u32>, message: &str) -> String {
    match (code, message) {
        (Some(code), message) => format!(", error {code}: {message}"),
        (None, "") => String::new(),
        (None, message) => format!(": {message}"),
    }
}

fn more(more_info: Option<&str>) -> String {
    more_info.map(|page| format!("; see {page}")).unwrap_or_default()
}

impl Account {
    /// From `TWILIO_ACCOUNT_SID`, `TWILIO_AUTH_TOKEN` (or `TWILIO_API_KEY` and `TWILIO_API_SECRET`), `TWILIO_FROM`, `TWILIO_TO`, and
    /// `TWILIO_API_BASE` where the API is somewhere else. `variable` reads one.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, TwilioError> {
        let mut names = Vec::new();
        let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut needed = |name: &'static str| {
            set(name).unwrap_or_else(|| {
                names.push(name);
                String::new()
            })
        };
        let sid = needed("TWILIO_ACCOUNT_SID");
        let (user, secret) = match set("TWILIO_API_KEY") {
            Some(key) => (key, needed("TWILIO_API_SECRET")),
            None => (sid.clone(), needed("TWILIO_AUTH_TOKEN")),
        };
        let (from, to) = (needed("TWILIO_FROM"), needed("TWILIO_TO"));
        if !names.is_empty() {
            return Err(TwilioError::Missing { names });
        }
        if !is_sid(&sid) {
            let reason =
                "not the SID of an account: AC and 32 hexadecimal digits, as Twilio's console shows it".to_owned();
            return Err(TwilioError::Setting { name: "TWILIO_ACCOUNT_SID", reason });
        }
        let base = set("TWILIO_API_BASE").unwrap_or_else(|| BASE.to_owned());
        let refuse = |reason: &str| TwilioError::Setting { name: "TWILIO_API_BASE", reason: reason.to_owned() };
        let base = Url::parse(&base).map_err(|_| refuse("not a URL such as https://api.twilio.com"))?;
        let is_here = match base.host_str() {
            Some("localhost") => true,
            Some(host) => host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
            None => false,
        };
        match base.scheme() {
            "https" => {}
            "http" if is_here => {}
            _ => return Err(refuse("only https keeps the credentials secret on their way")),
        }
        if base.password().is_some() || !base.username().is_empty() {
            return Err(refuse("credentials do not belong into the URL"));
        }
        Ok(Self { sid, user, secret, from, to, base })
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

/// Whether this may stand in a path of the API as the name of an account or a call.
fn is_sid(text: &str) -> bool {
    text.len() == 34 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Has Twilio place a call, follows it, hangs it up, and returns what came of each check. `plan` says which edge the report is about;
/// `started` is the time of day as RFC 3339 has it. Must not be called inside a tokio runtime.
pub fn run(plan: &Plan, account: &Account, pace: Pace, started: &str) -> Report {
    let began = Instant::now();
    let sheet = Sheet::default();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(async {
                let trial = Trial { account, pace, began, sheet: &sheet, seen: Vec::new() };
                trial.play().await;
            });
        }
        Err(error) => sheet.fail(ACCEPTED, Duration::ZERO, Failure::new("a call", error.to_string(), "this machine")),
    }
    let checks: Vec<Check> = CHECKS.iter().map(|(id, title)| sheet.line(id, title, PART)).collect();
    let call = CallReport {
        instance: None,
        from: "twilio".to_owned(),
        to: account.to.clone(),
        caller: account.from.clone(),
        edge: account.base.host_str().unwrap_or_default().to_owned(),
        callee: vec![account.to.clone()],
        passed: checks.iter().all(|check| check.passed),
        checks,
        ladder: Vec::new(),
    };
    report_of(plan, vec![call], began.elapsed(), started)
}

/// A call as the API describes it.
#[derive(Debug, Deserialize)]
struct Call {
    sid: String,
    status: String,
    #[serde(default)]
    duration: Option<String>,
}

/// An error as the API describes it.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: Option<u32>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    more_info: Option<String>,
}

/// One call on its way.
struct Trial<'a> {
    account: &'a Account,
    pace: Pace,
    began: Instant,
    sheet: &'a Sheet,
    /// Each status with the time since the start at which it was seen first.
    seen: Vec<(String, Duration)>,
}

impl Trial<'_> {
    async fn play(mut self) -> Option<()> {
        let created = async {
            let api = Api::new(self.account, self.pace)?;
            let call = api.create().await?;
            Ok::<_, TwilioError>((api, call))
        };
        let sheet = self.sheet;
        let (api, call) = sheet.check(ACCEPTED, async { created.await.map_err(|error| explain(&error)) }).await?;
        self.see(&call.status);
        sheet.note(ACCEPTED, format!("call {}", call.sid));

        let began = Instant::now();
        let outcome = self.follow(&api, &call.sid).await;
        let failure = outcome.as_ref().err().cloned();
        let rang =
            |(status, _): &&(String, Duration)| matches!(status.as_str(), "ringing" | "in-progress" | "completed");
        match (self.seen.iter().find(rang), &failure) {
            (Some((_, at)), _) => sheet.judge(RINGING, *at, Ok(())),
            (None, Some(failure)) => sheet.fail(RINGING, began.elapsed(), failure.clone()),
            (None, None) => {}
        }
        let (answered, is_up) = (failure.is_none(), matches!(outcome, Ok(Progress::Up)));
        sheet.judge(ANSWERED, began.elapsed(), outcome.map(|_| ()));
        if is_up {
            tokio::time::sleep(self.pace.talk).await;
        }
        // Whatever came of it: no call is left behind.
        let began = Instant::now();
        let is_over = self.seen.last().is_some_and(|(status, _)| is_final(status));
        let ended = if is_over { Ok(()) } else { self.end(&api, &call.sid).await };
        if answered || ended.is_err() {
            sheet.judge(COMPLETED, began.elapsed(), ended);
        }
        self.write_down();
        Some(())
    }

    /// Until somebody answers.
    async fn follow(&mut self, api: &Api<'_>, sid: &str) -> Result<Progress, Failure> {
        let expected = "the status in-progress";
        let deadline = Instant::now() + self.pace.ring;
        let mut failures = 0;
        loop {
            match api.call(sid).await {
                Ok(call) => {
                    failures = 0;
                    self.see(&call.status);
                    match call.status.as_str() {
                        "in-progress" => return Ok(Progress::Up),
                        "completed" => return Ok(Progress::Over),
                        "queued" | "initiated" | "ringing" => {}
                        _ => {
                            let last = self.last();
                            return Err(Failure::new(expected, format!("the status {last}"), cause_of(&last)));
                        }
                    }
                }
                // The call goes on while one look at it fails.
                Err(_) if failures < MOST_FAILURES => failures += 1,
                Err(error) => return Err(explain(&error)),
            }
            if Instant::now() >= deadline {
                let came = format!("the status {} for {} s", self.last(), self.pace.ring.as_secs_f32());
                return Err(Failure::new(expected, came, "nobody answers where the call arrives; it was cancelled"));
            }
            tokio::time::sleep(self.pace.poll).await;
        }
    }

    /// Hangs up, and waits until Twilio says so.
    async fn end(&mut self, api: &Api<'_>, sid: &str) -> Result<(), Failure> {
        let expected = "the status completed after hanging up";
        let deadline = Instant::now() + self.pace.end;
        let mut result = api.hang_up(sid).await;
        let mut is_told = result.is_ok();
        loop {
            match &result {
                Ok(call) => {
                    self.see(&call.status);
                    if is_final(&call.status) {
                        let seconds =
                            call.duration.as_deref().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                        if let Some(seconds) = seconds {
                            self.sheet.note(COMPLETED, format!("Twilio counts {seconds} s"));
                        }
                        return Ok(());
                    }
                }
                Err(error) if Instant::now() >= deadline => return Err(explain(error)),
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                let cause = "Twilio has not ended the call: end it in its console (Monitor, Logs, Calls)";
                return Err(Failure::new(expected, format!("the status {}", self.last()), cause));
            }
            tokio::time::sleep(self.pace.poll).await;
            result = match is_told {
                true => api.call(sid).await,
                // A request that was lost leaves a call behind. One whose answer alone was lost may be refused when it comes again.
                false => match api.hang_up(sid).await {
                    Ok(call) => {
                        is_told = true;
                        Ok(call)
                    }
                    Err(error) => api.call(sid).await.or(Err(error)),
                },
            };
        }
    }

    fn see(&mut self, status: &str) {
        // Of a stranger's text no more is shown than a status is long.
        let status: String = status.chars().filter(|letter| letter.is_ascii_graphic()).take(MOST_STATUS).collect();
        if self.seen.last().is_none_or(|(last, _)| *last != status) {
            self.seen.push((status, self.began.elapsed()));
        }
    }

    /// The status that was seen last.
    fn last(&self) -> String {
        self.seen.last().map(|(status, _)| status.clone()).unwrap_or_default()
    }

    /// Each status with its time.
    fn write_down(&self) {
        let line = |(status, at): &(String, Duration)| format!("{status} {:.1} ms", milliseconds(*at));
        let lines: Vec<String> = self.seen.iter().map(line).collect();
        self.sheet.note(ANSWERED, lines.join(" → "));
    }
}

/// How far a call has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Up,
    Over,
}

fn is_final(status: &str) -> bool {
    matches!(status, "completed" | "busy" | "failed" | "no-answer" | "canceled")
}

/// Why a call ended in this status.
fn cause_of(status: &str) -> &'static str {
    match status {
        "busy" => "the called side is busy, or the edge or what is behind it answers 486",
        "failed" => {
            "Twilio did not reach the edge, or the edge refused the call: its trunk does not admit Twilio's address, the URI leads \
             elsewhere, or no destination is up; Twilio's console shows the SIP response under Monitor, Logs, Calls"
        }
        "no-answer" => "it rang, and nobody answered in time",
        "canceled" => "somebody else has cancelled the call",
        _ => "Twilio has a status that this build does not know",
    }
}

fn explain(error: &TwilioError) -> Failure {
    let cause = match error {
        TwilioError::Credentials { .. } => {
            "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN (or TWILIO_API_KEY and TWILIO_API_SECRET) are not of one active account"
        }
        TwilioError::Refused { code: Some(21_211 | 21_217 | 21_223), .. } => {
            "TWILIO_TO is no number or SIP URI that Twilio can call: write it as +15551234567 or sip:user@host"
        }
        TwilioError::Refused { code: Some(21_210 | 21_212), .. } => {
            "TWILIO_FROM is no number of this account: buy one, or verify it as a caller ID"
        }
        TwilioError::Refused { code: Some(21_219), .. } => {
            "a trial account calls verified numbers alone: verify TWILIO_TO"
        }
        TwilioError::Refused { code: Some(13_227 | 21_215 | 21_216), .. } => {
            "the account may not call there: see Voice geographic permissions in Twilio's console"
        }
        TwilioError::Refused { status: 429, .. } => "too many requests of this account: wait a minute",
        TwilioError::Refused { status: 500.., .. } => "Twilio has a problem of its own: see status.twilio.com",
        TwilioError::Refused { .. } => "the page that Twilio names explains the code",
        TwilioError::Unreachable { .. } => "no network, a firewall, or a proxy that this machine needs",
        TwilioError::Garbage { .. } => {
            "what answers there is not Twilio: a captive portal or a proxy, or TWILIO_API_BASE"
        }
        TwilioError::Missing { .. } | TwilioError::Setting { .. } => "the environment",
    };
    Failure::new("an answer of Twilio's API", error.to_string(), cause)
}

/// The API, as far as it is needed.
struct Api<'a> {
    account: &'a Account,
    pace: Pace,
    client: Client,
}

impl<'a> Api<'a> {
    fn new(account: &'a Account, pace: Pace) -> Result<Self, TwilioError> {
        let failed = |reason: String| TwilioError::Unreachable { base: shown(&account.base), reason };
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            // A redirection would take the credentials along, or lose them.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(pace.answer)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { account, pace, client })
    }

    async fn create(&self) -> Result<Call, TwilioError> {
        let Account { from, to, .. } = self.account;
        let ring = self.pace.ring.as_secs().max(1).to_string();
        let form = [("From", from.as_str()), ("To", to), ("Twiml", TWIML), ("Timeout", &ring)];
        self.ask(self.client.post(self.url("Calls.json")?).form(&form)).await
    }

    async fn call(&self, sid: &str) -> Result<Call, TwilioError> {
        self.ask(self.client.get(self.url(&format!("Calls/{sid}.json"))?)).await
    }

    async fn hang_up(&self, sid: &str) -> Result<Call, TwilioError> {
        let url = self.url(&format!("Calls/{sid}.json"))?;
        self.ask(self.client.post(url).form(&[("Status", "completed")])).await
    }

    fn url(&self, path: &str) -> Result<Url, TwilioError> {
        let Account { base, sid, .. } = self.account;
        let text = format!("{}/2010-04-01/Accounts/{sid}/{path}", base.as_str().trim_end_matches('/'));
        Url::parse(&text).map_err(|error| TwilioError::Setting { name: "TWILIO_API_BASE", reason: error.to_string() })
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Call, TwilioError> {
        let base = || shown(&self.account.base);
        // Whatever the system says of it: no URL, since paths have the account in them.
        let failed =
            |error: reqwest::Error| TwilioError::Unreachable { base: base(), reason: chain(&error.without_url()) };
        let request = request.basic_auth(&self.account.user, Some(&self.account.secret));
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_BODY {
                break;
            }
        }
        if status.is_success() {
            return match serde_json::from_slice::<Call>(&body) {
                Ok(call) if is_sid(&call.sid) => Ok(call),
                _ => Err(TwilioError::Garbage { base: base(), status: status.as_u16(), text: beginning(&body) }),
            };
        }
        let Ok(Problem { code, message, more_info }) = serde_json::from_slice(&body) else {
            return Err(TwilioError::Garbage { base: base(), status: status.as_u16(), text: beginning(&body) });
        };
        let message = beginning(message.as_bytes());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(TwilioError::Credentials { status: status.as_u16(), code, message })
            }
            _ => {
                let more_info = more_info.map(|page| beginning(page.as_bytes()));
                Err(TwilioError::Refused { status: status.as_u16(), code, message, more_info })
            }
        }
    }
}

/// Scheme, host and port.
fn shown(base: &Url) -> String {
    base.origin().ascii_serialization()
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// The beginning of a text that somebody else wrote, in one line.
fn beginning(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|letter| !letter.is_control()).take(MOST_TEXT).collect()
}

/// Looks at a call that may fail one after the other.
const MOST_FAILURES: u32 = 2;
/// Bytes of an answer: a call has two thousand.
const MOST_BODY: usize = 64 * 1_024;
/// Characters of a text of Twilio's that are shown.
const MOST_TEXT: usize = 200;
/// Characters of the longest status, "in-progress", and some.
const MOST_STATUS: usize = 16;

#[cfg(test)]
mod tests;
