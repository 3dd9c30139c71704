//! Where packages come from: an archive that keeps them as they were at a date, or one that has them as they are now.

use std::fs;
use std::process::Command;

use super::{BuildRequest, ImageError, SUITE, debian, run};

/// Archive that keeps Debian's packages as they were at a date. By HTTP: what it gives is signed, and a proxy may keep it.
pub const SNAPSHOT_MIRROR: &str = "http://snapshot.debian.org/archive/debian/{snapshot}";

/// Archive that stands in when that one does not answer and none was named: it has the packages of today.
pub const PRESENT_MIRROR: &str = "http://deb.debian.org/debian";

/// Stands for the date in an address.
const PLACE: &str = "{snapshot}";

/// Debian's downloader, which uses apt's proxies and certificates. It is part of apt, which mmdebstrap needs.
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// Files of an archive that say what it has, with its date; the first one that it has is taken.
const INDICES: [&str; 2] = ["InRelease", "Release"];

/// What is asked is answered by working archives within a second or two; then it is not worth waiting any longer.
const TIMEOUT_S: u32 = 10;

/// Where the packages of a build come from, with how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// The archive.
    pub(super) mirror: String,
    /// Date of its packages, `YYYYMMDDTHHMMSSZ`.
    pub(super) snapshot: String,
    /// Whether the archive has them of this date on another day too.
    pub(super) dated: bool,
    /// What whoever builds should know.
    pub(super) warning: Option<String>,
}

/// Finds the archive of a build: the one that is named, or else the first of [`SNAPSHOT_MIRROR`] and [`PRESENT_MIRROR`] that answers.
///
/// # Errors
///
/// [`ImageError::MirrorAway`], and what keeps it from being asked.
pub(super) fn find(request: &BuildRequest) -> Result<Source, ImageError> {
    let dated = |mirror: &str| Source {
        mirror: mirror.to_owned(),
        snapshot: request.snapshot.clone(),
        dated: true,
        warning: None,
    };
    match &request.mirror {
        Some(named) if !named.contains(PLACE) => present(request, named, None),
        Some(named) => {
            index(request, &named.replace(PLACE, &request.snapshot))?;
            Ok(dated(named))
        }
        None => match index(request, &SNAPSHOT_MIRROR.replace(PLACE, &request.snapshot)) {
            Ok(_) => Ok(dated(SNAPSHOT_MIRROR)),
            // It answers, and has nothing of this date: packages of today are not what was asked for.
            Err(ImageError::MirrorAway { mirror, detail }) if !detail.contains("404") => {
                present(request, PRESENT_MIRROR, Some(format!("{mirror} does not answer ({detail})")))
            }
            Err(error) => Err(error),
        },
    }
}

/// An archive that has the packages of now: its own date is theirs.
fn present(request: &BuildRequest, mirror: &str, why: Option<String>) -> Result<Source, ImageError> {
    let text = index(request, mirror)?;
    let date = text.lines().find_map(|line| line.strip_prefix("Date:")).map(str::trim);
    let snapshot = date.and_then(stamp).ok_or_else(|| ImageError::MirrorAway {
        mirror: mirror.to_owned(),
        detail: format!("what it says of {SUITE} has no date"),
    })?;
    let warning = why.map(|why| {
        format!(
            "{why}; the packages are those that {mirror} has now, of {snapshot}: a build on another day may have others, and other bytes"
        )
    });
    Ok(Source { mirror: mirror.to_owned(), snapshot, dated: false, warning })
}

/// What the archive says of the suite.
fn index(request: &BuildRequest, mirror: &str) -> Result<String, ImageError> {
    let folder = tempfile::Builder::new().prefix(".asking-").tempdir_in(&request.cache);
    let folder = folder.map_err(ImageError::file("write in", &request.cache))?;
    let mut detail = String::new();
    for name in INDICES {
        let file = folder.path().join(name);
        let mut command = Command::new(HELPER);
        command.arg("-o").arg(format!("Acquire::http::Timeout={TIMEOUT_S}"));
        command.arg("-o").arg(format!("Acquire::https::Timeout={TIMEOUT_S}"));
        command.args(["-o", "Acquire::Retries=0", "download-file"]);
        command.arg(format!("{mirror}/dists/{SUITE}/{name}")).arg(&file).env("LC_ALL", "C.UTF-8");
        match run(&mut command, "apt") {
            Ok(_) => return fs::read_to_string(&file).map_err(ImageError::file("read", &file)),
            Err(ImageError::Program { tail, .. }) => {
                if tail.contains("No space left on device") {
                    return Err(ImageError::NoSpace { folder: request.cache.clone(), need_mb: super::NEEDED_MB });
                }
                detail = reason(&tail);
            }
            Err(other) => return Err(other),
        }
    }
    Err(ImageError::MirrorAway { mirror: mirror.to_owned(), detail })
}

/// Why apt's downloader failed: what follows the address in its first error.
fn reason(output: &str) -> String {
    let line = output.lines().find_map(|line| line.strip_prefix("E: Failed to fetch "));
    let reason = line.and_then(|line| line.split_once(' ')).map(|(_, reason)| reason.trim());
    reason.filter(|reason| !reason.is_empty()).unwrap_or("it gave no reason").to_owned()
}

/// The date of an index, `Sat, 15 Nov 2025 10:21:14 UTC`, as the snapshot archive writes dates.
fn stamp(date: &str) -> Option<String> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.split_once(", ")?.1.split_whitespace();
    let day: u32 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let year: u32 = words.next()?.parse().ok()?;
    let time: String = words.next()?.split(':').collect();
    let stamp = format!("{year:04}{month:02}{day:02}T{time}Z");
    debian::epoch(&stamp).map(|_| stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_s_date_is_a_snapshot_s() {
        assert_eq!(stamp("Sat, 15 Nov 2025 10:21:14 UTC").as_deref(), Some("20251115T102114Z"));
        assert_eq!(stamp("Sat, 06 Sep 2025 09:00:01 UTC").as_deref(), Some("20250906T090001Z"));
        for wrong in ["", "yesterday", "Sat, 15 Nov", "Sat, 15 Foo 2025 10:21:14 UTC", "Sat, 15 Nov 2025 10:21 UTC"] {
            assert_eq!(stamp(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_reason_is_what_apt_says_behind_the_address() {
        let said = "W: unsandboxed\nE: Failed to fetch http://a.invalid/dists/x/InRelease  Could not resolve 'a.invalid'\nE: Download Failed\n";
        assert_eq!(reason(said), "Could not resolve 'a.invalid'");
        assert_eq!(reason("killed"), "it gave no reason");
    }
}
