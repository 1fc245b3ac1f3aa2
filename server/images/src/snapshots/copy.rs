//! Copies of directories and trees with everything that a container can see:
//! owner, mode, times, xattrs, hard links, holes, devices.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
        XattrFlags, chmodat, chownat, copy_file_range, fstat, ftruncate, ioctl_ficlone, lgetxattr,
        linkat, llistxattr, lsetxattr, mkdirat, mknodat, openat, readlinkat, seek, statat,
        symlinkat, utimensat,
    },
    io::Errno,
};

use crate::unpack::walk::{MAX_DEPTH, open_root};

/// Makes the empty directory `to`, owned by root, mode 0755.
pub(super) fn plain_directory(to: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o755).create(to)?;
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

/// Makes the empty directory `to` with owner, mode, xattrs and times of `from`.
pub(super) fn directory_like(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    let (from, to) = (open_root(from)?, open_root(to)?);
    take_after(from.as_fd(), to.as_fd())
}

/// Gives the directory `to` owner, mode, xattrs (except overlayfs' own) and
/// times of the directory `from`.
pub fn take_after(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fstat(from)?;
    copy_attributes(from, c".", to, c".", &stat, Whole::WithoutMarks)
}

/// Copies the tree `from` to `to`, which must not exist.
pub(super) fn tree(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    let (source, target) = (open_root(from)?, open_root(to)?);
    let mut links = Links {
        first: HashMap::new(),
        root: target.try_clone()?,
    };
    copy_children(&source, &target, Vec::new(), 0, &mut links)?;
    let stat = fstat(&source)?;
    copy_attributes(
        source.as_fd(),
        c".",
        target.as_fd(),
        c".",
        &stat,
        Whole::All,
    )
}

/// Copies what is in the directory `from` into the empty directory `to`, which
/// takes owner, mode, xattrs and times of `from`. Both are open for reading.
/// What of xattrs the target's file system does not know is left out.
pub fn contents(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut links = Links {
        first: HashMap::new(),
        root: to.try_clone()?,
    };
    copy_children(from, to, Vec::new(), 0, &mut links)?;
    take_after(from.as_fd(), to.as_fd())
}

/// Where the first name of a file with several was put.
struct Links {
    first: HashMap<(u64, u64), Vec<u8>>,
    root: OwnedFd,
}

#[derive(Clone, Copy, PartialEq)]
enum Whole {
    All,
    WithoutMarks,
}

/// Copies what is in one directory; directories in it are done before their
/// own attributes, since writing into them changes their times.
fn copy_children(
    from: &OwnedFd,
    to: &OwnedFd,
    path: Vec<u8>,
    depth: usize,
    links: &mut Links,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!(
            "directories nested deeper than {MAX_DEPTH}"
        )));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut below = path.clone();
        if !below.is_empty() {
            below.push(b'/');
        }
        below.extend_from_slice(name.to_bytes());
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = openat(from, name, flags, Mode::empty())?;
            let made = openat(to, name, flags, Mode::empty())?;
            copy_children(&inner, &made, below, depth + 1, links)?;
        } else if stat.st_nlink > 1 {
            match links.first.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => {
                    linkat(&links.root, first.as_slice(), to, name, AtFlags::empty())?;
                    continue;
                }
                None => {
                    copy_one(from, to, name, &stat)?;
                    links.first.insert((stat.st_dev, stat.st_ino), below);
                }
            }
        } else {
            copy_one(from, to, name, &stat)?;
        }
        copy_attributes(from.as_fd(), name, to.as_fd(), name, &stat, Whole::All)?;
    }
    Ok(())
}

fn copy_one(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let source = openat(from, name, read, Mode::empty())?;
            let target = openat(to, name, write, Mode::from_raw_mode(0o600))?;
            copy_data(&source, &target, stat.st_size as u64)
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            Ok(symlinkat(target, to, name)?)
        }
        kind => Ok(mknodat(
            to,
            name,
            kind,
            Mode::from_raw_mode(0o600),
            stat.st_rdev,
        )?),
    }
}

/// Shares the blocks where the file system can, else copies what is not a hole.
pub(crate) fn copy_data(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    if size == 0 || ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(_) => at,
        };
        let end = seek(from, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        copy_range(from, to, start, end)?;
        at = end.max(start + 1);
    }
    Ok(())
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut write) = (start, start);
    while read < end {
        let left = (end - read) as usize;
        match copy_file_range(from, Some(&mut read), to, Some(&mut write), left) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, to, read, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let (from, to) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
    let mut buffer = vec![0; 256 << 10];
    while at < end {
        let want = buffer.len().min((end - at) as usize);
        let got = from.read_at(&mut buffer[..want], at)?;
        if got == 0 {
            break;
        }
        to.write_all_at(&buffer[..got], at)?;
        at += got as u64;
    }
    Ok(())
}

fn copy_attributes(
    from: BorrowedFd<'_>,
    from_name: &CStr,
    to: BorrowedFd<'_>,
    to_name: &CStr,
    stat: &Stat,
    whole: Whole,
) -> io::Result<()> {
    let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, to_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !link {
        // By descriptor: a link that somebody puts there meanwhile, where others
        // can write, is not followed.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(to, to_name, flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", made.as_raw_fd());
        chmodat(
            CWD,
            path,
            Mode::from_raw_mode(stat.st_mode & 0o7777),
            AtFlags::empty(),
        )?;
    }
    copy_xattrs(&by_name(from, from_name)?, &by_name(to, to_name)?, whole)?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    };
    Ok(utimensat(to, to_name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A path that names something in an open directory without following it.
pub(crate) fn by_name(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<CString> {
    let path = [
        format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(),
        name.to_bytes(),
    ]
    .concat();
    CString::new(path).map_err(io::Error::other)
}

/// Names and values of all xattrs of `path`, which is not followed.
pub(crate) fn xattrs(path: &CStr) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let mut names = vec![0u8; 1024];
    let length = loop {
        match llistxattr(path, &mut names[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) => names.resize(names.len() * 4, 0),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Vec::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = CString::new(name).map_err(io::Error::other)?;
        let mut value = vec![0u8; 256];
        loop {
            match lgetxattr(path, &name, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    found.push((name, value));
                    break;
                }
                Err(Errno::RANGE) => value.resize(value.len() * 8, 0),
                Err(Errno::NODATA) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(found)
}

fn copy_xattrs(from: &CStr, to: &CStr, whole: Whole) -> io::Result<()> {
    for (name, value) in xattrs(from)? {
        if whole == Whole::WithoutMarks && name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        match lsetxattr(to, &name, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
