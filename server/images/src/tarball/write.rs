//! Writes files of a tree as tar entries: GNU format, PAX records for extended
//! attributes.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags, Stat, openat};
use tar::{Builder, EntryType, Header};

/// Attributes that go into archives: file capabilities, as with docker, and
/// what users set themselves. Others are the host's or overlayfs' own.
const CAPABILITY: &str = "security.capability";
const USER: &str = "user.";
const OVERLAY: &str = "user.overlay.";

/// Most bytes of one attribute (XATTR_SIZE_MAX).
const MAX_VALUE: usize = 64 << 10;

/// A tar that is being written.
pub struct TreeWriter<W: Write> {
    tar: Builder<W>,
    /// First name of each file with several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> std::fmt::Debug for TreeWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeWriter")
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}

impl<W: Write> TreeWriter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            tar: Builder::new(out),
            links: HashMap::new(),
        }
    }

    /// Writes what `name` in `dir` is, as `called` (taken as it stands, "/"
    /// and "./" too); of a directory the entry only. `stat` is its own, links
    /// not followed. A second name of a file becomes a hard link to the first.
    /// Sockets are left out, as a tar can't hold them.
    ///
    /// # Errors
    /// The system's; and when the file changed into something else meanwhile.
    pub fn add(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        called: &Path,
        stat: &Stat,
    ) -> io::Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let fd = openat(dir, name, OFlags::DIRECTORY | reading(), Mode::empty())?;
                self.attributes(fd.as_fd())?;
                self.entry(
                    header(stat, EntryType::Directory),
                    &with_slash(called),
                    b"",
                    io::empty(),
                )
            }
            FileType::RegularFile => self.file(dir, name, called, stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
                self.entry(
                    header(stat, EntryType::Symlink),
                    called,
                    target.to_bytes(),
                    io::empty(),
                )
            }
            FileType::CharacterDevice => self.node(called, stat, EntryType::Char),
            FileType::BlockDevice => self.node(called, stat, EntryType::Block),
            FileType::Fifo => self.node(called, stat, EntryType::Fifo),
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    /// Writes an empty file that belongs to root, such as a whiteout.
    pub fn marker(&mut self, called: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.entry(header, called, b"", io::empty())
    }

    /// Ends the archive and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
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
        let file = File::from(openat(dir, name, reading(), Mode::empty())?);
        self.attributes(file.as_fd())?;
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
    fn attributes(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let found = attributes(fd);
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

/// Attributes worth keeping, in order of their names. A file system without
/// them has none.
fn attributes(fd: BorrowedFd<'_>) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0u8; MAX_VALUE];
    let Ok(length) = rustix::fs::flistxattr(fd, &mut names) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for name in names[..length].split(|&byte| byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        let wanted = name == CAPABILITY || name.starts_with(USER) && !name.starts_with(OVERLAY);
        // "=" ends the key of a PAX record.
        if !wanted || name.contains('=') {
            continue;
        }
        let mut value = vec![0u8; MAX_VALUE];
        if let Ok(length) = rustix::fs::fgetxattr(fd, name, &mut value) {
            value.truncate(length);
            found.push((name.to_owned(), value));
        }
    }
    found.sort();
    found
}

fn reading() -> OFlags {
    // NONBLOCK: a FIFO that took the file's place must not hold us up.
    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
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
