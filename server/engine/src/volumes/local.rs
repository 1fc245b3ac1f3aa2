//! The driver "local": a directory of ours, or with the options `type`, `o` and
//! `device` whatever mount(8) can put there, mounted while containers use it.

use std::{
    collections::BTreeMap,
    net::ToSocketAddrs,
    path::{Path, PathBuf},
};

use davit_sys::mount::Mount;

use crate::{Error, Kind, Result};

/// Options that the driver knows.
const KNOWN: [&str; 3] = ["type", "o", "device"];

/// Checks the form of the options. What they mount is the caller's choice:
/// whoever may make volumes may run privileged containers, too.
///
/// # Errors
/// `InvalidArgument` in docker's words.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<()> {
    if options.contains_key("size") {
        return Err(Error::invalid(
            "quota size requested but no quota support; for memory use type=tmpfs with o=size=…",
        ));
    }
    if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(Error::invalid(format!(
            "invalid option: \"{unknown}\"; known are type, o and device"
        )));
    }
    let given = |key: &str| options.get(key).is_some_and(|value| !value.is_empty());
    for (key, needs) in [("device", "type"), ("type", "device"), ("o", "device")] {
        // A bind has no type worth naming.
        let bind = needs == "type"
            && flags(options)
                .iter()
                .any(|flag| flag == "bind" || flag == "rbind");
        if given(key) && !given(needs) && !bind {
            return Err(Error::invalid(format!(
                "missing required option: \"{needs}\""
            )));
        }
    }
    if options.values().any(|value| value.contains('\0')) {
        return Err(Error::invalid("options contain a NUL byte"));
    }
    Ok(())
}

/// Whether something has to be mounted for it.
pub(super) fn is_mounted(options: &BTreeMap<String, String>) -> bool {
    options
        .get("device")
        .is_some_and(|device| !device.is_empty())
}

fn flags(options: &BTreeMap<String, String>) -> Vec<String> {
    let text = options.get("o").map(String::as_str).unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|flag| !flag.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Mounts a volume on its directory unless it is mounted already. Blocks, for
/// as long as a server of files likes.
///
/// # Errors
/// `FailedPrecondition` with what was mounted and what the system said.
pub(super) fn mount(name: &str, options: &BTreeMap<String, String>, data: &Path) -> Result<()> {
    if mounts_below(data)?.iter().any(|place| place == data) {
        return Ok(());
    }
    let get = |key: &str| options.get(key).map(String::as_str).unwrap_or_default();
    let (kind, device) = (get("type"), get("device"));
    let failed = |error: std::io::Error, what: String| {
        Error::new(
            Kind::FailedPrecondition,
            format!(
                "failed to mount local volume {name}: mount {device}:{}, flags {:?}: {what}",
                data.display(),
                get("o")
            ),
        )
        .with_source(error)
    };
    let mut flags = flags(options);
    if matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3") {
        resolve(kind, device, &mut flags)
            .map_err(|error| failed(error, "looking up its server".to_owned()))?;
    }
    let bind = flags.iter().any(|flag| flag == "bind" || flag == "rbind");
    let one = Mount {
        kind: if bind {
            "bind".to_owned()
        } else {
            kind.to_owned()
        },
        source: device.to_owned(),
        target: String::new(),
        options: flags,
    };
    davit_sys::mount::attach(std::slice::from_ref(&one), data).map_err(|error| {
        let what = error.to_string();
        failed(error.into_io(), what)
    })
}

/// The kernel knows no names of hosts: mount(8)'s helpers look them up, and so
/// do we.
fn resolve(kind: &str, device: &str, flags: &mut Vec<String>) -> std::io::Result<()> {
    let key = if kind.starts_with("nfs") {
        "addr"
    } else {
        "ip"
    };
    let given = flags
        .iter()
        .position(|flag| flag.starts_with("addr=") || flag.starts_with("ip="));
    let host = match given {
        Some(at) => flags
            .remove(at)
            .split_once('=')
            .map(|(_, host)| host.to_owned()),
        None if kind.starts_with("nfs") => {
            device.rsplit_once(":/").map(|(host, _)| host.to_owned())
        }
        None => device
            .trim_start_matches(['/', '\\'])
            .split(['/', '\\'])
            .next()
            .map(str::to_owned),
    };
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return Ok(());
    };
    let host = host.trim_matches(['[', ']']);
    let address = (host, 0).to_socket_addrs()?.next().ok_or_else(|| {
        std::io::Error::new(
            std::io::ErrorKind::NotFound,
            format!("host {host} has no address"),
        )
    })?;
    flags.push(format!("{key}={}", address.ip()));
    Ok(())
}

/// Takes a volume's mount off.
pub(super) fn unmount(data: &Path) -> Result<()> {
    davit_sys::mount::detach(data).map_err(|error| {
        Error::io(
            format!("cannot unmount {}", data.display()),
            error.into_io(),
        )
    })
}

/// Places at and below `top` where something is mounted.
pub(super) fn mounts_below(top: &Path) -> Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Error::io("cannot read /proc/self/mountinfo", error))?;
    // The table has real paths.
    let top = match top.canonicalize() {
        Ok(top) => top,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => top.to_owned(),
        Err(error) => {
            return Err(Error::io(
                format!("cannot look at {}", top.display()),
                error,
            ));
        }
    };
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(crate::spec::unescape(field)))
        .filter(|place| place.starts_with(&top))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        let why = |list: &[(&str, &str)]| check(&options(list)).unwrap_err().to_string();
        assert!(check(&options(&[])).is_ok());
        assert!(
            check(&options(&[
                ("type", "tmpfs"),
                ("device", "tmpfs"),
                ("o", "size=1m")
            ]))
            .is_ok()
        );
        assert!(check(&options(&[("device", "/x"), ("o", "bind,ro")])).is_ok());
        assert!(why(&[("foo", "x")]).starts_with("invalid option: \"foo\""));
        assert_eq!(
            why(&[("type", "nfs")]),
            "missing required option: \"device\""
        );
        assert_eq!(
            why(&[("device", "/dev/x")]),
            "missing required option: \"type\""
        );
        assert_eq!(why(&[("o", "ro")]), "missing required option: \"device\"");
        assert!(why(&[("size", "1m")]).contains("no quota support"));
    }

    #[test]
    fn servers_become_addresses() {
        let resolved = |kind, device, list: &[&str]| {
            let mut flags = list.iter().map(|&flag| flag.to_owned()).collect();
            resolve(kind, device, &mut flags).unwrap();
            flags
        };
        assert_eq!(
            resolved("nfs", ":/data", &["addr=127.0.0.1", "rw"]),
            ["rw", "addr=127.0.0.1"]
        );
        assert_eq!(resolved("nfs4", "127.0.0.1:/data", &[]), ["addr=127.0.0.1"]);
        assert_eq!(
            resolved("cifs", "//127.0.0.1/share", &["username=x"]),
            ["username=x", "ip=127.0.0.1"]
        );
        assert_eq!(resolved("nfs", ":/data", &[]), Vec::<String>::new());
    }

    #[test]
    fn a_volume_is_mounted_once_and_taken_off() {
        let dir = tempfile::tempdir().unwrap();
        let memory = options(&[
            ("type", "tmpfs"),
            ("device", "tmpfs"),
            ("o", "size=1m,mode=0700,nosuid"),
        ]);
        mount("v", &memory, dir.path()).unwrap();
        mount("v", &memory, dir.path()).unwrap();
        assert_eq!(mounts_below(dir.path()).unwrap().len(), 1);
        unmount(dir.path()).unwrap();
        assert!(mounts_below(dir.path()).unwrap().is_empty());
        let bad = options(&[("device", "/no/such/place"), ("o", "bind")]);
        let error = mount("v", &bad, dir.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("failed to mount local volume v: mount /no/such/place:"),
            "{error}"
        );
    }
}
