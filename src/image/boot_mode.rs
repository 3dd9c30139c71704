//! What a disk needs of an instance's firmware.

use serde::{Deserialize, Serialize};

/// By which firmware an instance starts from the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    /// UEFI alone: there is no loader for BIOS on the disk.
    #[default]
    Uefi,
    /// UEFI where the instance type has it, else BIOS.
    UefiPreferred,
}

#[cfg(feature = "aws")]
impl From<BootMode> for sipedge_aws::BootMode {
    fn from(mode: BootMode) -> Self {
        match mode {
            BootMode::Uefi => Self::Uefi,
            BootMode::UefiPreferred => Self::UefiPreferred,
        }
    }
}
