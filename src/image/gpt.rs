//! The partition table: GPT behind a protective MBR, on anything that can be read, written and sought.
//!
//! Identifiers are made from the disk's label and each partition's place, not drawn: the same layout gives the same bytes.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::io::{self, Read, Seek, SeekFrom, Write};

use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{BIOS, EFI, LINUX_ROOT_X64, Type};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

/// Bytes of a logical block. EBS volumes and NVMe disks of EC2 have blocks of 512 bytes.
pub const SECTOR: u64 = 512;

/// Bytes to which partitions are aligned: a multiple of the 512 KiB blocks of an EBS snapshot, so that no block belongs to two
/// partitions, and of what disks do well.
pub const ALIGNMENT: u64 = 1 << 20;

/// Bytes behind the last partition for the table's copy: 32 sectors of entries, one of header (UEFI 2.10, 5.3.1), rounded up.
const BACKUP: u64 = ALIGNMENT;

/// Bytes of the code in the first sector, before the disk's signature (UEFI 2.10, table 5-1).
const BOOT_CODE: usize = 440;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// EFI system partition, where UEFI firmware finds the kernel.
    Esp,
    /// Where a boot loader for BIOS has its second stage.
    BiosBoot,
    /// Root file system of x86-64 (Discoverable Partitions Specification).
    Root,
}

impl Purpose {
    fn kind(self) -> Type {
        match self {
            Self::Esp => EFI,
            Self::BiosBoot => BIOS,
            Self::Root => LINUX_ROOT_X64,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Esp => "esp",
            Self::BiosBoot => "bios",
            Self::Root => "root",
        }
    }
}

/// A partition that is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub purpose: Purpose,
    /// Bytes that it has to hold at least.
    pub bytes: u64,
}

/// A partition that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What it is for.
    pub purpose: Purpose,
    /// Its first byte on the disk.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its own identifier, by which the kernel's `root=PARTUUID=` finds it.
    pub guid: Uuid,
}

/// Where everything on a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The disk's identifier.
    pub guid: Uuid,
    /// The disk's length in bytes.
    pub bytes: u64,
    /// The partitions, in the order of the disk.
    pub partitions: Vec<Placed>,
}

/// Why a disk could not be laid out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The disk cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The table is refused.
    #[error("partition table: {0}")]
    Table(String),
    /// Sizes that no disk has.
    #[error("the partitions are too large: {0} bytes")]
    TooLarge(u64),
    /// Code that would overwrite the table.
    #[error("boot code has {0} bytes; at most {BOOT_CODE} fit before the partition table")]
    BootCode(usize),
}

impl Layout {
    /// Places the partitions one after the other. `label`: what the identifiers are made from.
    ///
    /// # Errors
    ///
    /// [`DiskError::TooLarge`] when the sizes do not add up to a disk.
    pub fn new(label: &str, wanted: &[Wanted]) -> Result<Self, DiskError> {
        let mut at = ALIGNMENT;
        let mut partitions = Vec::with_capacity(wanted.len());
        for (index, Wanted { purpose, bytes }) in wanted.iter().copied().enumerate() {
            let rounded = bytes.max(1).checked_next_multiple_of(ALIGNMENT).ok_or(DiskError::TooLarge(bytes))?;
            let guid = guid_from(&format!("{label}/{index}/{}", purpose.name()));
            partitions.push(Placed { purpose, start: at, bytes: rounded, guid });
            at = at.checked_add(rounded).ok_or(DiskError::TooLarge(bytes))?;
        }
        let bytes = at.checked_add(BACKUP).filter(|all| *all <= i64::MAX as u64).ok_or(DiskError::TooLarge(at))?;
        Ok(Self { guid: guid_from(label), bytes, partitions })
    }

    /// The first partition for this purpose.
    #[must_use]
    pub fn find(&self, purpose: Purpose) -> Option<&Placed> {
        self.partitions.iter().find(|placed| placed.purpose == purpose)
    }

    /// Writes the protective MBR with `boot_code` in front of it (empty for a disk that only UEFI boots), and both copies of the
    /// table. `disk` has to have [`Layout::bytes`] already; what is between the tables is left alone.
    ///
    /// # Errors
    ///
    /// [`DiskError`] when the code is too long or the disk cannot be written.
    pub fn write<D>(&self, disk: &mut D, boot_code: &[u8]) -> Result<(), DiskError>
    where
        D: Read + Write + Seek + Debug,
    {
        if boot_code.len() > BOOT_CODE {
            return Err(DiskError::BootCode(boot_code.len()));
        }
        // A disk of more sectors than fit is covered as far as the field goes (UEFI 2.10, table 5-4).
        let sectors = u32::try_from(self.bytes / SECTOR - 1).unwrap_or(u32::MAX);
        ProtectiveMBR::with_lb_size(sectors)
            .overwrite_lba0(disk)
            .map_err(|error| DiskError::Table(format!("protective MBR: {error}")))?;
        disk.seek(SeekFrom::Start(0))?;
        disk.write_all(boot_code)?;

        let config = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
        let mut table = config.create_from_device(&mut *disk, Some(self.guid)).map_err(refused)?;
        table.update_partitions(self.entries()).map_err(refused)?;
        table.write().map_err(refused)?;
        disk.flush()?;
        Ok(())
    }

    fn entries(&self) -> BTreeMap<u32, Partition> {
        let entry = |placed: &Placed| Partition {
            part_type_guid: placed.purpose.kind(),
            part_guid: placed.guid,
            first_lba: placed.start / SECTOR,
            last_lba: (placed.start + placed.bytes) / SECTOR - 1,
            flags: 0,
            name: placed.purpose.name().to_owned(),
        };
        (1..).zip(self.partitions.iter().map(entry)).collect()
    }
}

fn refused(error: impl Display) -> DiskError {
    DiskError::Table(error.to_string())
}

/// A part of a disk, as a disk of its own: nothing outside of it can be reached.
#[derive(Debug)]
pub struct Slice<D> {
    disk: D,
    start: u64,
    bytes: u64,
    at: u64,
}

impl<D> Slice<D> {
    /// The part that a partition takes.
    pub fn new(disk: D, placed: &Placed) -> Self {
        Self { disk, start: placed.start, bytes: placed.bytes, at: 0 }
    }

    /// How much of `wanted` bytes is left from here.
    fn within(&self, wanted: usize) -> usize {
        usize::try_from(self.bytes.saturating_sub(self.at)).unwrap_or(usize::MAX).min(wanted)
    }
}

impl<D: Read + Seek> Read for Slice<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.within(buffer.len());
        self.disk.seek(SeekFrom::Start(self.start + self.at))?;
        let read = self.disk.read(buffer.get_mut(..length).unwrap_or_default())?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<D: Write + Seek> Write for Slice<D> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.within(buffer.len());
        self.disk.seek(SeekFrom::Start(self.start + self.at))?;
        let written = self.disk.write(buffer.get(..length).unwrap_or_default())?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

impl<D> Seek for Slice<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the partition's start"))?;
        Ok(self.at)
    }
}

/// An identifier that depends on nothing but `label`, in the form of a version 8 UUID (RFC 9562, 5.8: the maker's own).
pub(super) fn guid_from(label: &str) -> Uuid {
    let digest = Sha256::digest(format!("sipedge image/{label}"));
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).for_each(|(byte, from)| *byte = from);
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn layout() -> Layout {
        let wanted = [
            Wanted { purpose: Purpose::BiosBoot, bytes: 4096 },
            Wanted { purpose: Purpose::Esp, bytes: (3 << 20) + 1 },
        ];
        Layout::new("test", &wanted).expect("small sizes fit")
    }

    fn written(layout: &Layout) -> Vec<u8> {
        let mut disk = Cursor::new(vec![0; usize::try_from(layout.bytes).expect("small")]);
        layout.write(&mut disk, &[0xeb, 0x63]).expect("the disk is long enough");
        disk.into_inner()
    }

    #[test]
    fn partitions_are_aligned_and_apart() {
        let layout = layout();
        assert_eq!(layout.partitions[0].start, 1 << 20);
        assert_eq!(layout.partitions[1].start, 2 << 20);
        assert_eq!(layout.partitions[1].bytes, 4 << 20);
        assert_eq!(layout.bytes, 7 << 20);
        assert_ne!(layout.partitions[0].guid, layout.partitions[1].guid);
    }

    #[test]
    fn the_same_layout_gives_the_same_bytes() {
        assert_eq!(written(&layout()), written(&layout()));
    }

    #[test]
    fn both_tables_are_read_back() {
        let layout = layout();
        let disk = Cursor::new(written(&layout));
        let read = GptConfig::new().only_valid_headers(true).open_from_device(disk).expect("a valid table");
        assert_eq!(*read.guid(), layout.guid);
        let esp = &read.partitions()[&2];
        assert_eq!((esp.first_lba, esp.last_lba), (4096, 4096 + 8192 - 1));
        assert_eq!(esp.part_guid, layout.partitions[1].guid);
        assert_eq!(esp.part_type_guid, EFI);
    }

    #[test]
    fn the_first_sector_has_code_and_signature() {
        let disk = written(&layout());
        assert_eq!(disk[..2], [0xeb, 0x63]);
        assert_eq!(disk[0x1be + 4], 0xee, "the type of a protective partition");
        assert_eq!(disk[510..512], [0x55, 0xaa]);
        let long = [0; BOOT_CODE + 1];
        let refused = layout().write(&mut Cursor::new(vec![0; 8 << 20]), &long);
        assert!(matches!(refused, Err(DiskError::BootCode(441))), "{refused:?}");
    }

    #[test]
    fn a_slice_ends_where_the_partition_ends() {
        let placed = Placed { purpose: Purpose::Esp, start: 4, bytes: 4, guid: Uuid::nil() };
        let mut slice = Slice::new(Cursor::new(vec![0_u8; 12]), &placed);
        assert_eq!(slice.write(&[1; 6]).expect("written"), 4);
        assert_eq!(slice.write(&[1; 6]).expect("written"), 0);
        slice.seek(SeekFrom::End(-1)).expect("within");
        let mut rest = Vec::new();
        slice.read_to_end(&mut rest).expect("read");
        assert_eq!(rest, [1]);
        assert_eq!(slice.disk.into_inner(), [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]);
    }
}
