//! The way in for BIOS: GRUB's two images in sector 0 and a partition of their own, and what they load from the EFI system partition.
//!
//! What `grub-install` does on a running machine, for a disk that is a file: sector 0 is told where the second image is, and the second
//! image where its own rest is. GRUB itself is the snapshot's, put together by `grub-mkimage` in the tree.

use std::fmt::{Debug, Formatter};

use super::gpt::SECTOR;

/// What a disk needs to be started by BIOS.
#[derive(Clone, PartialEq, Eq)]
pub struct Bios {
    /// `boot.img` of GRUB for i386-pc: sector 0.
    pub first: Vec<u8>,
    /// `core.img`, as `grub-mkimage` writes it, with `(,gpt1)/grub` as its prefix.
    pub core: Vec<u8>,
    /// The kernel.
    pub linux: Vec<u8>,
    /// The initramfs.
    pub initrd: Vec<u8>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// Why GRUB's images cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BiosError {
    /// An image has another form than GRUB 2's.
    #[error("{0} is not an image of GRUB 2 for i386-pc")]
    Form(&'static str),
}

/// Bytes of sector 0 that are code: what is behind belongs to the partition table.
const CODE: usize = 440;

/// Place in `boot.img` of the second image's first sector, 8 bytes (GRUB's `include/grub/i386/pc/boot.h`, `KERNEL_SECTOR`).
const KERNEL_SECTOR: usize = 0x5c;

/// Place in `boot.img` of a jump that keeps the drive's number from being corrected (`DRIVE_CHECK`); `grub-install` overwrites it on hard
/// disks, since some firmware passes a wrong one.
const DRIVE_CHECK: usize = 0x66;

/// Two times "no operation".
const NO_OPERATION: [u8; 2] = [0x90, 0x90];

/// Place in the first sector of `core.img` of the list's first entry (`struct grub_pc_bios_boot_blocklist`): first sector, 8 bytes; number
/// of sectors, 2 bytes; segment that they are loaded to, 2 bytes.
const BLOCK_LIST: usize = 512 - 12;

/// Segment behind the first sector's own: `GRUB_BOOT_MACHINE_KERNEL_SEG`, 0x800, and one sector.
const SEGMENT: u16 = 0x820;

/// Least bytes of a `core.img`: its first sector and something to load.
const LEAST_CORE: usize = 1024;

impl Bios {
    /// Code for sector 0, when the second image begins at `core_start`, in bytes.
    ///
    /// # Errors
    ///
    /// [`BiosError::Form`]
    pub fn boot_code(&self, core_start: u64) -> Result<Vec<u8>, BiosError> {
        let bad = BiosError::Form("boot.img");
        // It ends with the mark of a boot sector.
        if self.first.len() != 512 || !self.first.ends_with(&[0x55, 0xaa]) {
            return Err(bad);
        }
        let mut code = self.first.get(..CODE).ok_or(bad)?.to_vec();
        put(&mut code, KERNEL_SECTOR, &(core_start / SECTOR).to_le_bytes());
        put(&mut code, DRIVE_CHECK, &NO_OPERATION);
        Ok(code)
    }

    /// The second image, as it lies at `start`, in bytes.
    ///
    /// # Errors
    ///
    /// [`BiosError::Form`]
    pub fn core(&self, start: u64) -> Result<Vec<u8>, BiosError> {
        let bad = BiosError::Form("core.img");
        let rest = self.core.len().saturating_sub(512).div_ceil(512);
        let (Ok(sectors), true) = (u16::try_from(rest), self.core.len() >= LEAST_CORE) else { return Err(bad) };
        // What grub-mkimage has counted has to be what is there, or the place is another one.
        let counted = self.core.get(BLOCK_LIST + 8..).and_then(|at| at.first_chunk().copied()).map(u16::from_le_bytes);
        if counted != Some(sectors) {
            return Err(bad);
        }
        let mut core = self.core.clone();
        put(&mut core, BLOCK_LIST, &(start / SECTOR + 1).to_le_bytes());
        put(&mut core, BLOCK_LIST + 10, &SEGMENT.to_le_bytes());
        Ok(core)
    }

    /// Files of the EFI system partition that GRUB reads: its script, the kernel, the initramfs.
    #[must_use]
    pub fn files(&self) -> [(&'static str, Vec<u8>); 3] {
        let script = format!(
            "set timeout=0\nserial --unit=0 --speed=115200\nterminal_output console serial\n\
             linux /grub/linux {}\ninitrd /grub/initrd\nboot\n",
            self.cmdline
        );
        [
            ("grub/grub.cfg", script.into_bytes()),
            ("grub/linux", self.linux.clone()),
            ("grub/initrd", self.initrd.clone()),
        ]
    }
}

/// Without the megabytes.
impl Debug for Bios {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bios").field("core", &self.core.len()).field("cmdline", &self.cmdline).finish_non_exhaustive()
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bios() -> Bios {
        let mut first = vec![1; 512];
        first[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut core = vec![2; 512 * 3 + 100];
        core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&3_u16.to_le_bytes());
        Bios { first, core, linux: vec![3], initrd: vec![4], cmdline: "ro quiet".to_owned() }
    }

    #[test]
    fn each_image_is_told_where_the_next_is() {
        let code = bios().boot_code(5 << 20).expect("an image");
        assert_eq!(code.len(), 440);
        assert_eq!(code[0x5c..0x64], 10_240_u64.to_le_bytes());
        assert_eq!(code[0x66..0x68], [0x90, 0x90]);
        let core = bios().core(5 << 20).expect("an image");
        assert_eq!(core[500..508], 10_241_u64.to_le_bytes());
        assert_eq!(core[508..512], [3, 0, 0x20, 8]);
        assert_eq!(core[512..], bios().core[512..]);
    }

    #[test]
    fn what_is_no_image_of_grub_is_refused() {
        let wrong = Bios { first: vec![0; 512], core: vec![0; 2048], ..bios() };
        assert_eq!(wrong.boot_code(1 << 20), Err(BiosError::Form("boot.img")));
        assert_eq!(wrong.core(1 << 20), Err(BiosError::Form("core.img")));
        let short = Bios { first: Vec::new(), core: vec![0; 3], ..bios() };
        assert!(short.boot_code(0).is_err() && short.core(0).is_err());
    }

    #[test]
    fn the_script_boots_with_the_same_command_line() {
        let [(name, script), ..] = bios().files();
        assert_eq!(name, "grub/grub.cfg");
        assert!(String::from_utf8_lossy(&script).contains("linux /grub/linux ro quiet\n"));
    }
}
