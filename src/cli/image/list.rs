//! `sipedge image list`: the images on this machine, and those in the account.

use std::path::Path;

use serde_json::{Value, json};
use sipedge::image::Image;

use super::account;
use crate::cli::Global;
use crate::cli::exit::{self, Exit, Failure};

/// Letters of a SHA-256 that tell images apart for a person.
const HASH_LETTERS: usize = 12;

/// What an account has.
#[derive(Debug)]
pub(in crate::cli) struct InAccount {
    pub(in crate::cli) region: String,
    /// Id, flavour, version, the beginning of the SHA-256, time, name.
    pub(in crate::cli) rows: Vec<Vec<String>>,
    pub(in crate::cli) data: Value,
}

pub(super) fn run(global: &Global, cache: &Path, local: bool) -> Result<Exit, Failure> {
    let images = Image::all(cache)?;
    let published = if local { None } else { Some(account::published_images(global)) };
    if global.json {
        let here: Vec<Value> = images
            .iter()
            .map(|image| json!({ "disk": image.disk(), "manifest": image.manifest, "booted": image.booted() }))
            .collect();
        let mut data = json!({ "local": here });
        if let Some(Ok(found)) = &published {
            data["region"] = json!(found.region);
            data["published"] = found.data.clone();
        }
        exit::print_json(&data)?;
    } else {
        let mut rows = vec![row(["FLAVOUR", "VERSION", "SHA-256", "MB", "CALLED", "FOLDER"])];
        for image in &images {
            let manifest = &image.manifest;
            rows.push(vec![
                manifest.flavour.to_string(),
                manifest.version.clone(),
                short(&manifest.sha256),
                (manifest.used_bytes / 1_000_000).to_string(),
                if image.booted().is_some() { "passed" } else { "no" }.to_owned(),
                image.folder.display().to_string(),
            ]);
        }
        let mut text = format!("On this machine\n{}", table(&rows));
        if let Some(Ok(found)) = &published {
            let mut rows = vec![row(["IMAGE", "FLAVOUR", "VERSION", "SHA-256", "MADE", "NAME"])];
            rows.extend(found.rows.iter().cloned());
            text.push_str(&format!("\nPublished in {}\n{}", found.region, table(&rows)));
        }
        exit::print(&text)?;
    }
    match published {
        Some(Err(failure)) => Err(failure),
        _ => Ok(Exit::Done),
    }
}

pub(super) fn short(sha256: &str) -> String {
    sha256.chars().take(HASH_LETTERS).collect()
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

/// Columns as wide as their widest cell; a table without rows says so.
fn table(rows: &[Vec<String>]) -> String {
    if rows.len() < 2 {
        return "  none\n".to_owned();
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(table(&[row(["A"])]), "  none\n");
        assert_eq!(table(&[row(["A", "B"]), row(["long", "x"])]), "  A     B\n  long  x\n");
    }
}
