//! Seccomp filters: from the profile in a spec to a program for the kernel.
//!
//! Written here because the crates at hand do not do it: seccompiler knows one architecture and two actions a filter,
//! Docker's profile has three of each; libseccomp is a C library that a fresh machine may not have. The meaning of a
//! profile is libseccomp's as runc uses it.

mod arch;
mod compile;
mod program;

use davit_sys::seccomp::Instruction;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

use crate::error::{Error, Kind, Result};

/// A filter ready to load.
#[derive(Debug)]
pub(super) struct Filter {
    program: Vec<Instruction>,
    flags: u64,
}

impl Filter {
    /// # Errors
    /// A profile that means nothing (argument 6, an action without a listener), or is too long for the kernel.
    pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
        let mut flags = 0;
        for flag in profile.flags().iter().flatten() {
            flags |= match flag {
                // There is only one thread.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                    libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
                }
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                    libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
                }
            };
        }
        let rules = profile.syscalls().iter().flatten();
        if rules
            .into_iter()
            .any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify)
        {
            if profile.listener_path().is_none() {
                return Err(invalid("seccomp: SCMP_ACT_NOTIFY needs a listenerPath"));
            }
            flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        }
        if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
            return Err(invalid(
                "seccomp: SCMP_ACT_NOTIFY cannot be used as default action",
            ));
        }
        Ok(Filter {
            program: compile::compile(profile)?,
            flags,
        })
    }

    /// Puts it on the calling process; gives the notification descriptor when the profile has a listener.
    pub(super) fn load(&self) -> Result<Option<std::os::fd::OwnedFd>> {
        davit_sys::seccomp::load(&self.program, self.flags).map_err(|e| {
            Error::because(
                "error loading seccomp filter into kernel",
                super::namespaces::reason(&e),
            )
        })
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, message)
}
