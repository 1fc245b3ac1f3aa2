//! Architectures: their audit numbers and the numbers of their system calls.

use std::str::FromStr;

use oci_spec::runtime::Arch;

/// An architecture whose programs this machine may run, so that a filter has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    /// 32-bit pointers on x86-64: the same audit number, and [`X32_BIT`] in the system call's.
    X32,
    X86,
    Aarch64,
    Arm,
    Riscv64,
}

/// What tells an x32 call from an x86-64 one.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Machine {
    /// The one that this program runs on.
    pub(super) const fn native() -> Option<Machine> {
        if cfg!(target_arch = "x86_64") {
            Some(Machine::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Machine::Aarch64)
        } else if cfg!(target_arch = "riscv64") {
            Some(Machine::Riscv64)
        } else {
            None
        }
    }

    /// `None` for one that this machine can't run anyhow, whose rules can be left out.
    pub(super) fn of(arch: Arch) -> Option<Machine> {
        match arch {
            Arch::ScmpArchNative => Machine::native(),
            Arch::ScmpArchX86_64 => Some(Machine::X86_64),
            Arch::ScmpArchX32 => Some(Machine::X32),
            Arch::ScmpArchX86 => Some(Machine::X86),
            Arch::ScmpArchAarch64 => Some(Machine::Aarch64),
            Arch::ScmpArchArm => Some(Machine::Arm),
            Arch::ScmpArchRiscv64 => Some(Machine::Riscv64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*`.
    pub(super) fn audit(self) -> u32 {
        match self {
            Machine::X86_64 | Machine::X32 => 0xc000_003e,
            Machine::X86 => 0x4000_0003,
            Machine::Aarch64 => 0xc000_00b7,
            Machine::Arm => 0x4000_0028,
            Machine::Riscv64 => 0xc000_00f3,
        }
    }

    /// The number of the call `name`, or `None` where there is no such call.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Machine::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
            // The calls that x32 numbers differently (from 512 on) stay unknown, that is, not allowed.
            Machine::X32 => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
            Machine::X86 => syscalls::x86::Sysno::from_str(name).ok()?.id(),
            Machine::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok()?.id(),
            Machine::Arm => syscalls::arm::Sysno::from_str(name).ok()?.id(),
            Machine::Riscv64 => syscalls::riscv64::Sysno::from_str(name).ok()?.id(),
        };
        let number = u32::try_from(number).ok()?;
        Some(if self == Machine::X32 {
            number | X32_BIT
        } else {
            number
        })
    }
}
