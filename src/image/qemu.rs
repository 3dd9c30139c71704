//! The image on a virtual machine that looks like an instance: q35, UEFI, NVMe, one network card, a serial console.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Image, ImageError, tail};

/// The emulator, and Debian's package of it.
const PROGRAM: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// UEFI firmware and its empty variables, by distribution: Debian's, then others'.
const FIRMWARE: [(&str, &str); 3] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

/// Pause between looks at the machine.
const LOOK: Duration = Duration::from_millis(50);

/// A machine that is to be started.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where its own copy of the firmware's variables, the disk's changes and the console's log go.
    pub folder: PathBuf,
    /// The tap that its network card is joined to; it has to be in the namespace of the calling thread.
    pub tap: String,
    /// The network card's address; the lab's DHCP knows the instance by it.
    pub hardware: [u8; 6],
    /// Megabytes of memory. A t3.micro has 1024.
    pub memory_mb: u32,
    /// Processors.
    pub processors: u32,
}

/// A machine that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    console: PathBuf,
    began: Instant,
    accelerated: bool,
}

impl Machine {
    /// Powers it on with the image. The image itself is never written: changes go to the machine's folder.
    ///
    /// # Errors
    ///
    /// [`ImageError`] when emulator or firmware are missing, or the folder cannot be written.
    pub fn start(&self, image: &Image) -> Result<Running, ImageError> {
        fs::create_dir_all(&self.folder).map_err(ImageError::file("create", &self.folder))?;
        let (code, variables) = firmware(&FIRMWARE)?;
        let own = self.folder.join("variables.fd");
        fs::copy(variables, &own).map_err(ImageError::file("write", &own))?;
        let console = self.folder.join("console.log");
        File::create(&console).map_err(ImageError::file("write", &console))?;
        let errors = self.folder.join("qemu.log");
        let log = File::create(&errors).map_err(ImageError::file("write", &errors))?;
        let accelerated = kvm_works();
        let mut command = Command::new(PROGRAM.0);
        command.args(self.arguments(&image.disk(), code, &own, &console, accelerated));
        // In its own folder, where `snapshot=on` puts what the machine writes.
        command.env("TMPDIR", &self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ImageError::ProgramMissing { program: PROGRAM.0.to_owned(), package: PROGRAM.1 },
            _ => ImageError::File { what: "run", path: PathBuf::from(PROGRAM.0), source },
        })?;
        Ok(Running { child, console, began: Instant::now(), accelerated })
    }

    fn arguments(&self, disk: &Path, code: &str, variables: &Path, console: &Path, accelerated: bool) -> Vec<String> {
        let [a, b, c, d, e, f] = self.hardware;
        let network =
            format!("virtio-net-pci,netdev=net0,mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x},romfile=");
        // `max` has what today's instances have; under software emulation, all that it can emulate.
        let (accelerator, processor) = if accelerated { ("kvm", "host") } else { ("tcg,thread=multi", "max") };
        let pairs = [
            ("-machine", "q35,smm=off".to_owned()),
            ("-accel", accelerator.to_owned()),
            ("-cpu", processor.to_owned()),
            ("-m", self.memory_mb.to_string()),
            ("-smp", self.processors.to_string()),
            ("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={}", option(Path::new(code)))),
            ("-drive", format!("if=pflash,unit=1,format=raw,file={}", option(variables))),
            ("-drive", format!("if=none,id=disk,format=raw,snapshot=on,file={}", option(disk))),
            ("-device", "nvme,drive=disk,serial=sipedge,bootindex=1".to_owned()),
            ("-netdev", format!("tap,id=net0,ifname={},script=no,downscript=no", self.tap)),
            ("-device", network),
            ("-device", "virtio-rng-pci".to_owned()),
            ("-serial", format!("file:{}", console.display())),
            ("-display", "none".to_owned()),
            ("-monitor", "none".to_owned()),
        ];
        let mut arguments = vec!["-nodefaults".to_owned(), "-no-user-config".to_owned(), "-no-reboot".to_owned()];
        arguments.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        arguments
    }
}

impl Running {
    /// Whether the processor runs the machine itself, and no software emulation.
    #[must_use]
    pub fn accelerated(&self) -> bool {
        self.accelerated
    }

    /// Waits until `ready` says so, and returns how long it took from power-on.
    ///
    /// # Errors
    ///
    /// [`ImageError::NeverReady`] with the end of the console, when it takes longer or the machine ends before.
    pub fn wait_ready(&mut self, deadline: Duration, mut ready: impl FnMut() -> bool) -> Result<Duration, ImageError> {
        loop {
            if ready() {
                return Ok(self.began.elapsed());
            }
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || self.began.elapsed() >= deadline {
                return Err(ImageError::NeverReady { after: self.began.elapsed(), console: tail(&self.console()) });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What the machine has written to its serial console, without what moves a cursor.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        plain(&String::from_utf8_lossy(&bytes))
    }

    /// Takes its power away, as a failure of the host would.
    pub fn cut_power(&mut self) {
        // One that has ended already needs no end; either way nothing of it is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cut_power();
    }
}

/// The first firmware of which both files are there.
fn firmware<'a>(known: &[(&'a str, &'a str)]) -> Result<(&'a str, &'a str), ImageError> {
    let there = known.iter().find(|(code, variables)| Path::new(code).is_file() && Path::new(variables).is_file());
    let searched = || known.iter().map(|(code, _)| *code).collect::<Vec<_>>().join(", ");
    there.copied().ok_or_else(|| ImageError::FirmwareMissing { searched: searched() })
}

/// Whether this user may use the processor's virtualisation.
fn kvm_works() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A path within an option of QEMU, where a comma would begin the next (qemu(1): it is doubled).
fn option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Text without escape sequences (ECMA-48, CSI) and carriage returns: firmware and systemd write both.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            if character != '\r' {
                out.push(character);
            }
        } else if characters.next_if_eq(&'[').is_some() {
            for parameter in characters.by_ref() {
                if ('@'..='~').contains(&parameter) {
                    break;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            folder: PathBuf::from("machine"),
            tap: "tap0".to_owned(),
            hardware: [2, 0, 0, 0, 1, 0xab],
            memory_mb: 512,
            processors: 1,
        }
    }

    #[test]
    fn the_machine_looks_like_an_instance() {
        let arguments =
            machine().arguments(Path::new("a,b.raw"), "code.fd", Path::new("vars.fd"), Path::new("log"), false);
        let text = arguments.join(" ");
        for part in
            ["-accel tcg", "nvme,drive=disk", "file=a,,b.raw", "mac=02:00:00:00:01:ab", "ifname=tap0", "snapshot=on"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("kvm"), "{text}");
    }

    #[test]
    fn firmware_that_is_not_there_is_named() {
        let error = firmware(&[("/nowhere/code.fd", "/nowhere/vars.fd")]).expect_err("there is none").to_string();
        assert!(error.contains("/nowhere/code.fd") && error.contains("apt-get install ovmf"), "{error}");
    }

    #[test]
    fn consoles_are_read_as_text() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[01;01Hready\r\n\u{1b}cend"), "ready\ncend");
    }

    #[test]
    fn a_machine_that_ends_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let console = folder.path().join("console.log");
        fs::write(&console, "no user-data\n").expect("written");
        let child = Command::new("true").spawn().expect("a program");
        let mut running = Running { child, console, began: Instant::now(), accelerated: false };
        let error = running.wait_ready(Duration::from_secs(60), || false).expect_err("it ended").to_string();
        assert!(error.contains("no user-data"), "{error}");
    }
}
