//! Images in an AWS account: `sipedge image publish` and `sipedge image prune`.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use sipedge::image::prune::Pruning;
use sipedge::image::publish::{self, Done, PublishError, PublishEvent};
use sipedge::image::published::{self, Published};
use sipedge::image::{Flavour, Image, way_to_published};

use super::PruneImages;
use super::list::{InAccount, short};
use crate::cli::Global;
use crate::cli::aws::{agreed, can_ask};
use crate::cli::exit::{self, Exit, Failure, aws_exit};

/// How often a bar that cannot know its end moves.
const TICK: Duration = Duration::from_millis(100);

/// Blocks between two lines for programs: 32 MiB.
const LINE_EVERY: usize = 64;

pub(super) fn publish_image(global: &Global, cache: &Path, flavour: Flavour) -> Result<Exit, Failure> {
    let loaded = global.load_spec()?;
    let image = Image::newest(cache, flavour)?;
    let began = Instant::now();
    let mut teller = Teller::new(global.json);
    let account = &loaded.spec.aws;
    let done = publish::publish(&image, account, &mut |event| teller.tell(&event));
    teller.finish();
    let Done { image: published, already, blocks, sent } = &done?;
    if global.json {
        let line = json!({
            "event": if *already { "already-published" } else { "published" },
            "region": account.region,
            "image": published,
            "blocks": blocks,
            "sent": sent,
            "ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        exit::print(&line.to_string())?;
        return Ok(Exit::Done);
    }
    let Published { id, name, .. } = published;
    exit::print(&if *already {
        format!("{name} is published already: {id} in {}", account.region)
    } else {
        let seconds = began.elapsed().as_secs_f64();
        format!("{name} is published: {id} in {}, {sent} of {blocks} blocks sent, {seconds:.1} s", account.region)
    })?;
    Ok(Exit::Done)
}

/// The images of the account that the spec names.
pub(super) fn published_images(global: &Global) -> Result<InAccount, Failure> {
    let loaded = global.load_spec()?;
    let aws = published::connect(&loaded.spec.aws)?;
    let images = published::all(&aws)?;
    let row = |image: &Published| {
        let hash = image.sha256.as_deref().map_or_else(|| "-".to_owned(), short);
        let flavour = image.flavour.to_string();
        vec![image.id.clone(), flavour, image.version.clone(), hash, image.created.clone(), image.name.clone()]
    };
    Ok(InAccount { region: aws.region().to_owned(), rows: images.iter().map(row).collect(), data: json!(images) })
}

pub(super) fn prune_images(global: &Global, args: &PruneImages) -> Result<Exit, Failure> {
    let loaded = global.load_spec()?;
    if !args.dry_run {
        can_ask(global, args.yes, &format!("sipedge image prune --keep {} --yes", args.keep))?;
    }
    let aws = published::connect(&loaded.spec.aws)?;
    let pruning = Pruning::look(&aws, args.keep)?;
    let asked = pruning_text(&pruning, aws.region());
    if !args.dry_run && !pruning.is_empty() {
        if !args.yes && !agreed(&asked, "Remove them? (yes/no) ", "yes") {
            return Err(Failure::new(Exit::Usage, "nothing was removed: the answer was not `yes`"));
        }
        let removed = pruning.carry_out(&aws, &mut |id| {
            if global.json {
                // A reader that went away does not stop it half way.
                let _ = exit::print(&json!({ "event": "removed", "id": id }).to_string());
            } else {
                eprintln!("{id} is removed");
            }
        });
        removed?;
    }
    if global.json {
        let line = json!({ "event": "pruned", "region": aws.region(), "dry_run": args.dry_run, "pruning": pruning });
        exit::print(&line.to_string())?;
    } else if args.dry_run {
        exit::print(&asked)?;
    } else {
        let count = pruning.remove.len();
        exit::print(&format!("{count} image{} removed from {}", if count == 1 { "" } else { "s" }, aws.region()))?;
    }
    Ok(Exit::Done)
}

fn pruning_text(pruning: &Pruning, region: &str) -> String {
    let mut text = String::new();
    for image in &pruning.remove {
        text.push_str(&format!("{} goes: {}, made {}\n", image.id, image.name, image.created));
    }
    for snapshot in &pruning.orphans {
        text.push_str(&format!("{snapshot} goes: a snapshot that no image is made of\n"));
    }
    for used in &pruning.in_use {
        text.push_str(&format!("{} stays: {}, named by {}\n", used.image.id, used.image.name, used.by.join("; ")));
    }
    for image in &pruning.keep {
        text.push_str(&format!("{} stays: {}, made {}\n", image.id, image.name, image.created));
    }
    if text.is_empty() {
        text = format!("no image in {region} was made by `sipedge image publish`\n");
    }
    text
}

/// Who follows a publish: a bar on a terminal, lines otherwise.
struct Teller {
    json: bool,
    bar: Option<ProgressBar>,
    told: usize,
}

impl Teller {
    fn new(json: bool) -> Self {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { json, bar, told: 0 }
    }

    fn tell(&mut self, event: &PublishEvent) {
        if let PublishEvent::Blocks { done, of } = event {
            return self.blocks(*done, *of, event);
        }
        let words = words(event);
        match &self.bar {
            Some(bar) => {
                style(bar, "{spinner} {msg} {elapsed}");
                bar.set_message(words);
            }
            None if self.json => line(&json!(event)),
            None => eprintln!("{words}"),
        }
    }

    fn blocks(&mut self, done: usize, of: usize, event: &PublishEvent) {
        match &self.bar {
            Some(bar) => {
                if bar.length().is_none() {
                    bar.set_length(of as u64);
                    style(bar, "{spinner} sending blocks [{bar:30}] {pos}/{len} {elapsed}, {eta} left");
                    bar.reset_eta();
                }
                bar.set_position(done as u64);
            }
            None if self.json && (done == of || done == 0 || done >= self.told + LINE_EVERY) => {
                self.told = done;
                line(&json!(event));
            }
            None if !self.json && done == of => eprintln!("{of} blocks are there"),
            None => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// A reader that went away does not stop a publish.
fn line(value: &Value) {
    let _ = exit::print(&value.to_string());
}

fn words(event: &PublishEvent) -> String {
    match event {
        PublishEvent::Checking => "comparing the disk with what was built".to_owned(),
        PublishEvent::Snapshot { id, continued: true } => format!("going on with the snapshot {id}"),
        PublishEvent::Snapshot { id, continued: false } => format!("the snapshot {id} takes the blocks"),
        PublishEvent::Blocks { done, of } => format!("{done} of {of} blocks are there"),
        PublishEvent::Completing => "EBS makes the snapshot of the blocks".to_owned(),
        PublishEvent::Registering => "EC2 makes the image of the snapshot".to_owned(),
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let message = error.to_string();
        match error {
            PublishError::Image(error) => error.into(),
            PublishError::Aws(error) => Self::new(aws_exit(&error), message),
            PublishError::NotBooted { flavour, .. } => {
                let [_, (command, does), _] = way_to_published(flavour);
                Self::new(Exit::Usage, message).next(command, does)
            }
            PublishError::Busy { .. } => Self::new(Exit::StateLocked, message),
            _ => Self::new(Exit::StepFailed, message),
        }
    }
}
