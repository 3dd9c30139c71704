//! From nothing to an image in the account.

use super::Flavour;

/// The commands that lead to a published image of a flavour, each with what it does.
#[must_use]
pub fn way_to_published(flavour: Flavour) -> [(String, String); 3] {
    [
        (format!("sipedge image build --flavour {flavour}"), "builds one on this machine".to_owned()),
        (format!("sipedge image boot --flavour {flavour}"), "boots it and places a call through it".to_owned()),
        (format!("sipedge image publish --flavour {flavour}"), "brings it to the account".to_owned()),
    ]
}
