//! A container that gets hold of `/proc/<shim>/exe` must not be able to write to the binary behind it
//! (CVE-2019-5736). The binary is therefore executed from a read-only, detached bind mount of itself: nothing is
//! copied, so all shims still share one set of pages.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

/// How a binary is going to be executed.
#[derive(Debug)]
pub enum Protected {
    /// From a detached read-only mount; keep the descriptor open until the child has executed it.
    Sealed(OwnedFd),
    /// The kernel refused (before Linux 5.12, or no `CAP_SYS_ADMIN`), for the reason given: execute the path itself.
    Plain(io::Error),
}

/// Makes a read-only, detached bind mount of `binary`.
pub fn protect(binary: &Path) -> Protected {
    match seal(binary) {
        Ok(fd) => Protected::Sealed(fd),
        Err(error) => Protected::Plain(error),
    }
}

impl Protected {
    /// A command that executes the binary in this way. `binary` is the path given to [`protect`]; it is the first argument, too.
    #[must_use]
    pub fn command(&self, binary: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = match self {
            // Opened O_CLOEXEC: the kernel resolves the path before it closes the descriptor.
            Protected::Sealed(fd) => Command::new(format!("/proc/self/fd/{}", fd.as_raw_fd())),
            Protected::Plain(_) => Command::new(binary),
        };
        command.arg0(binary);
        command
    }
}

fn seal(binary: &Path) -> io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, binary, flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open for the whole call, the path is an empty C string, and the structure is
    // initialised and as long as the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executed_file_cannot_be_opened_for_writing() {
        let binary = Path::new("/bin/sh");
        let protected = protect(binary);
        assert!(matches!(protected, Protected::Sealed(_)), "{protected:?}");
        let output = protected
            .command(binary)
            .args([
                "-c",
                "exec 5>>/proc/$$/exe && echo writable || echo refused; echo $0",
            ])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            errors.contains("Read-only file system") || errors.contains("Text file busy"),
            "{errors}"
        );
        assert!(!text.contains("writable"), "{text}");
    }
}
