//! `tmpcopyup`: a new tmpfs starts with what it covers.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod,
    futimens, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::{Errno, Result};

/// Directories nested deeper than this are an attack or a mistake.
const DEEPEST: u32 = 256;

/// Copies everything below `from` into `to`; both are open directories. Never follows a symlink.
pub(super) fn copy_up(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let stat = rustix::fs::fstat(&from)?;
    copy_directory(from.as_fd(), to.as_fd(), 0)?;
    keep_owner(&to, OsStr::new("."), &stat)?;
    fchmod_directory(&to, stat.st_mode)
}

fn copy_directory(from: impl AsFd, to: impl AsFd, depth: u32) -> Result<()> {
    if depth > DEEPEST {
        return Err(Errno::LOOP);
    }
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        copy_entry(from.as_fd(), to.as_fd(), name, depth)?;
    }
    Ok(())
}

fn copy_entry(from: impl AsFd, to: impl AsFd, name: &OsStr, depth: u32) -> Result<()> {
    let stat = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(&to, name, Mode::from_raw_mode(0o700))?;
            let below = openat(&from, name, read | OFlags::DIRECTORY, Mode::empty())?;
            let made = openat(&to, name, read | OFlags::DIRECTORY, Mode::empty())?;
            copy_directory(&below, &made, depth + 1)?;
            keep_owner(&to, name, &stat)?;
            fchmod_directory(&made, stat.st_mode)?;
            return futimens(&made, &times(&stat));
        }
        FileType::Symlink => {
            let target = readlinkat(&from, name, Vec::new())?;
            symlinkat(target, &to, name)?;
            return keep_owner(&to, name, &stat);
        }
        FileType::RegularFile => {
            let source = openat(&from, name, read, Mode::empty())?;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = openat(&to, name, write, Mode::from_raw_mode(0o600))?;
            copy_bytes(&source, &target)?;
            keep_owner(&to, name, &stat)?;
            fchmod(&target, mode)?;
        }
        kind => {
            mknodat(&to, name, kind, mode, stat.st_rdev)?;
            keep_owner(&to, name, &stat)?;
        }
    }
    utimensat(&to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer))?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(to, rest))?;
            rest = &rest[written..];
        }
    }
}

fn keep_owner(at: impl AsFd, name: &OsStr, stat: &rustix::fs::Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn fchmod_directory(directory: impl AsFd, mode: u32) -> Result<()> {
    // The mount's own descriptor is O_PATH, which fchmod refuses.
    rustix::fs::chmodat(directory, ".", Mode::from_raw_mode(mode), AtFlags::empty())
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as i64,
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
