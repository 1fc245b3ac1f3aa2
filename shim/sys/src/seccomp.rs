//! Loading a seccomp filter.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One instruction of classic BPF, as `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const Instruction,
}

/// Puts `program` on the calling thread and all that it starts; `flags` are `SECCOMP_FILTER_FLAG_*`.
///
/// Gives the notification descriptor when `flags` has `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
///
/// # Errors
/// `EACCES` without `no_new_privs` and without CAP_SYS_ADMIN; `EINVAL` for a program the kernel refuses.
pub fn load(program: &[Instruction], flags: u64) -> io::Result<Option<OwnedFd>> {
    let len = libc::c_ushort::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "seccomp filter is too long"))?;
    let raw = Program {
        len,
        filter: program.as_ptr(),
    };
    // SAFETY: `raw` points at `len` instructions that outlive the call; the kernel copies them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const raw,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(answer).map_err(|_| io::Error::other("seccomp gave no descriptor"))?;
    // SAFETY: with NEW_LISTENER the answer is a new descriptor, which nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
