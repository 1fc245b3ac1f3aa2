//! A profile becomes a program: one section for each architecture, in it a binary search over the call numbers, so
//! that the hot calls of a container pay a dozen instructions instead of hundreds.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::arch::{Machine, X32_BIT};
use super::invalid;
use super::program::{
    ARCH, Code, NUMBER, and, if_at_least, if_equal, jump_at_least, jump_equal, jump_more, load, ret,
};
use crate::error::Result;

/// What the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;

/// What happens on one call: the first rule that fits, else the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rules {
    conditional: Vec<(Vec<Condition>, u32)>,
    always: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    argument: u32,
    operator: LinuxSeccompOperator,
    value: u64,
    value_two: u64,
}

pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Code> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut machines: Vec<Machine> = Vec::new();
    let listed = profile
        .architectures()
        .as_deref()
        .unwrap_or_default()
        .iter();
    // libseccomp always includes the native one.
    for arch in [Arch::ScmpArchNative].iter().chain(listed) {
        if let Some(machine) = Machine::of(*arch).filter(|m| !machines.contains(m)) {
            machines.push(machine);
        }
    }
    let mut program = vec![ret(KILL_PROCESS)];
    for machine in machines.iter().filter(|m| **m != Machine::X32).rev() {
        let section = section(profile, *machine, machines.contains(&Machine::X32), default)?;
        program = if_equal(machine.audit(), section, program);
    }
    program.insert(0, load(ARCH));
    if program.len() > LONGEST {
        return Err(invalid(format!(
            "seccomp: the profile makes {} instructions, {LONGEST} are the most",
            program.len()
        )));
    }
    Ok(program)
}

/// The code for one architecture, which returns in all cases.
fn section(profile: &LinuxSeccomp, machine: Machine, with_x32: bool, default: u32) -> Result<Code> {
    let mut code = vec![load(NUMBER)];
    let rules = rules_of(profile, machine, default)?;
    if machine != Machine::X86_64 {
        code.extend(search(profile, &rules, default));
        return Ok(code);
    }
    let x32 = if with_x32 {
        search(profile, &rules_of(profile, Machine::X32, default)?, default)
    } else {
        vec![ret(KILL_PROCESS)]
    };
    code.extend(if_at_least(X32_BIT, x32, search(profile, &rules, default)));
    Ok(code)
}

fn rules_of(
    profile: &LinuxSeccomp,
    machine: Machine,
    default: u32,
) -> Result<BTreeMap<u32, Rules>> {
    let mut all: BTreeMap<u32, Rules> = BTreeMap::new();
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret());
        if action == default {
            continue;
        }
        let cases = cases(rule)?;
        for number in rule.names().iter().filter_map(|name| machine.number(name)) {
            let rules = all.entry(number).or_default();
            match cases.as_slice() {
                [] => rules.always = rules.always.or(Some(action)),
                cases => rules
                    .conditional
                    .extend(cases.iter().map(|c| (c.clone(), action))),
            }
        }
    }
    Ok(all)
}

/// The ways in which a rule can fit. Conditions on different arguments have to hold all; when an argument has more
/// than one condition, each condition of the rule is enough, as in runc.
fn cases(rule: &LinuxSyscall) -> Result<Vec<Vec<Condition>>> {
    let args = rule.args().as_deref().unwrap_or_default();
    let conditions = args.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let repeated = |c: &Condition| {
        conditions
            .iter()
            .filter(|o| o.argument == c.argument)
            .count()
            > 1
    };
    Ok(match conditions.as_slice() {
        [] => Vec::new(),
        all if all.iter().any(repeated) => all.iter().map(|c| vec![*c]).collect(),
        all => vec![all.to_vec()],
    })
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition> {
    let argument = u32::try_from(arg.index()).ok().filter(|i| *i < 6);
    Ok(Condition {
        argument: argument
            .ok_or_else(|| invalid(format!("seccomp: a call has no argument {}", arg.index())))?,
        operator: arg.op(),
        value: arg.value(),
        value_two: arg.value_two().unwrap_or(0),
    })
}

/// A tree over the numbers, with neighbours that mean the same taken together.
fn search(profile: &LinuxSeccomp, rules: &BTreeMap<u32, Rules>, default: u32) -> Code {
    let plain = Rules {
        always: Some(default),
        ..Rules::default()
    };
    let mut spans: Vec<(u32, &Rules)> = vec![(0, &plain)];
    for (number, rule) in rules {
        let before = spans.last().map(|(_, r)| *r);
        if before != Some(rule) {
            if spans.last().is_some_and(|(from, _)| from == number) {
                spans.pop();
            }
            spans.push((*number, rule));
        }
        if !rules.contains_key(&(number + 1)) {
            spans.push((number + 1, &plain));
        }
    }
    // What is newer than the profile is not forbidden but unknown, so that programs fall back to what is older.
    let unknown = Rules {
        always: Some(ERRNO | libc::ENOSYS as u32),
        ..Rules::default()
    };
    let newest = rules.keys().last();
    if let (true, Some(newest)) = (
        profile.default_action() == LinuxSeccompAction::ScmpActErrno,
        newest,
    ) {
        spans.pop();
        spans.push((newest + 1, &unknown));
    }
    tree(&spans, default)
}

fn tree(spans: &[(u32, &Rules)], default: u32) -> Code {
    match spans {
        [] => vec![ret(default)],
        [(_, rules)] => leaf(rules, default),
        spans => {
            let (low, high) = spans.split_at(spans.len() / 2);
            if_at_least(high[0].0, tree(high, default), tree(low, default))
        }
    }
}

fn leaf(rules: &Rules, default: u32) -> Code {
    let mut code = vec![ret(rules.always.unwrap_or(default))];
    for (conditions, action) in rules.conditional.iter().rev() {
        let mut fits = vec![ret(*action)];
        for condition in conditions.iter().rev() {
            fits = check(*condition, fits);
        }
        fits.extend(code);
        code = fits;
    }
    code
}

/// The test of a condition and then `then`, which the test jumps over when the condition does not hold. Arguments have
/// 64 bits and the machine 32, so both halves are compared.
fn check(c: Condition, then: Code) -> Code {
    use LinuxSeccompOperator as Op;
    let (low, high) = (load(16 + 8 * c.argument), load(20 + 8 * c.argument));
    let halves = |n: u64| (n as u32, (n >> 32) as u32);
    let (value_low, value_high) = halves(c.value);
    // At most six conditions of six instructions come after one another.
    let past = u8::try_from(then.len()).unwrap_or(u8::MAX - 4);
    let mut code = match c.operator {
        Op::ScmpCmpEq => vec![
            high,
            jump_equal(value_high, 0, 2 + past),
            low,
            jump_equal(value_low, 0, past),
        ],
        Op::ScmpCmpNe => vec![
            high,
            jump_equal(value_high, 0, 2),
            low,
            jump_equal(value_low, past, 0),
        ],
        Op::ScmpCmpMaskedEq => {
            let (want_low, want_high) = halves(c.value_two);
            vec![
                high,
                and(value_high),
                jump_equal(want_high, 0, 3 + past),
                low,
                and(value_low),
                jump_equal(want_low, 0, past),
            ]
        }
        Op::ScmpCmpGt | Op::ScmpCmpGe => {
            let compare = if c.operator == Op::ScmpCmpGt {
                jump_more
            } else {
                jump_at_least
            };
            let equal_high = jump_equal(value_high, 0, 2 + past);
            vec![
                high,
                jump_more(value_high, 3, 0),
                equal_high,
                low,
                compare(value_low, 0, past),
            ]
        }
        Op::ScmpCmpLt | Op::ScmpCmpLe => {
            let compare = if c.operator == Op::ScmpCmpLt {
                jump_at_least
            } else {
                jump_more
            };
            let equal_high = jump_equal(value_high, 0, 2);
            vec![
                high,
                jump_more(value_high, 3 + past, 0),
                equal_high,
                low,
                compare(value_low, past, 0),
            ]
        }
    };
    code.extend(then);
    code
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(errno.map(|e| e & 0xffff))
}

#[cfg(test)]
mod tests {
    use super::super::program::run;
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;

    fn program(json: &str) -> Code {
        compile(&serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn numbers_architectures_and_what_is_unknown() {
        let p = program(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
            "syscalls":[{"names":["read","write","openat2","nonsense"],"action":"SCMP_ACT_ALLOW"},
            {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#,
        );
        assert_eq!(run(&p, X86_64, 0, [0; 6]), ALLOW);
        assert_eq!(run(&p, X86_64, 1, [0; 6]), ALLOW);
        assert_eq!(run(&p, X86_64, 2, [0; 6]), ERRNO | 1);
        assert_eq!(run(&p, X86_64, 435, [0; 6]), ERRNO | 38);
        assert_eq!(run(&p, X86_64, 437, [0; 6]), ALLOW);
        assert_eq!(run(&p, X86_64, 438, [0; 6]), ERRNO | 38);
        assert_eq!(run(&p, X86_64, X32_BIT, [0; 6]), KILL_PROCESS);
        assert_eq!(run(&p, I386, 3, [0; 6]), ALLOW);
        assert_eq!(run(&p, I386, 0, [0; 6]), ERRNO | 1);
        assert_eq!(run(&p, 0x1234, 0, [0; 6]), KILL_PROCESS);
    }

    #[test]
    fn comparisons_see_all_64_bits() {
        let big = 0x1_0000_0005u64;
        let values = [0, 4, 5, 6, big - 1, big, big + 1, 0x2_0000_0000, u64::MAX];
        type Comparison = fn(u64, u64) -> bool;
        let holds: [(&str, Comparison); 6] = [
            ("EQ", |a, b| a == b),
            ("NE", |a, b| a != b),
            ("GT", |a, b| a > b),
            ("GE", |a, b| a >= b),
            ("LT", |a, b| a < b),
            ("LE", |a, b| a <= b),
        ];
        for (name, holds) in holds {
            for against in [5, big] {
                let p = program(&format!(
                    r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                    "args":[{{"index":1,"value":{against},"op":"SCMP_CMP_{name}"}},{{"index":0,"value":7,"op":"SCMP_CMP_EQ"}}]}}]}}"#
                ));
                for value in values {
                    let want = if holds(value, against) {
                        ALLOW
                    } else {
                        ERRNO | 1
                    };
                    assert_eq!(
                        run(&p, X86_64, 0, [7, value, 0, 0, 0, 0]),
                        want,
                        "{value:#x} {name} {against:#x}"
                    );
                    assert_eq!(run(&p, X86_64, 0, [8, value, 0, 0, 0, 0]), ERRNO | 1);
                }
            }
        }
    }

    #[test]
    fn masks_and_conditions_on_one_argument() {
        let p = program(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
            {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
        );
        assert_eq!(run(&p, X86_64, 56, [17, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run(&p, X86_64, 56, [0x1000_0000, 0, 0, 0, 0, 0]), ERRNO | 1);
        assert_eq!(run(&p, X86_64, 41, [2, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run(&p, X86_64, 41, [3, 0, 0, 0, 0, 0]), ERRNO | 1);
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_conditions_go_first() {
        let p = program(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":5},
            {"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":9,"op":"SCMP_CMP_EQ"}]}]}"#,
        );
        assert_eq!(run(&p, X86_64, 0, [9, 0, 0, 0, 0, 0]), 0);
        assert_eq!(run(&p, X86_64, 0, [1, 0, 0, 0, 0, 0]), ERRNO | 5);
        assert_eq!(run(&p, X86_64, 10_000, [0; 6]), ALLOW);
    }

    #[test]
    fn refused() {
        let bad = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
            "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert!(compile(&serde_json::from_str(bad).unwrap()).is_err());
    }
}
