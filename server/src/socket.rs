//! The daemon's Unix sockets: bound with mode 0660 and the configured group,
//! stale ones replaced, living ones refused.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    path::Path,
};

use davit_store::{Error, Result};
use tokio::net::UnixListener;

/// Binds `path`. A socket that nobody listens on is replaced; one that answers
/// belongs to another daemon and makes it fail.
pub(crate) fn bind(path: &Path, group: Option<u32>) -> Result<UnixListener> {
    let what = || format!("cannot listen on {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Error::io(what(), error))?;
    }
    match StdUnixStream::connect(path) {
        Ok(_) => {
            return Err(Error::precondition(format!(
                "{}: another daemon answers there; stop it or choose another --address",
                what()
            )));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(_) => fs::remove_file(path).map_err(|error| Error::io(what(), error))?,
    }
    let listener = UnixListener::bind(path).map_err(|error| Error::io(what(), error))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .map_err(|error| Error::io(what(), error))?;
    if let Some(gid) = group {
        nix::unistd::chown(path, None, Some(gid.into()))
            .map_err(|error| Error::io(what(), error))?;
    }
    Ok(listener)
}

/// The gid of `group`, which is a name, a number, or empty.
pub(crate) fn group_id(group: &str) -> Result<Option<u32>> {
    if group.is_empty() {
        return Ok(None);
    }
    if let Ok(gid) = group.parse() {
        return Ok(Some(gid));
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(Some(found.gid.as_raw())),
        Ok(None) => Err(Error::invalid(format!(
            "group \"{group}\" does not exist; create it (groupadd --system {group}) or change `group`"
        ))),
        Err(error) => Err(Error::io(
            format!("cannot look up group \"{group}\""),
            error,
        )),
    }
}
