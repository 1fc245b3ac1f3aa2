//! Device rules: worked out once as v1's kernel code would, then written to v1 files or compiled to eBPF for v2.

use std::fs::File;
use std::path::Path;

use davit_sys::bpf::{self, Instruction};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::{Error, Result, write};

const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// What every container may do: make nodes of any kind, and use the harmless devices and its terminals.
const ALWAYS: [(i32, Option<i64>, Option<i64>, u32); 10] = [
    (CHAR, None, None, MKNOD),
    (BLOCK, None, None, MKNOD),
    (CHAR, Some(1), Some(3), ALL),
    (CHAR, Some(1), Some(5), ALL),
    (CHAR, Some(1), Some(7), ALL),
    (CHAR, Some(1), Some(8), ALL),
    (CHAR, Some(1), Some(9), ALL),
    (CHAR, Some(5), Some(0), ALL),
    (CHAR, Some(5), Some(2), ALL),
    (CHAR, Some(136), None, ALL),
];

/// A default and the exceptions from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rules {
    allow: bool,
    exceptions: Vec<Exception>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    kind: i32,
    /// `None` is any.
    major: Option<i64>,
    minor: Option<i64>,
    access: u32,
}

impl Rules {
    /// The outcome of `rules` in order, starting from "nothing is allowed", and then what is always allowed.
    pub(super) fn of(rules: &[LinuxDeviceCgroup]) -> Rules {
        let mut outcome = Rules {
            allow: false,
            exceptions: Vec::new(),
        };
        for rule in rules {
            let (major, minor) = (known(rule.major()), known(rule.minor()));
            let access = rule.access().as_deref().map_or(ALL, parse_access);
            let kinds: &[i32] = match rule.typ() {
                Some(LinuxDeviceType::B) => &[BLOCK],
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => &[CHAR],
                _ if major.is_none() && minor.is_none() => {
                    outcome = Rules {
                        allow: rule.allow(),
                        exceptions: Vec::new(),
                    };
                    continue;
                }
                _ => &[BLOCK, CHAR],
            };
            for kind in kinds {
                outcome.take(
                    rule.allow(),
                    Exception {
                        kind: *kind,
                        major,
                        minor,
                        access,
                    },
                );
            }
        }
        for (kind, major, minor, access) in ALWAYS {
            outcome.take(
                true,
                Exception {
                    kind,
                    major,
                    minor,
                    access,
                },
            );
        }
        outcome
    }

    /// As the kernel: a rule against the default adds to an exception, one with the default takes from the same one.
    fn take(&mut self, allow: bool, rule: Exception) {
        let same =
            |e: &&mut Exception| (e.kind, e.major, e.minor) == (rule.kind, rule.major, rule.minor);
        let found = self.exceptions.iter_mut().find(same);
        if allow == self.allow {
            if let Some(exception) = found {
                exception.access &= !rule.access;
            }
            self.exceptions.retain(|e| e.access != 0);
        } else if let Some(exception) = found {
            exception.access |= rule.access;
        } else {
            self.exceptions.push(rule);
        }
    }

    pub(super) fn write_v1(&self, directory: &Path) -> Result<Vec<String>> {
        let (all, exception) = if self.allow {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let written = write(&directory.join(all), "a").and_then(|()| {
            let path = directory.join(exception);
            self.exceptions
                .iter()
                .try_for_each(|e| write(&path, &e.text()))
        });
        match written {
            // In a container ourselves: our own rules bind the new container too.
            Err(e) if e.is(libc::EPERM) => Ok(vec![format!(
                "device rules are only those of davit itself: {e}"
            )]),
            other => other.map(|()| Vec::new()),
        }
    }

    pub(super) fn attach_v2(&self, directory: &Path) -> Result<Vec<String>> {
        let cgroup = File::open(directory).map_err(|e| Error::open(directory, e))?;
        match bpf::replace_device_filter(&cgroup, &self.compile()) {
            Ok(()) => Ok(Vec::new()),
            Err(e) if self.allow && self.exceptions.is_empty() => {
                tracing::debug!(error = %e, "no device filter, and none needed");
                Ok(Vec::new())
            }
            Err(source) => Err(Error::Devices { source }),
        }
    }

    /// A `BPF_PROG_TYPE_CGROUP_DEVICE` program: 1 in r0 allows.
    fn compile(&self) -> Vec<Instruction> {
        // r1 is the context {access << 16 | type, major, minor}.
        let mut code = vec![
            insn(0x61, 2, 1, 0, 0),      // r2 = access and type
            insn(0xbc, 3, 2, 0, 0),      // w3 = w2
            insn(0x54, 2, 0, 0, 0xffff), // w2 &= 0xffff: type
            insn(0x74, 3, 0, 0, 16),     // w3 >>= 16: access
            insn(0x61, 4, 1, 4, 0),      // r4 = major
            insn(0x61, 5, 1, 8, 0),      // r5 = minor
        ];
        for exception in &self.exceptions {
            code.extend(exception.compile(!self.allow));
        }
        code.extend(verdict(self.allow));
        code
    }
}

impl Exception {
    fn text(&self) -> String {
        let kind = if self.kind == BLOCK { 'b' } else { 'c' };
        let number = |n: Option<i64>| n.map_or("*".to_owned(), |n| n.to_string());
        let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        let access: String = letters
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|(_, c)| c)
            .collect();
        format!(
            "{kind} {}:{} {access}",
            number(self.major),
            number(self.minor)
        )
    }

    /// Ends with the verdict `allow` on a match, else falls through.
    fn compile(&self, allow: bool) -> Vec<Instruction> {
        const JNE: u8 = 0x55;
        const JEQ: u8 = 0x15;
        const JNE_REGISTER: u8 = 0x5d;
        let mut checks = vec![insn(JNE, 2, 0, 0, self.kind)];
        if self.access != ALL {
            let access = i32::try_from(self.access).unwrap_or(0);
            checks.push(insn(0xbc, 1, 3, 0, 0));
            checks.push(insn(0x54, 1, 0, 0, access));
            // Allowed is what asks for nothing more, denied what asks for any of it.
            checks.push(if allow {
                insn(JNE_REGISTER, 1, 3, 0, 0)
            } else {
                insn(JEQ, 1, 0, 0, 0)
            });
        }
        for (register, number) in [(4, self.major), (5, self.minor)] {
            if let Some(number) = number.and_then(|n| i32::try_from(n).ok()) {
                checks.push(insn(JNE, register, 0, 0, number));
            }
        }
        let end = checks.len() + 2;
        for (at, check) in checks.iter_mut().enumerate() {
            if check.code & 0x07 == 0x05 {
                check.offset = i16::try_from(end - at - 1).unwrap_or(i16::MAX);
            }
        }
        checks.extend(verdict(allow));
        checks
    }
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [
        insn(0xb7, 0, 0, 0, i32::from(allow)),
        insn(0x95, 0, 0, 0, 0),
    ]
}

fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: (from << 4) | to,
        offset,
        immediate,
    }
}

/// Negative numbers are wildcards, as in runc.
fn known(number: Option<i64>) -> Option<i64> {
    number.filter(|n| *n >= 0)
}

fn parse_access(text: &str) -> u32 {
    let bit = |c| match c {
        'r' => READ,
        'w' => WRITE,
        'm' => MKNOD,
        _ => 0,
    };
    text.chars().map(bit).fold(0, |a, b| a | b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Rules {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        Rules::of(&rules)
    }

    /// Runs the program as the kernel would.
    fn allowed(rules: &Rules, kind: i32, major: i32, minor: i32, access: u32) -> bool {
        let code = rules.compile();
        let mut r = [0i64; 6];
        let context = [
            i64::from((access as i32) << 16 | kind),
            i64::from(major),
            i64::from(minor),
        ];
        let mut at = 0usize;
        loop {
            let i = code[at];
            let (to, from, k) = (
                usize::from(i.registers & 15),
                usize::from(i.registers >> 4),
                i64::from(i.immediate),
            );
            let mut jump = false;
            match i.code {
                0x61 => r[to] = context[usize::try_from(i.offset / 4).unwrap()],
                0xbc => r[to] = r[from],
                0x54 => r[to] &= k,
                0x74 => r[to] >>= k,
                0xb7 => r[to] = k,
                0x55 => jump = r[to] != k,
                0x15 => jump = r[to] == k,
                0x5d => jump = r[to] != r[from],
                0x95 => return r[0] == 1,
                other => panic!("{other:#x}"),
            }
            at += 1 + if jump {
                usize::try_from(i.offset).unwrap()
            } else {
                0
            };
        }
    }

    #[test]
    fn what_docker_gives() {
        let rules = rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":200,"access":"rw"}]"#,
        );
        assert!(allowed(&rules, CHAR, 1, 3, READ | WRITE));
        assert!(allowed(&rules, CHAR, 136, 77, READ | WRITE));
        assert!(allowed(&rules, BLOCK, 8, 0, MKNOD));
        assert!(!allowed(&rules, BLOCK, 8, 0, READ));
        assert!(allowed(&rules, CHAR, 10, 200, READ | WRITE));
        assert!(!allowed(&rules, CHAR, 10, 200, READ | WRITE | MKNOD));
        assert!(!allowed(&rules, CHAR, 10, 229, READ));
    }

    #[test]
    fn privileged_with_one_device_denied() {
        let rules = rules(
            r#"[{"allow":true},{"allow":false,"type":"b","major":8,"minor":0,"access":"w"}]"#,
        );
        assert!(allowed(&rules, BLOCK, 8, 0, READ));
        assert!(!allowed(&rules, BLOCK, 8, 0, READ | WRITE));
        assert!(allowed(&rules, BLOCK, 8, 1, WRITE));
    }

    #[test]
    fn later_rules_take_back_and_merge() {
        let json = r#"[{"allow":true,"type":"c","major":10,"minor":1,"access":"r"},
            {"allow":true,"type":"c","major":10,"minor":1,"access":"w"},
            {"allow":true,"type":"c","major":10,"minor":2,"access":"rw"},
            {"allow":false,"type":"c","major":10,"minor":2,"access":"w"}]"#;
        let rules = rules(json);
        assert!(allowed(&rules, CHAR, 10, 1, READ | WRITE));
        assert!(allowed(&rules, CHAR, 10, 2, READ));
        assert!(!allowed(&rules, CHAR, 10, 2, WRITE));
        assert!(rules.exceptions.iter().any(|e| e.text() == "c 10:2 r"));
    }
}
