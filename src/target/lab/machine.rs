//! Instances that are machines: the image in QEMU, as hardware that looks like an instance's: q35, UEFI or BIOS, NVMe, one network card, a serial
//! console.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sipedge_proxy::config::{Config, SecretRef};

use super::LabError;
use super::network::METADATA_ADDRESS;
use crate::plan::{self, Plan};

/// The emulator, and Debian's package of it.
const PROGRAM: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// UEFI firmware, by distribution: Debian's, the smaller one first, since it starts sooner; then others'.
const FIRMWARE: [&str; 3] =
    ["/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/edk2/x64/OVMF_CODE.4m.fd"];

/// What stands before the name of a secret where the lab plays SSM Parameter Store.
pub(super) const PARAMETERS: &str = "/sipedge/lab/";

/// How long a machine may take from power-on until it is healthy: many times what it takes under software emulation, for a host that is busy.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// What an instance is.
#[derive(Debug, Clone)]
pub(super) enum Program {
    /// The appliance's program, as a process of this host.
    Appliance(PathBuf),
    /// A machine that boots an image.
    Machine(Machine),
}

impl Program {
    pub(super) fn machine(&self) -> Option<&Machine> {
        match self {
            Self::Appliance(_) => None,
            Self::Machine(machine) => Some(machine),
        }
    }
}

/// How long firmware may take to say something when the processor runs it itself: it takes a second.
const FIRMWARE_WITHIN: Duration = Duration::from_secs(5);

/// Time between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// What the instances of a lab are when they are machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The image: a raw disk.
    pub disk: PathBuf,
    /// Whether the machine writes to the disk. Otherwise changes are its own, and end with it.
    pub writes: bool,
    /// Megabytes of memory. A t3.micro has 1024.
    pub memory_mb: u32,
    /// Processors.
    pub processors: u32,
    /// Whether the processor runs the machine itself (KVM), and no software emulation.
    pub accelerated: bool,
    /// Whether its firmware is BIOS, QEMU's own, instead of UEFI.
    #[serde(default)]
    pub bios: bool,
}

impl Machine {
    /// With this disk, as small as the smallest instance type that is of use. `emulate`: by software even where KVM can be used.
    #[must_use]
    pub fn new(disk: &Path, emulate: bool) -> Self {
        Self {
            disk: disk.to_owned(),
            writes: false,
            memory_mb: 1024,
            processors: 2,
            accelerated: !emulate && kvm_works(),
            bios: false,
        }
    }

    /// How long it may take from power-on until it is healthy.
    #[must_use]
    pub fn ready_within(&self) -> Duration {
        READY_WITHIN
    }

    /// Checks that this host has what a machine needs.
    ///
    /// # Errors
    /// [`LabError::ProgramMissing`] or [`LabError::FirmwareMissing`].
    pub fn check(&self) -> Result<(), LabError> {
        if !self.bios {
            firmware(&FIRMWARE)?;
        }
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let there = std::env::split_paths(&folders).any(|folder| folder.join(PROGRAM.0).is_file());
        if there { Ok(()) } else { Err(program_missing()) }
    }

    /// The command that powers one on. Its standard input has to be the tap of its network card. `folder`, which has to be there, takes what
    /// the machine writes, and `console` what it says on its serial console.
    pub(super) fn command(
        &self,
        folder: &Path,
        console: &Path,
        hardware: [u8; 6],
    ) -> Result<tokio::process::Command, LabError> {
        let mut command = tokio::process::Command::new(PROGRAM.0);
        command.args(self.arguments(console, hardware));
        if !self.bios {
            command.args(["-drive", &flash(firmware(&FIRMWARE)?)]);
        }
        // Where `snapshot=on` puts what the machine writes.
        command.env("TMPDIR", folder);
        Ok(command)
    }

    /// What became of starting it.
    pub(super) fn not_started(error: &io::Error) -> LabError {
        match error.kind() {
            io::ErrorKind::NotFound => program_missing(),
            _ => LabError::io("run", PROGRAM.0.as_ref(), error),
        }
    }

    fn arguments(&self, console: &Path, hardware: [u8; 6]) -> Vec<String> {
        let [a, b, c, d, e, f] = hardware;
        let card = format!("virtio-net-pci,netdev=net0,mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x},romfile=");
        // Under software emulation all that can be emulated, but for page tables of five levels: each look at memory would cost one more.
        let (accelerator, processor) =
            if self.accelerated { ("kvm", "host") } else { ("tcg,thread=multi", "max,la57=off") };
        let snapshot = if self.writes { "off" } else { "on" };
        let pairs = [
            ("-machine", "q35,smm=off".to_owned()),
            ("-accel", accelerator.to_owned()),
            ("-cpu", processor.to_owned()),
            ("-m", self.memory_mb.to_string()),
            ("-smp", self.processors.to_string()),
            ("-drive", format!("if=none,id=disk,format=raw,snapshot={snapshot},file={}", option(&self.disk))),
            ("-device", "nvme,drive=disk,serial=sipedge,bootindex=1".to_owned()),
            ("-netdev", "tap,id=net0,fd=0".to_owned()),
            ("-device", card),
            ("-device", "virtio-rng-pci".to_owned()),
            ("-chardev", format!("file,id=console,append=on,path={}", option(console))),
            ("-serial", "chardev:console".to_owned()),
            ("-display", "none".to_owned()),
            ("-monitor", "none".to_owned()),
        ];
        let mut arguments = vec!["-nodefaults".to_owned(), "-no-user-config".to_owned(), "-no-reboot".to_owned()];
        arguments.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        arguments
    }
}

/// The firmware as a drive of QEMU. Without a second one for its variables it keeps those in memory: each boot is a first boot, and a second
/// sooner.
fn flash(code: &str) -> String {
    format!("if=pflash,unit=0,format=raw,readonly=on,file={}", option(Path::new(code)))
}

/// The plan as machines boot it: they see no folder of this host, so that their secrets come from the lab's SSM Parameter Store.
pub(super) fn plan_for_machines(plan: &Plan) -> Result<Plan, LabError> {
    let mut plan = plan.clone();
    secrets_from_parameters(&mut plan.proxy);
    plan.user_data = plan::user_data(&plan).map_err(|error| LabError::Plan(error.to_string()))?;
    Ok(plan)
}

fn secrets_from_parameters(config: &mut Config) {
    config.secrets.endpoint = Some(format!("http://{METADATA_ADDRESS}"));
    for reference in config.secret_references_mut() {
        if let SecretRef::File(name) = reference {
            *reference = SecretRef::Ssm(format!("{PARAMETERS}{name}"));
        }
    }
}

/// The first firmware that is there.
fn firmware<'a>(known: &[&'a str]) -> Result<&'a str, LabError> {
    let there = known.iter().find(|code| Path::new(code).is_file());
    there.copied().ok_or_else(|| LabError::FirmwareMissing { searched: known.join(", ") })
}

fn program_missing() -> LabError {
    LabError::ProgramMissing { program: PROGRAM.0.to_owned(), package: PROGRAM.1.to_owned() }
}

/// Whether the processor's virtualisation can be used here: this user may, and firmware starts. On a virtual machine it may be there and not
/// work.
fn kvm_works() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok() && firmware_starts_by_kvm().unwrap_or(false)
}

fn firmware_starts_by_kvm() -> io::Result<bool> {
    let code = firmware(&FIRMWARE).map_err(io::Error::other)?;
    let said = tempfile::NamedTempFile::new()?;
    let mut command = std::process::Command::new(PROGRAM.0);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-machine", "q35,smm=off", "-accel", "kvm"]);
    command.args(["-cpu", "host", "-m", "256", "-display", "none", "-monitor", "none", "-serial", "stdio"]);
    command.args(["-drive", &flash(code)]);
    // One place in the file for both.
    let out = said.reopen()?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let mut child = command.spawn()?;
    let until = Instant::now() + FIRMWARE_WITHIN;
    let works = loop {
        let text = fs::read(said.path())?;
        let contains = |sign: &str| text.windows(sign.len()).any(|part| part == sign.as_bytes());
        // The firmware's boot manager; then QEMU's words on what the processor would not do.
        match () {
            () if contains("Bds") => break true,
            () if contains("KVM") || child.try_wait()?.is_some() || Instant::now() >= until => break false,
            () => std::thread::sleep(LOOK),
        }
    };
    // It has ended already, or is ended now.
    let _ = child.kill();
    let _ = child.wait();
    Ok(works)
}

/// A path within an option of QEMU, where a comma would begin the next (qemu(1): it is doubled).
fn option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Text without escape sequences (ECMA-48, CSI) and carriage returns: firmware and systemd write both.
pub(super) fn plain(text: &str) -> String {
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
    use crate::plan::{TargetKind, Topology};

    #[test]
    fn the_machine_looks_like_an_instance() {
        let machine = Machine { memory_mb: 512, processors: 1, ..Machine::new(Path::new("a,b.raw"), true) };
        let text = machine.arguments(Path::new("log"), [2, 0, 0, 0, 1, 0xab]).join(" ");
        for part in ["-accel tcg", "nvme,drive=disk", "file=a,,b.raw", "mac=02:00:00:00:01:ab", "fd=0", "snapshot=on"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("kvm") && !text.contains("pflash"), "{text}");
        assert!(flash("code,4.fd").contains("readonly=on,file=code,,4.fd"));
    }

    #[test]
    fn firmware_that_is_not_there_is_named() {
        let error = firmware(&["/nowhere/code.fd"]).expect_err("there is none").to_string();
        assert!(error.contains("/nowhere/code.fd") && error.contains("apt-get install ovmf"), "{error}");
    }

    #[test]
    fn consoles_are_read_as_text() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[01;01Hready\r\n\u{1b}cend"), "ready\ncend");
    }

    #[test]
    fn machines_are_told_of_no_file() {
        let loaded = crate::spec::Spec::parse("sipedge.yaml", &crate::spec::init_text("edge")).expect("sound");
        let plan = plan::plan(&loaded, Topology::LoadBalanced, TargetKind::Lab).expect("planned");
        assert!(plan.user_data.contains("!file"), "{}", plan.user_data);
        let text = plan_for_machines(&plan).expect("rendered").user_data;
        assert!(!text.contains("!file") && text.contains("/sipedge/lab/token-keys.json"), "{text}");
    }
}
