//! The debian image for tests, which take it from the cache when one of them has built it.

use sipedge::image::{Flavour, Image};

use crate::image;
use crate::support::{Project, program, repository, skip};
use crate::tools;

/// The image, built by the command that users type; none, and `test` is skipped, where that cannot be.
pub(crate) fn debian(test: &str) -> Option<Image> {
    if !image::possible(test) {
        return None;
    }
    let Some(ansible) = tools::python_tool("ansible-playbook").filter(|_| program("mksquashfs").is_some()) else {
        skip(test, "ansible or mksquashfs is missing: run tests/setup");
        return None;
    };
    let cache = image::cache();
    let build = ["build", "--flavour", "debian", "--cache", &cache.to_string_lossy()];
    image::image_with(&Project::new(), repository(), ansible.parent().expect("a folder"), &build).expect(0);
    Some(Image::newest(&cache, Flavour::Debian).expect("it was built"))
}
