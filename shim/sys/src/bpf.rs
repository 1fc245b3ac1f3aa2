//! Device rules of cgroup v2: loading a `BPF_PROG_TYPE_CGROUP_DEVICE` program and attaching it to a cgroup.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_QUERY: libc::c_int = 16;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// One instruction of eBPF, as `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// Makes `program` the device filter of the cgroup directory `cgroup`, in place of those it had.
///
/// # Errors
/// `EPERM` without CAP_BPF or CAP_SYS_ADMIN, `EINVAL` when the kernel was built without cgroup BPF.
pub fn replace_device_filter(cgroup: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let old = attached(&cgroup)?;
    let new = load(program)?;
    let target_fd = fd_number(&cgroup);
    let mut attach = Attach {
        target_fd,
        attach_bpf_fd: fd_number(&new),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    call(PROG_ATTACH, &mut attach)?;
    // All attached programs have to agree, so the new one restricts at once, and the old ones can go after it.
    for old in old {
        let mut detach = Attach {
            target_fd,
            attach_bpf_fd: fd_number(&old),
            attach_type: ATTACH_CGROUP_DEVICE,
            ..Attach::default()
        };
        call(PROG_DETACH, &mut detach)?;
    }
    Ok(())
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut load = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    let fd = call(PROG_LOAD, &mut load)?;
    // SAFETY: PROG_LOAD answers with a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attached(cgroup: &impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; 64];
    let mut query = Query {
        target_fd: fd_number(cgroup),
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        ..Query::default()
    };
    call(PROG_QUERY, &mut query)?;
    let found = ids.iter().take(query.prog_cnt as usize);
    found.filter_map(|id| by_id(*id).transpose()).collect()
}

/// `None` when the program went away since.
fn by_id(id: u32) -> io::Result<Option<OwnedFd>> {
    let mut raw = [id, 0, 0];
    match call(PROG_GET_FD_BY_ID, &mut raw) {
        // SAFETY: the answer is a new descriptor, which nobody else owns.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

fn fd_number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn call<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` for this command with the size that is passed, and what it
    // points at (instructions, licence, id array) outlives the call; the callers above are the only ones.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(answer).map_err(io::Error::other)
}
