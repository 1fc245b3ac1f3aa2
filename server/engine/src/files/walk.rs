//! Writes files of a tree as tar entries.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstatfs, openat, statat};
use tar::{Builder, EntryType, Header};

use super::Root;

/// Attributes that go into archives: file capabilities, as with docker, and
/// what users set themselves. Others are the host's or overlayfs's own.
const CAPABILITY: &str = "security.capability";
const USER: &str = "user.";

/// Directories within each other that are followed: no tree of a container
/// is deeper, and a walk holds a descriptor for each.
const MAX_DEPTH: usize = 512;

/// File systems that hold no files but views of the kernel; a copy of a tree
/// takes their mount points as empty directories (magic.h).
const VIRTUAL: &[i64] = &[
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6165_676c, // pstore
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x6e73_6673, // nsfs
    0x4249_4e4d, // binfmt_misc
];

/// Writes one tree.
pub(super) struct Walk<'a, W: Write> {
    tar: Builder<&'a mut W>,
    /// First path of each file with several links, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<'a, W: Write> Walk<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Self {
        Self {
            tar: Builder::new(out),
            links: HashMap::new(),
        }
    }

    /// Writes `name` in `dir`, and everything below it, under the path `called`.
    pub(super) fn add(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        called: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since its directory was read: as if it had never been.
            Err(rustix::io::Errno::NOENT) if depth > 0 => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(dir, name, called, depth, &stat),
            FileType::RegularFile => self.file(dir, name, called, &stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
                self.entry(
                    header(&stat, EntryType::Symlink),
                    called,
                    target.to_bytes(),
                    io::empty(),
                )
            }
            FileType::CharacterDevice => self.node(called, &stat, EntryType::Char),
            FileType::BlockDevice => self.node(called, &stat, EntryType::Block),
            FileType::Fifo => self.node(called, &stat, EntryType::Fifo),
            // A tar can't hold sockets; docker leaves them out, too.
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> io::Result<()> {
        self.tar.into_inner()?.flush()
    }

    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        called: &Path,
        depth: usize,
        stat: &Stat,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir, name, flags, Mode::empty())?;
        self.attributes(&fd)?;
        self.entry(
            header(stat, EntryType::Directory),
            &with_slash(called),
            b"",
            io::empty(),
        )?;
        if depth > 0 && is_virtual(&fd) {
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            return Err(io::Error::other(format!(
                "{} lies deeper than {MAX_DEPTH} directories",
                called.display()
            )));
        }
        self.children(&fd, called, depth + 1)
    }

    /// Writes everything in the directory `dir`, in order, so that the same
    /// tree gives the same archive.
    pub(super) fn children(
        &mut self,
        dir: &OwnedFd,
        called: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let name = OsStr::from_bytes(&name);
            self.add(dir.as_fd(), name, &called.join(name), depth)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        called: &Path,
        stat: &Stat,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                let first = first.as_os_str().as_bytes().to_vec();
                return self.entry(header(stat, EntryType::Link), called, &first, io::empty());
            }
            self.links.insert(id, called.to_owned());
        }
        let file = Root::open_file(dir, Path::new(name))?;
        self.attributes(&file)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = header(stat, EntryType::Regular);
        header.set_size(size);
        self.entry(header, called, b"", Exactly { file, left: size })
    }

    fn node(&mut self, called: &Path, stat: &Stat, kind: EntryType) -> io::Result<()> {
        let mut header = header(stat, kind);
        if kind != EntryType::Fifo {
            header.set_device_major(rustix::fs::major(stat.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
        }
        self.entry(header, called, b"", io::empty())
    }

    /// Writes one entry. Names are taken as they are: the tar crate's own
    /// setters refuse "/" and "./", which docker's clients expect.
    fn entry(
        &mut self,
        mut header: Header,
        called: &Path,
        link: &[u8],
        data: impl Read,
    ) -> io::Result<()> {
        let name = called.as_os_str().as_bytes();
        self.long(EntryType::GNULongName, name)?;
        self.long(EntryType::GNULongLink, link)?;
        let old = header.as_old_mut();
        for (field, bytes) in [(&mut old.name, name), (&mut old.linkname, link)] {
            let take = bytes.len().min(field.len());
            field[..take].copy_from_slice(&bytes[..take]);
        }
        header.set_cksum();
        self.tar.append(&header, data)
    }

    /// Writes what does not fit into a header's 100 bytes before it.
    fn long(&mut self, kind: EntryType, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() <= 100 {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        header.set_size(bytes.len() as u64 + 1);
        header.set_cksum();
        self.tar.append(&header, bytes.chain(&b"\0"[..]))
    }

    /// Extended attributes, as PAX records before the entry.
    fn attributes(&mut self, fd: impl AsFd) -> io::Result<()> {
        let found = attributes(fd.as_fd());
        let records: Vec<(String, Vec<u8>)> = found
            .into_iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value))
            .collect();
        if records.is_empty() {
            return Ok(());
        }
        self.tar.append_pax_extensions(
            records
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice())),
        )
    }
}

/// Attributes worth keeping. A file system without them has none.
fn attributes(fd: BorrowedFd<'_>) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0u8; 4096];
    let Ok(length) = rustix::fs::flistxattr(fd, &mut names) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for name in names[..length].split(|&byte| byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        // "=" ends the key of a PAX record.
        if name != CAPABILITY && !name.starts_with(USER) || name.contains('=') {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        if let Ok(length) = rustix::fs::fgetxattr(fd, name, &mut value) {
            value.truncate(length);
            found.push((name.to_owned(), value));
        }
    }
    found
}

fn header(stat: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}

fn with_slash(path: &Path) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    if !text.as_bytes().ends_with(b"/") {
        text.push("/");
    }
    PathBuf::from(text)
}

fn is_virtual(fd: &OwnedFd) -> bool {
    fstatfs(fd).is_ok_and(|stat| VIRTUAL.contains(&i64::from(stat.f_type)))
}

/// A file's bytes, as many as its header says: what grows meanwhile is cut,
/// what shrinks is filled with zeros.
struct Exactly<R> {
    file: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let mut got = self.file.read(&mut buffer[..want])?;
        if got == 0 {
            buffer[..want].fill(0);
            got = want;
        }
        self.left -= got as u64;
        Ok(got)
    }
}
