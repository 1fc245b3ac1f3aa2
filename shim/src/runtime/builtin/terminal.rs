//! The pseudo-terminal of a process, made in the container's own devpts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Process;
use rustix::fs::{FileType, Mode, OFlags, fstat, fstatfs, major, minor};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::inroot::{self, Leaf};
use super::mounts::{attach, clone_tree};
use super::namespaces::reason;
use crate::error::{Error, Kind, Result};

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Both ends of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    /// The end that becomes stdin, stdout and stderr.
    pub(super) peer: OwnedFd,
}

impl Terminal {
    /// Opens a new one below `root`, with the size that `process` wants.
    ///
    /// # Errors
    /// No devpts on `/dev/pts`, or something else that pretends to be one: the container's files are not trusted.
    pub(super) fn open(root: BorrowedFd<'_>, process: &Process) -> Result<Terminal> {
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = inroot::open(root, Path::new("dev/pts/ptmx"), flags)
            .map_err(failed("open /dev/pts/ptmx"))?;
        check_master(&master)?;
        unlockpt(&master).map_err(failed("unlock the terminal"))?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer =
            ioctl_tiocgptpeer(&master, flags).map_err(failed("open the terminal's other end"))?;
        if let Some(size) = process.console_size() {
            let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
            let size = Winsize {
                ws_row: cells(size.height()),
                ws_col: cells(size.width()),
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            tcsetwinsize(&master, size).map_err(failed("set the terminal's size"))?;
        }
        Ok(Terminal { master, peer })
    }

    /// Makes it `/dev/console`.
    pub(super) fn bind_console(&self, root: BorrowedFd<'_>) -> Result<()> {
        let mode = Mode::from_raw_mode(0o600);
        let place = inroot::ensure(root, Path::new("dev/console"), Leaf::File, mode)
            .map_err(failed("make /dev/console"))?;
        let tree =
            clone_tree(&self.peer, Path::new(""), false).map_err(failed("bind /dev/console"))?;
        attach(tree, place)
    }
}

fn check_master(master: &OwnedFd) -> Result<()> {
    let stat = fstat(master).map_err(failed("stat /dev/pts/ptmx"))?;
    let filesystem = fstatfs(master).map_err(failed("stat /dev/pts"))?;
    let real = filesystem.f_type == DEVPTS_SUPER_MAGIC
        && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (5, 2);
    if real {
        Ok(())
    } else {
        Err(Error::new(
            Kind::FailedPrecondition,
            "/dev/pts/ptmx is not a terminal multiplexer",
        ))
    }
}

/// Makes `peer` the controlling terminal of the calling session leader.
pub(super) fn control(peer: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(peer).map_err(failed("make the terminal the controlling one"))
}

fn failed(what: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |e| Error::because(what, reason(&e.into()))
}
