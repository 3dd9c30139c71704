//! The EFI system partition: FAT32 with the unified kernel image where firmware looks for it.

use std::io::{self, Read, Seek, Write};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};

/// Where firmware of x86-64 looks on a disk that no boot entry names (UEFI 2.10, 3.5.1.1).
pub const BOOT_FILE: &str = "EFI/BOOT/BOOTX64.EFI";

/// Bytes of a cluster: the smallest, since FAT32 needs at least 65525 of them and the partition should be small.
const CLUSTER: u32 = 512;

/// Clusters below which a file system is not FAT32 (Microsoft's FAT specification), and some to spare.
const LEAST_CLUSTERS: u64 = 66_000;

/// Bytes of the file system's own: reserved sectors and, at 4 bytes a cluster, two tables.
const RESERVED: u64 = 64 << 10;

/// The volume's label, 11 bytes.
const LABEL: [u8; 11] = *b"SIPEDGE-ESP";

/// Bytes that a partition needs for files of together `content` bytes.
#[must_use]
pub fn needed(content: u64) -> u64 {
    let cluster = u64::from(CLUSTER);
    // A spare eighth: another kernel image of about the size can be written over this one's neighbour by hand.
    let clusters = (content / cluster + content / cluster / 8 + 64).max(LEAST_CLUSTERS);
    RESERVED + clusters * (cluster + 2 * 4)
}

/// Formats `partition`, which reads as zeros, and writes the files. `volume`: the volume's number, which `root=` never uses but tools show.
///
/// Files bear FAT's first date, 1980-01-01: the same files give the same bytes.
///
/// # Errors
///
/// What the disk says, or that the files do not fit.
pub fn write<D>(mut partition: D, volume: u32, files: &[(&str, &[u8])]) -> io::Result<()>
where
    D: Read + Write + Seek,
{
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(CLUSTER)
        .volume_id(volume)
        .volume_label(LABEL);
    partition.rewind()?;
    format_volume(&mut partition, options)?;
    partition.rewind()?;
    let system = FileSystem::new(&mut partition, FsOptions::new().update_accessed_date(false))?;
    {
        let root = system.root_dir();
        for (path, content) in files {
            let mut folder = root.clone();
            let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
            for part in folders.split('/').filter(|part| !part.is_empty()) {
                folder = folder.create_dir(part)?;
            }
            let mut file = folder.create_file(name)?;
            file.truncate()?;
            file.write_all(content)?;
            file.flush()?;
        }
    }
    system.unmount()?;
    partition.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn volume(content: &[u8]) -> Vec<u8> {
        let mut disk = Cursor::new(vec![0; usize::try_from(needed(content.len() as u64)).expect("small")]);
        write(&mut disk, 7, &[(BOOT_FILE, content), ("loader/note.txt", b"note")]).expect("it fits");
        disk.into_inner()
    }

    #[test]
    fn files_are_read_back() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let system = FileSystem::new(Cursor::new(volume(&content)), FsOptions::new()).expect("a file system");
        assert_eq!(system.fat_type(), FatType::Fat32);
        let mut read = Vec::new();
        system.root_dir().open_file(BOOT_FILE).expect("there").read_to_end(&mut read).expect("readable");
        assert!(read == content, "the file differs");
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert!(volume(b"kernel") == volume(b"kernel"), "the volumes differ");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut disk = Cursor::new(vec![0; usize::try_from(needed(0)).expect("small")]);
        let large = vec![1; 40 << 20];
        assert!(write(&mut disk, 7, &[(BOOT_FILE, &large)]).is_err());
    }
}
