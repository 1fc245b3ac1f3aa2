//! Pieces of classic BPF, put together without labels: every piece falls through to what follows it or returns.

use davit_sys::seccomp::Instruction;

const LD_ABS: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;

/// A sequence of instructions.
pub(super) type Code = Vec<Instruction>;

pub(super) fn load(offset: u32) -> Instruction {
    insn(LD_ABS, 0, 0, offset)
}

pub(super) fn and(mask: u32) -> Instruction {
    insn(AND, 0, 0, mask)
}

pub(super) fn ret(action: u32) -> Instruction {
    insn(RET, 0, 0, action)
}

/// `yes` when the accumulator equals `value`, else `no`.
pub(super) fn if_equal(value: u32, yes: Code, no: Code) -> Code {
    branch(JEQ, value, yes, no)
}

/// `yes` when the accumulator is at least `value`, else `no`.
pub(super) fn if_at_least(value: u32, yes: Code, no: Code) -> Code {
    branch(JGE, value, yes, no)
}

/// Jumps are counted from the next instruction.
pub(super) fn jump_equal(value: u32, yes: u8, no: u8) -> Instruction {
    insn(JEQ, yes, no, value)
}

pub(super) fn jump_more(value: u32, yes: u8, no: u8) -> Instruction {
    insn(JGT, yes, no, value)
}

pub(super) fn jump_at_least(value: u32, yes: u8, no: u8) -> Instruction {
    insn(JGE, yes, no, value)
}

/// `yes` must not fall through, unless `no` is empty.
fn branch(code: u16, value: u32, yes: Code, no: Code) -> Code {
    let mut out = Code::with_capacity(yes.len() + no.len() + 2);
    match u8::try_from(yes.len()) {
        Ok(over) => out.push(insn(code, 0, over, value)),
        Err(_) => {
            // Conditional jumps reach 255 instructions, plain ones everything.
            out.push(insn(code, 1, 0, value));
            out.push(insn(JA, 0, 0, u32::try_from(yes.len()).unwrap_or(u32::MAX)));
        }
    }
    out.extend(yes);
    out.extend(no);
    out
}

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Runs a program as the kernel would, for tests.
#[cfg(test)]
pub(super) fn run(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCH => arch,
        offset => {
            let at = (offset - 16) as usize;
            (args[at / 8] >> if at % 8 == 4 { 32 } else { 0 }) as u32
        }
    };
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            LD_ABS => a = word(i.k),
            AND => a &= i.k,
            JA => at += i.k as usize,
            JEQ => at += jump(a == i.k),
            JGT => at += jump(a > i.k),
            JGE => at += jump(a >= i.k),
            RET => return i.k,
            other => panic!("{other:#x}"),
        }
    }
}
