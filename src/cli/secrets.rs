//! `sipedge secrets`: the token keys of what is deployed, and their rotation.

use serde_json::{Value, json};
use sipedge::deploy::rotation::{self, Phase, RotationError, RotationEvent, Withdraw};
use sipedge::deploy::{State, TokenKeys, now_unix_ms, rfc3339};
use sipedge::target::lab::Lab;

use super::edge::{not_running, one_deployed, require_lab};
use super::exit::{self, Exit, Failure};
use super::{Global, RotateSecrets, Secrets, SecretsAction};

/// Carries out `sipedge secrets`.
pub(super) fn run(global: &Global, args: &Secrets) -> Result<Exit, Failure> {
    match &args.action {
        SecretsAction::Rotate(args) => rotate(global, args),
        SecretsAction::Status(args) => {
            require_lab(global.target, "sipedge secrets status --target lab")?;
            status(global, &one_deployed(global, args.topology)?)
        }
    }
}

fn rotate(global: &Global, args: &RotateSecrets) -> Result<Exit, Failure> {
    require_lab(global.target, "sipedge secrets rotate --target lab")?;
    let state = one_deployed(global, args.topology)?;
    let lock = state.lock()?;
    let lab = Lab::attach(&state.lab_folder())?.ok_or_else(|| not_running(&state))?;
    let store = rotation::lab_secrets(&state);
    let mut tell = |event: RotationEvent| {
        // The result follows, and says so if standard output is gone.
        let _ = if global.json { exit::print(&json!(event).to_string()) } else { exit::print(&line(&event)) };
    };
    let done = match (args.finish, args.force) {
        (false, _) => rotation::rotate(&store, &lab, &mut tell),
        (true, false) => rotation::finish(&store, Withdraw::WhenDue, &mut tell),
        (true, true) => rotation::finish(&store, Withdraw::Now, &mut tell),
    };
    let keys = done.map_err(|error| failure(error, &state))?;
    drop(lock);
    if global.json {
        exit::print(&document(&state, &keys)?.to_string())?;
    } else {
        exit::print(&text(&keys)?)?;
    }
    Ok(Exit::Done)
}

fn status(global: &Global, state: &State) -> Result<Exit, Failure> {
    let keys = rotation::read(&rotation::lab_secrets(state)).map_err(|error| failure(error, state))?;
    let instances = match Lab::attach(&state.lab_folder())? {
        Some(lab) => rotation::keys_of_instances(&lab)?,
        None => Default::default(),
    };
    if global.json {
        let each = instances.iter().map(|(id, keys)| match keys {
            Ok(keys) => {
                let keys: Vec<Value> = keys.iter().map(|(id, signs)| json!({ "id": id, "signs": signs })).collect();
                json!({ "id": id.0, "token_keys": keys })
            }
            Err(reason) => json!({ "id": id.0, "error": reason }),
        });
        let mut document = document(state, &keys)?;
        document["instances"] = each.collect();
        exit::print_json(&document)?;
        return Ok(Exit::Done);
    }
    let mut text = text(&keys)?;
    for (id, keys) in &instances {
        let has = match keys {
            Ok(keys) => rotation::shown(keys),
            Err(reason) => reason.clone(),
        };
        text.push_str(&format!("{:<10} {has}\n", id.0));
    }
    exit::print(&text)?;
    Ok(Exit::Done)
}

/// The keys, but for the keys, as one JSON object.
fn document(state: &State, keys: &TokenKeys) -> Result<Value, Failure> {
    let tokens = keys.tokens.iter().enumerate().map(|(place, key)| {
        json!({
            "id": key.id,
            "signs": place == 0,
            "made": key.made,
            "signs_since": key.signs_since,
            "signed_until": key.signed_until,
        })
    });
    let rotation = rotation::phase(keys, now()).map_err(|error| failure(error, state))?;
    Ok(json!({
        "event": "token-keys",
        "edge": state.edge(),
        "topology": state.topology(),
        "token_keys": tokens.collect::<Vec<_>>(),
        "rotation": rotation,
    }))
}

/// The same for people.
fn text(keys: &TokenKeys) -> Result<String, Failure> {
    let now = now();
    let mut text = String::new();
    for (place, key) in keys.tokens.iter().enumerate() {
        let signs = if place == 0 { "signs" } else { "verifies" };
        let age = key
            .made
            .map_or_else(|| "of unknown age".to_owned(), |made| format!("made {} ago", span(now.saturating_sub(made))));
        text.push_str(&format!("key {:<6} {signs:<9} {age}\n", key.id));
    }
    let phase = rotation::phase(keys, now).map_err(|error| Failure::new(Exit::StateDamaged, error.to_string()))?;
    text.push_str(&match phase {
        Phase::Settled => "rotation   none is under way\n".to_owned(),
        Phase::Added { .. } => "rotation   was cut off before the new key signed; `sipedge secrets rotate` continues it\n".to_owned(),
        Phase::Signing { withdrawable, .. } if withdrawable <= now => {
            "rotation   the old key may be withdrawn; the next deploy or rotation does it\n".to_owned()
        }
        Phase::Signing { withdrawable, .. } => format!(
            "rotation   the old key is withdrawn by the first deploy or rotation after {}, when no call can be up that bears it\n",
            rfc3339(withdrawable.saturating_mul(1_000))
        ),
    });
    Ok(text)
}

fn line(event: &RotationEvent) -> String {
    match event {
        RotationEvent::Added { id } => format!("added      key {id}: it verifies"),
        RotationEvent::Waiting { text } => format!("waiting    until every instance has it: {text}"),
        RotationEvent::Reached { text } => format!("reached    {text}"),
        RotationEvent::Signs { id } => format!("signs      key {id}; the one of before verifies"),
        RotationEvent::Withdrawn { id } => format!("withdrawn  key {id}"),
    }
}

fn failure(error: RotationError, state: &State) -> Failure {
    let topology = state.topology();
    let exit = match &error {
        RotationError::NoKeys => Exit::NothingDeployed,
        RotationError::Malformed { .. } | RotationError::Keys(_) => Exit::StateDamaged,
        RotationError::StillNeeded { .. } | RotationError::NotReached { .. } | RotationError::Store(_) => {
            Exit::StepFailed
        }
        RotationError::Lab(_) => Exit::StepFailed,
        _ => Exit::Unexpected,
    };
    let failed = Failure::new(exit, error.to_string());
    match error {
        RotationError::StillNeeded { withdrawable, .. } => {
            let at = rfc3339(withdrawable.saturating_mul(1_000));
            failed
                .next(
                    format!("sipedge secrets rotate {topology}"),
                    format!("withdraws it, and rotates again, after {at}"),
                )
                .next(
                    format!("sipedge secrets rotate {topology} --finish --force"),
                    "withdraws it now: calls that bear it can no longer be ended through the edge",
                )
        }
        RotationError::NotReached { .. } => failed
            .next(format!("sipedge secrets rotate {topology}"), "continues where it was; nothing is lost by waiting")
            .next(format!("sipedge secrets status {topology}"), "shows which keys each instance has"),
        _ => failed,
    }
}

fn now() -> u64 {
    now_unix_ms() / 1_000
}

/// A span of time as one says it, in its largest unit and the next.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}
