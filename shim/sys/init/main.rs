//! The init of containers that ask for one: starts a command, passes signals
//! on to it, reaps whatever is left to process 1, and ends as the command did.
//!
//! It runs inside any image, so it is one static file that needs nothing: no
//! C library, no allocator. The build script of davit-sys compiles it by
//! itself and the daemon carries the result; it is a crate of its own only as
//! far as rustc is concerned.
//!
//!     davit-init [--] COMMAND [ARGUMENT…]
//!
//! Exit codes: the command's own, 128+n when signal n ended it, 127 when it is
//! not found, 126 when it can't be run, 125 for faults of its own.

#![no_std]
#![no_main]
#![no_builtins]

use core::{arch::global_asm, ptr};

// The kernel leaves argc, the arguments and the environment on the stack.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl {main}",
    "brk #0",
    main = sym main,
);

/// Numbers of system calls.
#[cfg(target_arch = "x86_64")]
mod call {
    pub const WRITE: usize = 1;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const SETPGID: usize = 109;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod call {
    pub const IOCTL: usize = 29;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const SETPGID: usize = 154;
    pub const GETPID: usize = 172;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

const ENOENT: isize = -2;
const EACCES: isize = -13;
const ENOTDIR: isize = -20;
const ECHILD: isize = -10;

const SIGCHLD: usize = 17;
const SIGTTIN: usize = 21;
const SIGTTOU: usize = 22;
/// Signals that are about this process itself, or that it ignores: ILL, TRAP,
/// ABRT, BUS, FPE, SEGV, TTIN, TTOU, SYS.
const OWN: u64 = bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(11) | bit(21) | bit(22) | bit(31);

const SIG_SETMASK: usize = 2;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const SIGSET_BYTES: usize = 8;
const WNOHANG: usize = 1;
const TIOCSPGRP: usize = 0x5410;

/// Where a command without a slash is looked for when there is no PATH.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0";

const fn bit(signal: u64) -> u64 {
    1 << (signal - 1)
}

/// A C string.
type Text = *const u8;

/// Makes a system call; the answer is negative for an error.
#[cfg(target_arch = "x86_64")]
fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let answer: isize;
    // SAFETY: all pointers that are passed stay valid through the call and are
    // what the call expects; the registers that the kernel changes are told.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") 0usize,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

#[cfg(target_arch = "aarch64")]
fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let answer: isize;
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a => answer,
            in("x1") b, in("x2") c, in("x3") d, in("x4") 0usize,
            options(nostack),
        );
    }
    answer
}

fn exit(code: usize) -> ! {
    loop {
        syscall(call::EXIT_GROUP, code, 0, 0, 0);
    }
}

/// What the kernel left at `stack`: argc, argv, null, envp, null.
extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc and that many arguments there (execve(2)).
    let (argc, argv) = unsafe { (*stack, stack.add(1).cast::<Text>()) };
    // SAFETY: the environment begins behind the null that ends the arguments.
    let envp = unsafe { argv.add(argc + 1) };
    // SAFETY: within argc.
    let dashes = argc > 1 && unsafe { equal(*argv.add(1), b"--\0".as_ptr()) };
    let first = if dashes { 2 } else { 1 };
    if first >= argc {
        complain(&[b"davit-init: no command\n\0".as_ptr()]);
        exit(125);
    }
    // SAFETY: within argc, and ended by the same null.
    let command = unsafe { argv.add(first) };
    let awaited = !OWN;
    let mut before = 0u64;
    let (new, old) = (ptr::addr_of!(awaited) as usize, ptr::addr_of_mut!(before) as usize);
    syscall(call::RT_SIGPROCMASK, SIG_SETMASK, new, old, SIGSET_BYTES);
    // Giving the terminal away must not stop us.
    dispose(SIG_IGN);
    let child = syscall(call::CLONE, SIGCHLD, 0, 0, 0);
    if child < 0 {
        complain(&[b"davit-init: no process for the command\n\0".as_ptr()]);
        exit(125);
    }
    if child == 0 {
        run(command, envp, before);
    }
    watch(child as usize, awaited)
}

/// In the child: a process group of its own, in the foreground of the
/// terminal if there is one, the signals as they were, and the command.
fn run(command: *const Text, envp: *const Text, mask: u64) -> ! {
    syscall(call::SETPGID, 0, 0, 0, 0);
    let group = syscall(call::GETPID, 0, 0, 0, 0) as i32;
    syscall(call::IOCTL, 0, TIOCSPGRP, ptr::addr_of!(group) as usize, 0);
    dispose(SIG_DFL);
    syscall(call::RT_SIGPROCMASK, SIG_SETMASK, ptr::addr_of!(mask) as usize, 0, SIGSET_BYTES);
    let error = execute(command, envp);
    // SAFETY: there is at least the command itself.
    let name = unsafe { *command };
    let why: &[u8] = match error {
        ENOENT => b" failed: No such file or directory\n\0",
        EACCES => b" failed: Permission denied\n\0",
        _ => b" failed\n\0",
    };
    complain(&[b"davit-init: exec \0".as_ptr(), name, why.as_ptr()]);
    exit(if error == ENOENT { 127 } else { 126 })
}

/// Passes signals on and reaps until the command has ended.
fn watch(child: usize, awaited: u64) -> ! {
    loop {
        let signal = syscall(call::RT_SIGTIMEDWAIT, ptr::addr_of!(awaited) as usize, 0, 0, SIGSET_BYTES);
        if signal > 0 && signal as usize != SIGCHLD {
            syscall(call::KILL, child, signal as usize, 0, 0);
        }
        let mut ended = None;
        loop {
            let mut status = 0i32;
            let pid = syscall(call::WAIT4, usize::MAX, ptr::addr_of_mut!(status) as usize, WNOHANG, 0);
            if pid == child as isize {
                ended = Some(code_of(status));
            }
            if pid == ECHILD && ended.is_none() {
                exit(125); // the command is gone without a word: can't be
            }
            if pid <= 0 {
                break;
            }
        }
        if let Some(code) = ended {
            exit(code);
        }
    }
}

/// The exit code for a status of wait(2).
fn code_of(status: i32) -> usize {
    match status & 0x7f {
        0 => (status >> 8 & 0xff) as usize,
        signal => 128 + signal as usize,
    }
}

/// Sets what happens on TTIN and TTOU.
fn dispose(handler: usize) {
    // struct sigaction as the kernel has it: handler, flags, restorer, mask.
    let action = [handler, 0, 0, 0];
    for signal in [SIGTTIN, SIGTTOU] {
        syscall(call::RT_SIGACTION, signal, action.as_ptr() as usize, 0, SIGSET_BYTES);
    }
}

/// Runs the command, looked for in PATH when its name has no slash; gives the
/// error that tells most.
fn execute(command: *const Text, envp: *const Text) -> isize {
    // SAFETY: there is at least the command itself.
    let name = unsafe { *command };
    let start = |file: Text| syscall(call::EXECVE, file as usize, command as usize, envp as usize, 0);
    let length = length(name);
    if length == 0 {
        return ENOENT;
    }
    // SAFETY: within the string.
    if (0..length).any(|at| unsafe { *name.add(at) } == b'/') {
        return start(name);
    }
    let mut place = [const { core::mem::MaybeUninit::<u8>::uninit() }; 4096];
    let place = place.as_mut_ptr().cast::<u8>();
    let mut rest = search_path(envp);
    let mut error = ENOENT;
    loop {
        let mut end = 0;
        // SAFETY: up to the null that ends the string.
        while unsafe { !matches!(*rest.add(end), 0 | b':') } {
            end += 1;
        }
        if end + length + 2 <= 4096 {
            // SAFETY: it fits, as was just checked.
            unsafe {
                copy(rest, place, end);
                // An empty element is the present directory.
                let slash = usize::from(end > 0);
                *place.add(end) = b'/';
                copy(name, place.add(end + slash), length + 1);
            }
            match start(place) {
                ENOENT | ENOTDIR => {}
                // Remembered: another directory may have one that runs.
                EACCES => error = EACCES,
                other => return other,
            }
        }
        // SAFETY: `end` is at a colon or at the end of the string.
        unsafe {
            if *rest.add(end) == 0 {
                return error;
            }
            rest = rest.add(end + 1);
        }
    }
}

fn search_path(mut envp: *const Text) -> Text {
    // SAFETY: the environment is ended by a null.
    unsafe {
        while !(*envp).is_null() {
            let variable = *envp;
            if (0..5).all(|at| *variable.add(at) == b"PATH="[at]) {
                return variable.add(5);
            }
            envp = envp.add(1);
        }
    }
    PATH.as_ptr()
}

fn complain(texts: &[Text]) {
    for &text in texts {
        syscall(call::WRITE, 2, text as usize, length(text), 0);
    }
}

fn length(text: Text) -> usize {
    let mut length = 0;
    // SAFETY: up to the null that ends the string.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    length
}

fn equal(a: Text, b: Text) -> bool {
    let length = length(a);
    // SAFETY: the shorter one's null ends the comparison.
    (0..=length).all(|at| unsafe { *a.add(at) == *b.add(at) })
}

/// Copies `count` bytes; both places must have room for them.
unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    for at in 0..count {
        // SAFETY: the caller's promise.
        unsafe { *to.add(at) = *from.add(at) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}

/// What the compiler may call by itself.
mod builtins {
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { super::copy(from, to, count) };
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: the caller's promise.
            unsafe { *to.add(at) = byte as u8 };
        }
        to
    }
}
