//! A profile in docker's form: rules that depend on capabilities,
//! architecture and kernel, made into a filter for one container.

use std::{collections::BTreeSet, path::PathBuf};

use davit_store::{Error, Result};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder,
    LinuxSeccompFilterFlag, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::{Deserialize, Deserializer};

use crate::spec::HostFacts;

/// A profile. Fields as in docker's JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    pub(super) default_action: LinuxSeccompAction,
    #[serde(default)]
    pub(super) default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) architectures: Vec<Arch>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) arch_map: Vec<ArchMap>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) flags: Vec<LinuxSeccompFilterFlag>,
    #[serde(default)]
    pub(super) listener_path: Option<PathBuf>,
    #[serde(default)]
    pub(super) listener_metadata: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) syscalls: Vec<Rule>,
}

/// An architecture and those whose programs its kernel runs, too.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ArchMap {
    pub(super) architecture: Arch,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) sub_architectures: Vec<Arch>,
}

/// What happens to some calls, where it applies.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    /// The old form with one name.
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) names: Vec<String>,
    pub(super) action: LinuxSeccompAction,
    #[serde(default)]
    pub(super) errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) args: Vec<LinuxSeccompArg>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) includes: Condition,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) excludes: Condition,
}

/// Where a rule applies, or does not.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) caps: Vec<String>,
    /// In Go's names.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) arches: Vec<String>,
    /// "4.8".
    #[serde(default)]
    pub(super) min_kernel: Option<String>,
}

impl Profile {
    /// The filter for a container with `capabilities` on `host`.
    pub(super) fn resolve(
        &self,
        capabilities: &BTreeSet<String>,
        host: &HostFacts,
    ) -> Result<LinuxSeccomp> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(Error::invalid(
                "both 'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'",
            ));
        }
        let mut syscalls = Vec::new();
        for rule in &self.syscalls {
            if !rule.name.is_empty() && !rule.names.is_empty() {
                return Err(Error::invalid(
                    "both 'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'",
                ));
            }
            if rule.includes.all_met(capabilities, host)?
                && !rule.excludes.any_met(capabilities, host)?
            {
                syscalls.push(rule.to_spec()?);
            }
        }
        let mut builder = LinuxSeccompBuilder::default()
            .default_action(self.default_action)
            .architectures(self.architectures_for(host))
            .syscalls(syscalls);
        if let Some(errno) = self.default_errno_ret {
            builder = builder.default_errno_ret(errno);
        }
        if !self.flags.is_empty() {
            builder = builder.flags(self.flags.clone());
        }
        if let Some(path) = &self.listener_path {
            builder = builder.listener_path(path.clone());
        }
        if let Some(metadata) = &self.listener_metadata {
            builder = builder.listener_metadata(metadata.clone());
        }
        builder.build().map_err(entry)
    }

    fn architectures_for(&self, host: &HostFacts) -> Vec<Arch> {
        let native = native_arch(host.architecture);
        let of_host = self
            .arch_map
            .iter()
            .find(|map| Some(map.architecture) == native);
        match of_host {
            // Rules for programs that this kernel can't run cost each start some milliseconds of compiling.
            Some(map) => std::iter::once(map.architecture)
                .chain(map.sub_architectures.iter().copied())
                .filter(|architecture| host.x32 || *architecture != Arch::ScmpArchX32)
                .collect(),
            None => self.architectures.clone(),
        }
    }
}

impl Rule {
    fn to_spec(&self) -> Result<LinuxSyscall> {
        let names = if self.name.is_empty() {
            self.names.clone()
        } else {
            vec![self.name.clone()]
        };
        let mut builder = LinuxSyscallBuilder::default()
            .names(names)
            .action(self.action);
        if let Some(errno) = self.errno_ret {
            builder = builder.errno_ret(errno);
        }
        if !self.args.is_empty() {
            builder = builder.args(self.args.clone());
        }
        builder.build().map_err(entry)
    }
}

impl Condition {
    /// As "includes": every part that is there must be met, of
    /// architectures one, of capabilities all.
    fn all_met(&self, capabilities: &BTreeSet<String>, host: &HostFacts) -> Result<bool> {
        let arch =
            self.arches.is_empty() || self.arches.iter().any(|arch| arch == host.architecture);
        let caps = self.caps.iter().all(|cap| capabilities.contains(cap));
        let kernel = match &self.min_kernel {
            Some(version) => kernel_reached(version, host)?,
            None => true,
        };
        Ok(arch && caps && kernel)
    }

    /// As "excludes": any part that is met is enough.
    fn any_met(&self, capabilities: &BTreeSet<String>, host: &HostFacts) -> Result<bool> {
        let arch = self.arches.iter().any(|arch| arch == host.architecture);
        let caps = self.caps.iter().any(|cap| capabilities.contains(cap));
        let kernel = match &self.min_kernel {
            Some(version) => kernel_reached(version, host)?,
            None => false,
        };
        Ok(arch || caps || kernel)
    }
}

fn kernel_reached(version: &str, host: &HostFacts) -> Result<bool> {
    let numbers = version
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) = numbers.ok_or_else(|| {
        Error::invalid(format!(
            "invalid minKernel {version:?} in the seccomp profile: use MAJOR.MINOR"
        ))
    })?;
    Ok(host.kernel_at_least(major, minor))
}

fn native_arch(go_name: &str) -> Option<Arch> {
    Some(match go_name {
        "amd64" => Arch::ScmpArchX86_64,
        "arm64" => Arch::ScmpArchAarch64,
        "arm" => Arch::ScmpArchArm,
        "386" => Arch::ScmpArchX86,
        "ppc64le" => Arch::ScmpArchPpc64le,
        "riscv64" => Arch::ScmpArchRiscv64,
        "s390x" => Arch::ScmpArchS390x,
        _ => return None,
    })
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn entry(error: oci_spec::OciSpecError) -> Error {
    Error::internal("making the seccomp filter").with_source(error)
}
