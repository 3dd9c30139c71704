//! The disk: partition table, the ESP with the kernel, the root file system, and what BIOS needs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::bios::Bios;
use super::gpt::{self, Layout, Purpose, Slice, Wanted};
use super::{BLOCK, Content, ImageError, esp, hexadecimal};

/// The identifier that the root partition will have.
pub(super) fn root_guid(label: &str) -> Result<String, ImageError> {
    let wanted = [Wanted { purpose: Purpose::Esp, bytes: 1 }, Wanted { purpose: Purpose::Root, bytes: 1 }];
    let layout = Layout::new(label, &wanted)?;
    Ok(layout.find(Purpose::Root).map(|placed| placed.guid.to_string()).unwrap_or_default())
}

/// Table, ESP with the kernel, the root file system, and what BIOS needs.
pub(super) fn write(path: &Path, label: &str, content: &Content) -> Result<(), ImageError> {
    let failed = |error| ImageError::file("write", path)(error);
    let for_bios = content.bios.as_ref().map(Bios::files);
    let mut files: Vec<(&str, &[u8])> = vec![(esp::BOOT_FILE, &content.kernel)];
    files.extend(for_bios.iter().flatten().map(|(name, bytes)| (*name, bytes.as_slice())));
    let length = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let mut wanted = vec![Wanted { purpose: Purpose::Esp, bytes: esp::needed(length) }];
    let root = content.root.as_deref();
    let mut root = root.map(|root| File::open(root).map_err(ImageError::file("read", root))).transpose()?;
    if let Some(file) = &root {
        wanted.push(Wanted { purpose: Purpose::Root, bytes: file.metadata().map_err(failed)?.len() });
    }
    if let Some(bios) = &content.bios {
        wanted.push(Wanted { purpose: Purpose::BiosBoot, bytes: bios.core.len() as u64 });
    }
    let layout = Layout::new(label, &wanted)?;
    let mut disk = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(ImageError::file("create", path))?;
    disk.set_len(layout.bytes).map_err(failed)?;
    let code = match (&content.bios, layout.find(Purpose::BiosBoot)) {
        (Some(bios), Some(placed)) => bios.boot_code(placed.start)?,
        _ => Vec::new(),
    };
    layout.write(&mut disk, &code)?;
    for placed in &layout.partitions {
        let mut partition = Slice::new(&mut disk, placed);
        match (placed.purpose, &mut root) {
            (Purpose::Esp, _) => {
                // In memory, since FAT is written in many small pieces; at most a few dozen megabytes.
                let length = usize::try_from(placed.bytes).map_err(|_| gpt::DiskError::TooLarge(placed.bytes))?;
                let mut volume = io::Cursor::new(vec![0; length]);
                let number = placed.guid.as_fields().0;
                esp::write(&mut volume, number, &files).map_err(failed)?;
                copy_sparse(&mut io::Cursor::new(volume.into_inner()), &mut partition).map_err(failed)?;
            }
            (Purpose::Root, Some(root)) => copy_sparse(root, &mut partition).map_err(failed)?,
            (Purpose::Root, None) => {}
            (Purpose::BiosBoot, _) => {
                if let Some(bios) = &content.bios {
                    partition.write_all(&bios.core(placed.start)?).map_err(failed)?;
                }
            }
        }
    }
    disk.sync_all().map_err(failed)
}

/// Copies to a place that reads as zeros, and leaves out what is zero.
fn copy_sparse(from: &mut impl Read, to: &mut (impl Write + Seek)) -> io::Result<()> {
    let mut block = Vec::with_capacity(BLOCK);
    loop {
        block.clear();
        if from.by_ref().take(BLOCK as u64).read_to_end(&mut block)? == 0 {
            return Ok(());
        }
        if block.iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(i64::try_from(block.len()).unwrap_or(0)))?;
        } else {
            to.write_all(&block)?;
        }
    }
}

/// SHA-256 of a file, and the bytes of those blocks that are not all zeros.
pub(super) fn digest(path: &Path) -> Result<(String, u64), ImageError> {
    let mut file = File::open(path).map_err(ImageError::file("read", path))?;
    let (mut hash, mut used, mut block) = (Sha256::new(), 0, Vec::with_capacity(BLOCK));
    loop {
        block.clear();
        let read = Read::by_ref(&mut file)
            .take(BLOCK as u64)
            .read_to_end(&mut block)
            .map_err(ImageError::file("read", path))?;
        if read == 0 {
            return Ok((hexadecimal(&hash.finalize()), used));
        }
        if block.iter().any(|byte| *byte != 0) {
            used += read as u64;
        }
        hash.update(&block);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_disk_holds_the_kernel_and_is_made_again_byte_by_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let content = Content { kernel: vec![7; 100_000], root: None, packages: Vec::new(), bios: None };
        let disks: Vec<(String, u64)> = ["a", "b"]
            .map(|name| {
                let path = folder.path().join(name);
                write(&path, "micro/today", &content).expect("written");
                digest(&path).expect("read")
            })
            .into();
        assert_eq!(disks[0], disks[1]);
        let length = fs::metadata(folder.path().join("a")).expect("there").len();
        assert!(disks[0].1 < length / 4, "{} of {length} bytes are used", disks[0].1);
    }
}
