//! An initramfs: a cpio archive in the format `newc`, as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format).
//!
//! The archive depends on its entries alone: they are sorted, and times, owners and inode numbers are fixed.

use std::collections::BTreeMap;

/// Type bits of a mode (POSIX `sys/stat.h`).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// Longest name that the kernel takes: PATH_MAX with its NUL.
const LONGEST_NAME: usize = 4095;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    Character { major: u32, minor: u32 },
}

/// An archive that is put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    /// By path without a leading slash. A folder sorts before what is in it, since its name is a prefix of theirs.
    entries: BTreeMap<String, (u32, Kind)>,
}

/// Why an entry was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CpioError {
    /// A path that would not be below the root, or is too long.
    #[error("{path:?}: {why}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two entries of one name.
    #[error("{0:?} is in the archive twice")]
    Twice(String),
    /// The format has 32 bits for a length.
    #[error("{path:?}: {bytes} bytes; at most 4294967295 fit")]
    TooLong {
        /// The path.
        path: String,
        /// Its length.
        bytes: usize,
    },
}

impl Archive {
    /// An archive with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder, and those above it that are missing (mode 755). `mode`: permission bits.
    ///
    /// # Errors
    ///
    /// [`CpioError`] when the path is refused or there already, unless as a folder.
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<&mut Self, CpioError> {
        let path = self.parents(path)?;
        match self.entries.insert(path.clone(), (mode, Kind::Directory)) {
            None | Some((_, Kind::Directory)) => Ok(self),
            Some(_) => Err(CpioError::Twice(path)),
        }
    }

    /// Adds a file. `mode`: permission bits.
    ///
    /// # Errors
    ///
    /// [`CpioError`] when the path is refused, there already, or the content too long.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Result<&mut Self, CpioError> {
        let content = content.into();
        if u32::try_from(content.len()).is_err() {
            return Err(CpioError::TooLong { path: path.to_owned(), bytes: content.len() });
        }
        self.add(path, mode, Kind::File(content))
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    ///
    /// [`CpioError`] when the path is refused or there already.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<&mut Self, CpioError> {
        self.add(path, 0o777, Kind::Symlink(target.to_owned()))
    }

    /// Adds a character device, such as the console that the kernel opens for init before anything is mounted.
    ///
    /// # Errors
    ///
    /// [`CpioError`] when the path is refused or there already.
    pub fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> Result<&mut Self, CpioError> {
        self.add(path, mode, Kind::Character { major, minor })
    }

    /// The archive's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let content: usize = self.entries.values().map(|(_, kind)| kind.content().len() + 256).sum();
        let mut bytes = Vec::with_capacity(content + 512);
        // Numbers from 1: the kernel takes entries with the same one for hard links.
        for (number, (path, (mode, kind))) in (1..).zip(&self.entries) {
            entry(&mut bytes, number, path, *mode, kind);
        }
        header(&mut bytes, 0, TRAILER, 0, 1, 0, (0, 0));
        pad(&mut bytes, 512);
        bytes
    }

    fn add(&mut self, path: &str, mode: u32, kind: Kind) -> Result<&mut Self, CpioError> {
        let path = self.parents(path)?;
        if self.entries.contains_key(&path) {
            return Err(CpioError::Twice(path));
        }
        self.entries.insert(path, (mode, kind));
        Ok(self)
    }

    /// The checked path, without a leading slash; the folders above it are there afterwards.
    fn parents(&mut self, path: &str) -> Result<String, CpioError> {
        let refused = |why| CpioError::Path { path: path.to_owned(), why };
        let relative = path.strip_prefix('/').unwrap_or(path);
        if relative.is_empty() || relative == TRAILER {
            return Err(refused("not a name"));
        }
        if relative.len() > LONGEST_NAME {
            return Err(refused("longer than the kernel takes"));
        }
        if relative.contains('\0') || relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(refused("not a plain path below the root"));
        }
        for (end, _) in relative.match_indices('/') {
            let above = &relative[..end];
            match self.entries.get(above) {
                None => drop(self.entries.insert(above.to_owned(), (0o755, Kind::Directory))),
                Some((_, Kind::Directory)) => {}
                Some(_) => return Err(refused("what is above it is no folder")),
            }
        }
        Ok(relative.to_owned())
    }
}

impl Kind {
    fn content(&self) -> &[u8] {
        match self {
            Self::File(content) => content,
            Self::Symlink(target) => target.as_bytes(),
            Self::Directory | Self::Character { .. } => &[],
        }
    }
}

fn entry(bytes: &mut Vec<u8>, number: u32, path: &str, mode: u32, kind: &Kind) {
    let (kind_bits, links, device) = match kind {
        Kind::Directory => (DIRECTORY, 2, (0, 0)),
        Kind::File(_) => (REGULAR, 1, (0, 0)),
        Kind::Symlink(_) => (SYMLINK, 1, (0, 0)),
        Kind::Character { major, minor } => (CHARACTER, 1, (*major, *minor)),
    };
    let content = kind.content();
    // Checked when it was added.
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    header(bytes, number, path, kind_bits | (mode & 0o7777), links, length, device);
    bytes.extend_from_slice(content);
    pad(bytes, 4);
}

/// 110 bytes of hexadecimal fields, the name with a NUL, and zeros up to a multiple of 4.
fn header(bytes: &mut Vec<u8>, number: u32, name: &str, mode: u32, links: u32, length: u32, device: (u32, u32)) {
    let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
    // Inode, mode, user, group, links, time, length, device of the file (2), device that it is (2), length of the name, checksum.
    let fields = [number, mode, 0, 0, links, 0, length, 0, 0, device.0, device.1, name_length, 0];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    pad(bytes, 4);
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, content of each entry: a reader of its own, from the kernel's description of the format.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let all = bytes.len();
        loop {
            assert_eq!(&bytes[..6], b"070701", "at byte {}", all - bytes.len());
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).expect("ASCII");
                u32::from_str_radix(text, 16).expect("hexadecimal")
            };
            let (mode, length, name_length) = (field(1), field(6) as usize, field(11) as usize);
            assert_eq!(field(5), 0, "the time is fixed");
            let name = String::from_utf8(bytes[110..110 + name_length - 1].to_vec()).expect("a name");
            let start = (110 + name_length).next_multiple_of(4);
            let content = bytes[start..start + length].to_vec();
            if name == TRAILER {
                return found;
            }
            found.push((name, mode, content));
            bytes = &bytes[(start + length).next_multiple_of(4)..];
        }
    }

    #[test]
    fn entries_come_sorted_with_their_folders_before_them() {
        let mut archive = Archive::new();
        archive.file("init", 0o755, *b"\x7fELF.").expect("fine");
        archive.file("/etc/ssl/roots", 0o644, *b"x").expect("fine");
        archive.symlink("etc-", "etc").expect("fine");
        archive.device("dev/console", 0o600, 5, 1).expect("fine");
        let read = read(&archive.to_bytes());
        let names: Vec<&str> = read.iter().map(|(name, _, _)| name.as_str()).collect();
        assert_eq!(names, ["dev", "dev/console", "etc", "etc-", "etc/ssl", "etc/ssl/roots", "init"]);
        assert_eq!(read[1].1, 0o020_600);
        assert_eq!(read[2].1, 0o040_755);
        assert_eq!(read[3].1, 0o120_777);
        assert_eq!(read[3].2, b"etc");
        assert_eq!(read[6], ("init".to_owned(), 0o100_755, b"\x7fELF.".to_vec()));
    }

    #[test]
    fn the_order_of_adding_changes_nothing() {
        let mut one = Archive::new();
        one.file("a", 0o644, *b"1").expect("fine").folder("b", 0o700).expect("fine");
        let mut other = Archive::new();
        other.folder("b", 0o700).expect("fine").file("a", 0o644, *b"1").expect("fine");
        assert_eq!(one.to_bytes(), other.to_bytes());
        assert_eq!(one.to_bytes().len() % 512, 0);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["", "/", "../a", "a/../b", "a//b", "a/", "./a", "a\0b", TRAILER] {
            assert!(matches!(Archive::new().file(path, 0o644, ""), Err(CpioError::Path { .. })), "{path:?}");
        }
    }

    #[test]
    fn a_name_is_there_once() {
        let mut archive = Archive::new();
        archive.file("a", 0o644, "").expect("fine");
        assert_eq!(archive.file("a", 0o644, "").err(), Some(CpioError::Twice("a".to_owned())));
        assert!(archive.file("a/b", 0o644, "").is_err(), "a file is no folder");
    }
}
