//! Old images leave an account, but for those that something starts from.

use std::collections::BTreeMap;

use serde::Serialize;
use sipedge_aws::{Aws, AwsError};

use super::published::{self, HASH_TAG, Published};

/// Seconds in which a snapshot without an image may still become one: a publish that goes on the next day.
const UNFINISHED_S: i64 = 2 * 24 * 3600;

/// What a prune would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruning {
    /// Images that go, oldest first, with their snapshots.
    pub remove: Vec<Published>,
    /// Images beyond those to keep that stay, each with who names it.
    pub in_use: Vec<InUse>,
    /// Images that stay because they are among the newest.
    pub keep: Vec<Published>,
    /// Snapshots that no image is made of: what an unfinished publish or prune has left.
    pub orphans: Vec<String>,
}

/// An image that something starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InUse {
    /// The image.
    pub image: Published,
    /// Instances and versions of launch templates.
    pub by: Vec<String>,
}

impl Pruning {
    /// Looks what goes when the newest `keep` images of each flavour stay. Changes nothing. Images that `image publish` has not made are
    /// none of its business.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn look(aws: &Aws, keep: usize) -> Result<Self, AwsError> {
        let mut found = published::all(aws)?;
        found.retain(|image| image.sha256.is_some());
        let held: Vec<String> = found.iter().filter_map(|image| image.snapshot.clone()).collect();
        let mut pruning = Self::choose(found, keep, &aws.image_uses()?);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let before = i64::try_from(now.as_secs()).unwrap_or(i64::MAX) - UNFINISHED_S;
        pruning.orphans = aws
            .snapshots_tagged(HASH_TAG)?
            .into_iter()
            .filter(|snapshot| {
                !held.contains(&snapshot.id) && snapshot.started_s.is_some_and(|started| started < before)
            })
            .map(|snapshot| snapshot.id)
            .collect();
        Ok(pruning)
    }

    /// `found`: oldest first.
    fn choose(found: Vec<Published>, keep: usize, uses: &BTreeMap<String, Vec<String>>) -> Self {
        let mut pruning = Self::default();
        let mut kept = BTreeMap::new();
        for image in found.into_iter().rev() {
            let of_flavour: &mut usize = kept.entry(image.flavour.to_string()).or_default();
            if *of_flavour < keep {
                *of_flavour += 1;
                pruning.keep.push(image);
            } else if let Some(by) = uses.get(&image.id) {
                pruning.in_use.push(InUse { by: by.clone(), image });
            } else {
                pruning.remove.push(image);
            }
        }
        pruning.keep.reverse();
        pruning.in_use.reverse();
        pruning.remove.reverse();
        pruning
    }

    /// Whether there is nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.orphans.is_empty()
    }

    /// Removes what it says, but for what has come into use since: images, then their snapshots. `removed` is told of each image and each
    /// snapshot.
    ///
    /// # Errors
    /// [`AwsError`]; what was told of is gone, and the same command goes on.
    pub fn carry_out(&self, aws: &Aws, removed: &mut dyn FnMut(&str)) -> Result<(), AwsError> {
        let uses = aws.image_uses()?;
        for image in self.remove.iter().filter(|image| !uses.contains_key(&image.id)) {
            aws.deregister_image(&image.id)?;
            removed(&image.id);
            if let Some(snapshot) = &image.snapshot {
                aws.delete_snapshot(snapshot)?;
                removed(snapshot);
            }
        }
        for snapshot in &self.orphans {
            aws.delete_snapshot(snapshot)?;
            removed(snapshot);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Flavour;
    use super::*;

    fn image(id: &str, flavour: Flavour) -> Published {
        Published {
            id: id.to_owned(),
            name: format!("sipedge-{id}"),
            created: String::new(),
            state: "available".to_owned(),
            version: "1".to_owned(),
            flavour,
            sha256: Some(id.to_owned()),
            snapshot: Some(format!("snap-{id}")),
            commit: None,
        }
    }

    #[test]
    fn the_newest_of_each_flavour_and_those_in_use_stay() {
        let found: Vec<Published> = [("d1", Flavour::Debian), ("m1", Flavour::Micro), ("d2", Flavour::Debian)]
            .into_iter()
            .chain([("d3", Flavour::Debian), ("d4", Flavour::Debian)])
            .map(|(id, flavour)| image(id, flavour))
            .collect();
        let uses = [("d2".to_owned(), vec!["instance i-1".to_owned()])].into();
        let ids = |images: &[Published]| images.iter().map(|image| image.id.clone()).collect::<Vec<_>>();
        let pruning = Pruning::choose(found.clone(), 1, &uses);
        assert_eq!(ids(&pruning.keep), ["m1", "d4"]);
        assert_eq!(ids(&pruning.remove), ["d1", "d3"]);
        assert_eq!(
            pruning.in_use,
            [InUse { image: image("d2", Flavour::Debian), by: vec!["instance i-1".to_owned()] }]
        );
        assert!(Pruning::choose(found.clone(), 4, &uses).is_empty());
        assert_eq!(ids(&Pruning::choose(found, 0, &BTreeMap::new()).remove).len(), 5);
    }
}
