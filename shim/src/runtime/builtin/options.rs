//! Mount options of an OCI spec, sorted by who understands them.

use davit_sys::mount_attr::MountAttr;

/// The options of one mount.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// For the mount itself.
    pub(super) attributes: MountAttr,
    /// For the mount and all below it (`rro`, `rnosuid`, …).
    pub(super) recursive: MountAttr,
    /// Propagations in order, with whether they are recursive.
    pub(super) propagation: Vec<(u64, bool)>,
    /// A bind mount, and whether it takes along the mounts below its source.
    pub(super) bind: Option<bool>,
    /// An idmapped mount, and whether recursively.
    pub(super) idmap: Option<bool>,
    /// Copy what the mount covers into it.
    pub(super) copy_up: bool,
    /// Change a mount that is there.
    pub(super) remount: bool,
    /// For the file system as a whole, by flag.
    pub(super) filesystem: Vec<&'static str>,
    /// For the file system, as it stands.
    pub(super) data: Vec<(String, Option<String>)>,
}

const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

impl Options {
    pub(super) fn parse(options: &[String]) -> Options {
        let mut parsed = Options::default();
        for option in options {
            parsed.take(option);
        }
        parsed
    }

    /// Whether the mount is to be read-only.
    pub(super) fn read_only(&self) -> bool {
        (self.attributes.set | self.recursive.set) & libc::MOUNT_ATTR_RDONLY != 0
    }

    /// Takes out what makes the mount read-only, for when things have to be put into it first.
    pub(super) fn without_read_only(&self) -> MountAttr {
        MountAttr {
            set: self.attributes.set & !libc::MOUNT_ATTR_RDONLY,
            ..self.attributes
        }
    }

    pub(super) fn data_value(&self, key: &str) -> Option<&str> {
        self.data
            .iter()
            .find(|(k, _)| k == key)
            .and_then(|(_, v)| v.as_deref())
    }

    fn take(&mut self, option: &str) {
        if let Some((set, clear)) = attribute(option) {
            add(&mut self.attributes, set, clear);
            return;
        }
        if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            add(&mut self.recursive, set, clear);
            return;
        }
        if let Some(propagation) = propagation(option) {
            self.propagation.push(propagation);
            return;
        }
        match option {
            "" | "defaults" | "silent" | "loud" => {}
            "bind" => self.bind = self.bind.or(Some(false)),
            "rbind" => self.bind = Some(true),
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "remount" => self.remount = true,
            "sync" => self.filesystem.push("sync"),
            "dirsync" => self.filesystem.push("dirsync"),
            "lazytime" => self.filesystem.push("lazytime"),
            "mand" => self.filesystem.push("mand"),
            "iversion" => self.filesystem.push("iversion"),
            "async" | "nolazytime" | "nomand" | "noiversion" => {}
            other => self.data.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
}

fn add(to: &mut MountAttr, set: u64, clear: u64) {
    // The later option wins; the atime bits are one value, which the kernel wants cleared to change it.
    let atime = (set | clear) & ATIME != 0 || clear & ATIME == ATIME;
    let touched = set | clear | if atime { ATIME } else { 0 };
    to.set = to.set & !touched | set;
    to.clear = to.clear & !touched | clear;
}

/// Bits to set and to clear.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (libc::MOUNT_ATTR_RDONLY, 0),
        "rw" => (0, libc::MOUNT_ATTR_RDONLY),
        "nosuid" => (libc::MOUNT_ATTR_NOSUID, 0),
        "suid" => (0, libc::MOUNT_ATTR_NOSUID),
        "nodev" => (libc::MOUNT_ATTR_NODEV, 0),
        "dev" => (0, libc::MOUNT_ATTR_NODEV),
        "noexec" => (libc::MOUNT_ATTR_NOEXEC, 0),
        "exec" => (0, libc::MOUNT_ATTR_NOEXEC),
        "nodiratime" => (libc::MOUNT_ATTR_NODIRATIME, 0),
        "diratime" => (0, libc::MOUNT_ATTR_NODIRATIME),
        "relatime" | "atime" | "nostrictatime" => (0, ATIME),
        "noatime" => (libc::MOUNT_ATTR_NOATIME, ATIME),
        "strictatime" | "norelatime" => (libc::MOUNT_ATTR_STRICTATIME, ATIME),
        "nosymfollow" => (libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
        "symfollow" => (0, libc::MOUNT_ATTR_NOSYMFOLLOW),
        _ => return None,
    })
}

/// The `MS_*` flag, and whether recursive, of a propagation option.
pub(super) fn propagation(option: &str) -> Option<(u64, bool)> {
    Some(match option {
        "private" => (libc::MS_PRIVATE, false),
        "rprivate" => (libc::MS_PRIVATE, true),
        "slave" => (libc::MS_SLAVE, false),
        "rslave" => (libc::MS_SLAVE, true),
        "shared" => (libc::MS_SHARED, false),
        "rshared" => (libc::MS_SHARED, true),
        "unbindable" => (libc::MS_UNBINDABLE, false),
        "runbindable" => (libc::MS_UNBINDABLE, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        Options::parse(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn sorted() {
        let o = parse(&[
            "rbind",
            "rprivate",
            "ro",
            "nosuid",
            "mode=755",
            "tmpcopyup",
            "newinstance",
            "rro",
        ]);
        assert_eq!(o.bind, Some(true));
        assert_eq!(o.propagation, [(libc::MS_PRIVATE, true)]);
        assert_eq!(
            o.attributes.set,
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID
        );
        assert_eq!(o.recursive.set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(o.data_value("mode"), Some("755"));
        assert!(o.copy_up && o.read_only());
        assert_eq!(o.data[1], ("newinstance".to_owned(), None));
    }

    #[test]
    fn the_last_word_counts() {
        let o = parse(&["ro", "rw"]);
        assert!(!o.read_only());
        assert_eq!(o.attributes.clear, libc::MOUNT_ATTR_RDONLY);
        let o = parse(&["noatime", "relatime"]);
        assert_eq!((o.attributes.set, o.attributes.clear), (0, ATIME));
        let o = parse(&["relatime", "strictatime"]);
        assert_eq!(
            (o.attributes.set, o.attributes.clear),
            (libc::MOUNT_ATTR_STRICTATIME, ATIME)
        );
    }

    #[test]
    fn words_that_begin_with_r_are_not_all_recursive() {
        assert_eq!(parse(&["relatime"]).recursive, MountAttr::default());
        assert_eq!(parse(&["rw"]).recursive, MountAttr::default());
        assert_eq!(parse(&["rnoexec"]).recursive.set, libc::MOUNT_ATTR_NOEXEC);
    }
}
