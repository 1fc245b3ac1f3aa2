//! User, groups and capabilities of a process. Runs in the forked process, in this order: [`drop_bounding`] while
//! CAP_SETPCAP is there, [`become_user`], [`set_capabilities`].

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{Capabilities, Process, User};

use super::channel::{Channel, Message};
use super::namespaces::reason;
use crate::error::{Error, Kind, Result};

/// Takes from the bounding set what the process must never have, and keeps the rest over the change of user.
pub(super) fn drop_bounding(process: &Process) -> Result<()> {
    let wanted = process
        .capabilities()
        .as_ref()
        .and_then(|c| c.bounding().as_ref());
    let wanted = set_of(wanted)?;
    for capability in caps::all().into_iter().filter(|c| !wanted.contains(c)) {
        match caps::drop(None, CapSet::Bounding, capability) {
            // Not known to this kernel, or not there to begin with.
            Ok(()) => {}
            Err(_) if !caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) => {}
            Err(e) => return Err(Error::because("unable to apply bounding set", e)),
        }
    }
    rustix::thread::set_keep_capabilities(true)
        .map_err(|e| Error::because("keep capabilities", reason(&e.into())))
}

/// Groups, then group, then user.
pub(super) fn become_user(user: &User) -> Result<()> {
    let groups: Vec<Gid> = user
        .additional_gids()
        .iter()
        .flatten()
        .map(|g| Gid::from_raw(*g))
        .collect();
    if groups_allowed() {
        nix::unistd::setgroups(&groups)
            .map_err(|e| Error::because("setgroups", reason(&e.into())))?;
    } else if !groups.is_empty() {
        return Err(Error::new(
            Kind::InvalidArgument,
            "additional groups are not allowed in this user namespace",
        ));
    }
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    nix::unistd::setresgid(gid, gid, gid)
        .map_err(|e| Error::because("setgid", reason(&e.into())))?;
    nix::unistd::setresuid(uid, uid, uid)
        .map_err(|e| Error::because("setuid", reason(&e.into())))?;
    rustix::thread::set_keep_capabilities(false)
        .map_err(|e| Error::because("keep capabilities", reason(&e.into())))
}

/// Sets all other sets. What davit itself does not have can't be given: that is a warning.
pub(super) fn set_capabilities(process: &Process, channel: &Channel) -> Result<()> {
    let Some(wanted) = process.capabilities() else {
        return Ok(());
    };
    let have =
        caps::read(None, CapSet::Permitted).map_err(|e| Error::because("read capabilities", e))?;
    let mut missing: CapsHashSet = CapsHashSet::new();
    let mut possible = |set: &Option<Capabilities>| -> Result<CapsHashSet> {
        let set = set_of(set.as_ref())?;
        missing.extend(set.difference(&have));
        Ok(set.intersection(&have).copied().collect())
    };
    let effective = possible(wanted.effective())?;
    let permitted = possible(wanted.permitted())?;
    let inheritable = possible(wanted.inheritable())?;
    let ambient = possible(wanted.ambient())?;
    if !missing.is_empty() {
        let mut names: Vec<String> = missing.iter().map(ToString::to_string).collect();
        names.sort();
        let text = format!(
            "not given, since davit does not have them itself: {}",
            names.join(", ")
        );
        channel.send(&Message::Warning(text))?;
    }
    let failed = |e: caps::errors::CapsError| Error::because("unable to apply caps", e);
    // Inheritable first, while CAP_SETPCAP may still be there; effective before permitted, of which it is a part.
    caps::set(None, CapSet::Inheritable, &inheritable).map_err(failed)?;
    let effective = effective.intersection(&permitted).copied().collect();
    caps::set(None, CapSet::Effective, &effective).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &permitted).map_err(failed)?;
    let ambient: CapsHashSet = ambient
        .iter()
        .filter(|c| permitted.contains(*c) && inheritable.contains(*c))
        .copied()
        .collect();
    if ambient.is_empty() {
        // There are none after a change of user, and a filter may forbid the call.
        let _ = caps::clear(None, CapSet::Ambient);
        return Ok(());
    }
    caps::set(None, CapSet::Ambient, &ambient).map_err(failed)
}

/// In a user namespace without the right to drop groups, there is no setting them.
fn groups_allowed() -> bool {
    !std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

fn set_of(names: Option<&Capabilities>) -> Result<CapsHashSet> {
    let parse = |name: String| {
        let name = if name.starts_with("CAP_") {
            name
        } else {
            format!("CAP_{name}")
        };
        name.parse::<Capability>()
            .map_err(|_| Error::new(Kind::InvalidArgument, format!("unknown capability {name}")))
    };
    names
        .into_iter()
        .flatten()
        .map(|c| parse(c.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_spec_is_known() {
        let names: Capabilities = serde_json::from_str(
            r#"["CAP_CHOWN","CAP_NET_BIND_SERVICE","CAP_CHECKPOINT_RESTORE","CAP_BPF","CAP_PERFMON","CAP_SYSLOG","CAP_MAC_ADMIN"]"#,
        )
        .unwrap();
        assert_eq!(set_of(Some(&names)).unwrap().len(), 7);
    }
}
