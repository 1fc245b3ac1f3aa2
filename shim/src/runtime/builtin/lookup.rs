//! Finding the program and the user's home, inside the container.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use super::namespaces::reason;
use crate::error::{Error, Kind, Result};

/// The program that `name` means, by the container's own `PATH`. The words of the errors are those of runc, which the
/// docker CLI takes its exit codes from (127 and 126).
pub(super) fn find(name: &str, environment: &[String]) -> Result<PathBuf> {
    let wrap = |cause: String| Error::new(Kind::Unknown, format!("exec: {name:?}: {cause}"));
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Errno::ISDIR) => Err(wrap("is a directory".into())),
            Err(Errno::ACCESS) => Err(wrap("permission denied".into())),
            Err(e) => Err(wrap(format!("stat {name}: {}", reason(&e.into())))),
        };
    }
    let path = environment
        .iter()
        .find_map(|v| v.strip_prefix("PATH="))
        .unwrap_or_default();
    let directories = path.split(':').map(|d| if d.is_empty() { "." } else { d });
    let found = directories
        .map(|d| Path::new(d).join(name))
        .find(|p| !name.is_empty() && executable(p).is_ok());
    found.ok_or_else(|| wrap("executable file not found in $PATH".into()))
}

fn executable(path: &Path) -> Result<(), Errno> {
    let mode = stat(path)?.st_mode;
    if FileType::from_raw_mode(mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    if mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::ACCESS) => Err(Errno::ACCESS),
        // A kernel or filter without faccessat2: execve will tell.
        _ => Ok(()),
    }
}

/// Home directories.
#[derive(Debug)]
pub(super) struct Home;

impl Home {
    /// From the container's `/etc/passwd`; `/` for a user that is not in it.
    pub(super) fn of(uid: u32) -> String {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        Home::find(&passwd, uid).unwrap_or("/").to_owned()
    }

    fn find(passwd: &str, uid: u32) -> Option<&str> {
        let mut lines = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>());
        let line = lines.find(|f| f.get(2).and_then(|u| u.parse().ok()) == Some(uid))?;
        line.get(5).copied().filter(|home| !home.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, path: &str) -> String {
        find(name, &[format!("PATH={path}")]).unwrap_err().message
    }

    #[test]
    fn words_that_callers_parse() {
        assert_eq!(
            message("nonsense", "/bin:/usr/bin"),
            r#"exec: "nonsense": executable file not found in $PATH"#
        );
        assert_eq!(
            message("/no/such", ""),
            r#"exec: "/no/such": stat /no/such: no such file or directory"#
        );
        assert_eq!(
            message("/etc/passwd", ""),
            r#"exec: "/etc/passwd": permission denied"#
        );
        assert_eq!(message("/etc", ""), r#"exec: "/etc": is a directory"#);
        assert_eq!(
            message("sh", ""),
            r#"exec: "sh": executable file not found in $PATH"#
        );
        assert_eq!(
            find("sh", &["PATH=/nowhere:/bin".into()]).unwrap(),
            Path::new("/bin/sh")
        );
    }

    #[test]
    fn homes() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nx:x:7:7::\n";
        assert_eq!(Home::find(passwd, 0), Some("/root"));
        assert_eq!(Home::find(passwd, 7), None);
    }
}
