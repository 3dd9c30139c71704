//! Unified kernel image: kernel, initramfs and command line as sections of systemd's EFI stub, one file that firmware starts
//! (the UAPI group's "Unified Kernel Image" specification; systemd-stub(7)).
//!
//! The stub is a PE32+ program. Sections are added to its table, which has room for some, and their content behind its own.

/// What goes into an image.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// systemd's stub, `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// The kernel, a bzImage with EFI stub, such as `/boot/vmlinuz-…`.
    pub linux: &'a [u8],
    /// The initramfs, compressed or not.
    pub initrd: &'a [u8],
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// The content of an os-release file, which names the image in a boot menu.
    pub os_release: &'a str,
}

/// Why no image could be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UkiError {
    /// Something is no PE program for x86-64.
    #[error("{what}: not an EFI program for x86-64: {why}")]
    NotPe {
        /// The stub or the kernel.
        what: &'static str,
        /// What gives it away.
        why: &'static str,
    },
    /// The stub bears a signature, which adding to it would break.
    #[error("the stub is signed, so nothing can be added to it; take the unsigned one of the package systemd-boot-efi")]
    Signed,
    /// The stub has such a section already.
    #[error("the stub has a section {0} already: it is a unified kernel image, not a stub")]
    SectionThere(String),
    /// The stub's header has no room.
    #[error("the stub's header has room for {room} more sections, and {wanted} are needed")]
    NoRoom {
        /// Sections that fit.
        room: usize,
        /// Sections that are to be added.
        wanted: usize,
    },
    /// The format has 32 bits for a size.
    #[error("larger than an EFI program can be")]
    TooLarge,
}

/// Offset of the PE header's offset in the DOS header (PE format, "MS-DOS Stub").
const PE_OFFSET: usize = 0x3c;

/// Bytes of the signature and the COFF header behind it.
const COFF: usize = 24;

/// Machine type of x86-64.
const AMD64: u16 = 0x8664;

/// Magic number of the optional header of PE32+.
const PE32_PLUS: u16 = 0x20b;

/// Bytes of an entry of the section table.
const SECTION: usize = 40;

/// Number of data directories of a PE32+ header and offset of the first.
const DIRECTORIES: usize = 108;

/// The data directory of signatures.
const CERTIFICATES: usize = 4;

/// Section flags: initialised data, readable; and code, executable and readable for the kernel, which firmware that enforces it wants.
const DATA: u32 = 0x4000_0040;
const CODE: u32 = 0x6000_0020;

/// Puts an image together. Equal parts give equal bytes.
///
/// The kernel comes last and takes as much memory as it says that it needs once it runs: it decompresses itself in place, and what came
/// behind it would be overwritten.
///
/// # Errors
///
/// [`UkiError`] when the stub or the kernel is not what it should be.
pub fn build(parts: &Parts) -> Result<Vec<u8>, UkiError> {
    let kernel = Pe::read("the kernel", parts.linux)?;
    // The stub reads the command line up to the section's end, so it has no newline and no NUL.
    let sections = [
        (".osrel", parts.os_release.as_bytes(), 0, DATA),
        (".cmdline", parts.cmdline.trim_end().as_bytes(), 0, DATA),
        (".initrd", parts.initrd, 0, DATA),
        (".linux", parts.linux, kernel.image_size, CODE),
    ];
    let mut image = parts.stub.to_vec();
    let mut pe = Pe::read("the stub", &image)?;
    if pe.signed {
        return Err(UkiError::Signed);
    }
    let room = pe.room(&image)?;
    if room < sections.len() {
        return Err(UkiError::NoRoom { room, wanted: sections.len() });
    }
    for (name, content, memory, flags) in sections {
        if pe.sections.iter().any(|section| section.name == name.as_bytes()) {
            return Err(UkiError::SectionThere(name.to_owned()));
        }
        pe.append(&mut image, name, content, memory, flags)?;
    }
    Ok(image)
}

/// The section `name` of an image, without what pads it in the file; `None` when there is none, or it is no image.
#[must_use]
pub fn section<'a>(image: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let pe = Pe::read("the image", image).ok()?;
    let section = pe.sections.iter().find(|section| section.name == name.as_bytes())?;
    let length = section.memory.min(section.file_bytes) as usize;
    image.get(section.file_offset as usize..)?.get(..length)
}

/// What is needed of a PE header.
#[derive(Debug)]
struct Pe {
    what: &'static str,
    /// Offset of the PE signature.
    header: usize,
    /// Offset of the section table.
    table: usize,
    section_alignment: u32,
    file_alignment: u32,
    image_size: u32,
    header_size: u32,
    signed: bool,
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    /// Without the NULs that fill it up.
    name: Vec<u8>,
    address: u32,
    /// Bytes that it takes in memory.
    memory: u32,
    file_offset: u32,
    file_bytes: u32,
}

impl Pe {
    fn read(what: &'static str, bytes: &[u8]) -> Result<Self, UkiError> {
        let wrong = |why| UkiError::NotPe { what, why };
        let short = || wrong("its header is cut off");
        let long = |at: usize| u32_at(bytes, at).ok_or_else(short);
        let word = |at: usize| u16_at(bytes, at).ok_or_else(short);
        if !bytes.starts_with(b"MZ") {
            return Err(wrong("it does not begin with MZ"));
        }
        // 32 bits: sums with what is in a header do not overflow a usize.
        let header = long(PE_OFFSET)? as usize;
        if bytes.get(header..header + 4) != Some(b"PE\0\0") {
            return Err(wrong("there is no PE signature"));
        }
        if word(header + 4)? != AMD64 {
            return Err(wrong("it is for another processor"));
        }
        let optional = header + COFF;
        if word(optional)? != PE32_PLUS {
            return Err(wrong("it is not PE32+"));
        }
        let directories = long(optional + DIRECTORIES)? as usize;
        let certificates = optional + DIRECTORIES + 4 + 8 * CERTIFICATES + 4;
        let signed = directories > CERTIFICATES && long(certificates)? != 0;
        let table = optional + usize::from(word(header + 20)?);
        let (section_alignment, file_alignment) = (long(optional + 32)?, long(optional + 36)?);
        if !section_alignment.is_power_of_two() || !file_alignment.is_power_of_two() {
            return Err(wrong("its alignments are no powers of two"));
        }
        let mut sections = Vec::new();
        for index in 0..usize::from(word(header + 6)?) {
            let at = table + index * SECTION;
            let name = bytes.get(at..at + 8).ok_or_else(short)?;
            sections.push(Section {
                name: name.iter().copied().take_while(|byte| *byte != 0).collect(),
                memory: long(at + 8)?,
                address: long(at + 12)?,
                file_bytes: long(at + 16)?,
                file_offset: long(at + 20)?,
            });
        }
        let (image_size, header_size) = (long(optional + 56)?, long(optional + 60)?);
        Ok(Self { what, header, table, section_alignment, file_alignment, image_size, header_size, signed, sections })
    }

    /// How many entries fit behind the section table: up to the end of the headers, and only where nothing else is.
    fn room(&self, bytes: &[u8]) -> Result<usize, UkiError> {
        let first =
            self.sections.iter().filter(|section| section.file_bytes > 0).map(|section| section.file_offset).min();
        let end = first.unwrap_or(self.header_size).min(self.header_size) as usize;
        let used = self.table + self.sections.len() * SECTION;
        let free = bytes.get(used..end.max(used));
        let free = free.ok_or(UkiError::NotPe { what: self.what, why: "its header is cut off" })?;
        Ok(free.iter().take_while(|byte| **byte == 0).count() / SECTION)
    }

    /// Adds a section behind all others, in memory and in the file. `memory`: bytes that it takes in memory, if more than its content.
    fn append(
        &mut self,
        image: &mut Vec<u8>,
        name: &str,
        content: &[u8],
        memory: u32,
        flags: u32,
    ) -> Result<(), UkiError> {
        let length = u32::try_from(content.len()).map_err(|_| UkiError::TooLarge)?;
        let memory = memory.max(length);
        let furthest = |end: u32, section: &Section| Some(end.max(section.address.checked_add(section.memory)?));
        let end_in_memory = self.sections.iter().try_fold(self.header_size, furthest).ok_or(UkiError::TooLarge)?;
        let address = end_in_memory.checked_next_multiple_of(self.section_alignment).ok_or(UkiError::TooLarge)?;
        let file_offset = image.len().next_multiple_of(self.file_alignment as usize);
        let file_bytes = length.checked_next_multiple_of(self.file_alignment).ok_or(UkiError::TooLarge)?;
        let image_end =
            address.checked_add(memory).and_then(|end| end.checked_next_multiple_of(self.section_alignment));
        let image_end = image_end.ok_or(UkiError::TooLarge)?;
        let section = Section {
            name: name.as_bytes().to_vec(),
            address,
            memory,
            file_offset: u32::try_from(file_offset).map_err(|_| UkiError::TooLarge)?,
            file_bytes,
        };
        image.resize(file_offset, 0);
        image.extend_from_slice(content);
        image.resize(file_offset + file_bytes as usize, 0);

        let mut entry = [0; SECTION];
        entry.iter_mut().take(8).zip(name.bytes()).for_each(|(to, from)| *to = from);
        let fields = [(8, memory), (12, address), (16, file_bytes), (20, section.file_offset), (36, flags)];
        for (at, value) in fields {
            put(&mut entry, at, &value.to_le_bytes());
        }
        put(image, self.table + self.sections.len() * SECTION, &entry);
        self.sections.push(section);
        let count = u16::try_from(self.sections.len()).map_err(|_| UkiError::TooLarge)?;
        put(image, self.header + 6, &count.to_le_bytes());
        let optional = self.header + COFF;
        let data = u32_at(image, optional + 8).unwrap_or(0).checked_add(file_bytes).ok_or(UkiError::TooLarge)?;
        put(image, optional + 8, &data.to_le_bytes());
        put(image, optional + 56, &image_end.to_le_bytes());
        // Firmware does not look at the checksum, and zero says that there is none.
        put(image, optional + 64, &[0; 4]);
        self.image_size = image_end;
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

/// Overwrites bytes that are there; the header that was read shows that they are.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONAL_BYTES: usize = 240;
    const PE_AT: usize = 0x80;
    const HEADERS: u32 = 0x400;

    /// A program with one section, `.text` of 0x300 bytes, as a linker would write it.
    fn program(image_size: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADERS as usize];
        put(&mut bytes, 0, b"MZ");
        put(&mut bytes, PE_OFFSET, &(PE_AT as u32).to_le_bytes());
        put(&mut bytes, PE_AT, b"PE\0\0");
        put(&mut bytes, PE_AT + 4, &AMD64.to_le_bytes());
        put(&mut bytes, PE_AT + 6, &1_u16.to_le_bytes());
        put(&mut bytes, PE_AT + 20, &(OPTIONAL_BYTES as u16).to_le_bytes());
        let optional = PE_AT + COFF;
        put(&mut bytes, optional, &PE32_PLUS.to_le_bytes());
        for (at, value) in [(32, 0x1000), (36, 0x200), (56, image_size), (60, HEADERS), (64, 77), (DIRECTORIES, 16_u32)]
        {
            put(&mut bytes, optional + at, &value.to_le_bytes());
        }
        let table = optional + OPTIONAL_BYTES;
        put(&mut bytes, table, b".text");
        for (at, value) in [(8, 0x300), (12, 0x1000), (16, 0x400), (20, HEADERS)] {
            put(&mut bytes, table + at, &value.to_le_bytes());
        }
        bytes.resize(HEADERS as usize + 0x400, 0x90);
        bytes
    }

    fn image() -> Vec<u8> {
        let (stub, mut linux) = (program(0x2000), program(0x0123_4000));
        linux.extend_from_slice(b"the rest of the kernel");
        build(&Parts { stub: &stub, linux: &linux, initrd: b"cpio", cmdline: "quiet\n", os_release: "ID=sipedge\n" })
            .expect("a stub and a kernel")
    }

    #[test]
    fn the_parts_are_found_again() {
        let image = image();
        assert_eq!(section(&image, ".cmdline"), Some(&b"quiet"[..]));
        assert_eq!(section(&image, ".osrel"), Some(&b"ID=sipedge\n"[..]));
        assert_eq!(section(&image, ".initrd"), Some(&b"cpio"[..]));
        let linux = section(&image, ".linux").expect("there");
        assert!(linux.starts_with(b"MZ") && linux.windows(8).any(|part| part == b"the rest"));
        assert_eq!(section(&image, ".uname"), None);
    }

    #[test]
    fn sections_are_aligned_and_apart_in_memory_and_file() {
        let image = image();
        let pe = Pe::read("the image", &image).expect("valid");
        assert_eq!(pe.sections.len(), 5);
        for pair in pe.sections.windows(2) {
            assert!(pair[1].address >= pair[0].address + pair[0].memory, "{pair:?}");
            assert!(pair[1].file_offset >= pair[0].file_offset + pair[0].file_bytes, "{pair:?}");
            assert_eq!((pair[1].address % 0x1000, pair[1].file_offset % 0x200, pair[1].file_bytes % 0x200), (0, 0, 0));
        }
        let last = &pe.sections[4];
        assert_eq!(last.name, b".linux");
        assert_eq!(last.memory, 0x0123_4000, "the kernel has the room that it says it needs");
        assert_eq!(pe.image_size, (last.address + last.memory).next_multiple_of(0x1000));
        assert_eq!(image.len(), (last.file_offset + last.file_bytes) as usize);
        assert_eq!(u32_at(&image, PE_AT + COFF + 64), Some(0), "no checksum");
        assert_eq!(
            image[HEADERS as usize..][..0x400],
            program(0)[HEADERS as usize..],
            "the stub's own code is as it was"
        );
    }

    #[test]
    fn equal_parts_give_equal_bytes() {
        assert_eq!(image(), image());
    }

    #[test]
    fn a_finished_image_is_no_stub() {
        let (image, linux) = (image(), program(0));
        let parts = Parts { stub: &image, linux: &linux, initrd: b"", cmdline: "", os_release: "" };
        assert_eq!(build(&parts), Err(UkiError::SectionThere(".osrel".to_owned())));
    }

    #[test]
    fn a_signed_stub_and_a_full_header_are_refused() {
        let linux = program(0);
        let mut signed = program(0);
        put(&mut signed, PE_AT + COFF + DIRECTORIES + 4 + 8 * CERTIFICATES + 4, &[1]);
        let parts = Parts { stub: &signed, linux: &linux, initrd: b"", cmdline: "", os_release: "" };
        assert_eq!(build(&parts), Err(UkiError::Signed));
        let mut full = program(0);
        put(&mut full, PE_AT + COFF + OPTIONAL_BYTES + SECTION + 3 * SECTION, &[1]);
        assert_eq!(build(&Parts { stub: &full, ..parts }), Err(UkiError::NoRoom { room: 3, wanted: 4 }));
    }

    #[test]
    fn what_is_no_program_is_refused_and_cut_off_ones_do_not_panic() {
        let whole = program(0x2000);
        for length in 0..HEADERS as usize {
            let parts = Parts { stub: &whole[..length], linux: &whole, initrd: b"", cmdline: "", os_release: "" };
            assert!(build(&parts).is_err(), "{length} bytes of a stub");
            let _ = section(&whole[..length], ".text");
        }
        assert!(matches!(Pe::read("it", b"\x7fELF"), Err(UkiError::NotPe { what: "it", .. })));
    }
}
