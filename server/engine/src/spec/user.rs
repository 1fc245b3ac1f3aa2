//! Users and groups, resolved in the container's own /etc/passwd and
//! /etc/group.

use std::path::Path;

use davit_store::{Error, Result};

use super::RootfsView;

/// Highest id that docker lets through.
const MAX_ID: u32 = i32::MAX as u32;

/// Whom a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, the primary one first among them.
    pub groups: Vec<u32>,
    /// Home directory, "/" when nobody says.
    pub home: String,
}

/// Resolves `user` ("user", "uid", "user:group", "uid:gid" or "") and the
/// further groups `group_add`.
///
/// # Errors
/// `InvalidArgument` in docker's words for a user or group that is not there
/// or out of range; `Internal` when the files can't be read.
pub fn resolve_user(rootfs: &dyn RootfsView, user: &str, group_add: &[String]) -> Result<Identity> {
    let (user_part, group_part) = user.split_once(':').unwrap_or((user, ""));
    let passwd = read(rootfs, "/etc/passwd")?;
    let group = read(rootfs, "/etc/group")?;
    let (mut identity, login) = find_user(&passwd, user_part)?;
    if !group_part.is_empty() {
        identity.gid = find_group(&group, group_part)?;
    }
    // The primary group is always in the list: otherwise dropping it with
    // setgid() would lift "negative" permissions of that group (CVE-2022-36109).
    identity.groups = vec![identity.gid];
    if let (Some(login), "") = (&login, group_part) {
        let member = |entry: &Group<'_>| entry.members.split(',').any(|name| name == login);
        let memberships = groups(&group).filter(member).map(|entry| entry.gid);
        identity.groups.extend(memberships);
    }
    for name in group_add {
        identity.groups.push(find_group(&group, name)?);
    }
    let mut seen = std::collections::HashSet::new();
    identity.groups.retain(|&gid| seen.insert(gid));
    Ok(identity)
}

fn read(rootfs: &dyn RootfsView, path: &str) -> Result<String> {
    let bytes = rootfs
        .read(Path::new(path))
        .map_err(|error| Error::io(format!("reading {path} of the container"), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The user and, when /etc/passwd knows it, its login name.
fn find_user(passwd: &str, wanted: &str) -> Result<(Identity, Option<String>)> {
    let number = number_of(wanted);
    let matches = |entry: &User<'_>| match wanted {
        "" => entry.uid == 0,
        _ => entry.name == wanted || number == Some(u64::from(entry.uid)),
    };
    if let Some(entry) = users(passwd).find(matches) {
        let home = if entry.home.is_empty() {
            "/"
        } else {
            entry.home
        };
        let identity = Identity {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: home.to_owned(),
        };
        return Ok((identity, Some(entry.name.to_owned())));
    }
    let uid = match (wanted, number) {
        ("", _) => 0,
        (_, Some(number)) => in_range(number)?,
        (_, None) => {
            return Err(Error::invalid(format!(
                "unable to find user {wanted}: no matching entries in passwd file"
            )));
        }
    };
    Ok((
        Identity {
            uid,
            home: "/".to_owned(),
            ..Default::default()
        },
        None,
    ))
}

fn find_group(group: &str, wanted: &str) -> Result<u32> {
    let number = number_of(wanted);
    let found =
        groups(group).find(|entry| entry.name == wanted || number == Some(u64::from(entry.gid)));
    match (found, number) {
        (Some(entry), _) => Ok(entry.gid),
        (None, Some(number)) => in_range(number),
        (None, None) => Err(Error::invalid(format!(
            "unable to find group {wanted}: no matching entries in group file"
        ))),
    }
}

fn number_of(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn in_range(number: u64) -> Result<u32> {
    match u32::try_from(number) {
        Ok(id) if id <= MAX_ID => Ok(id),
        _ => Err(Error::invalid(format!(
            "uids and gids must be in range 0-{MAX_ID}"
        ))),
    }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Lines of `name:password:uid:gid:gecos:home:shell`; broken ones are skipped.
fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(User {
            name,
            uid,
            gid,
            home,
        })
    })
}

/// Lines of `name:password:gid:member,member`.
fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io};

    #[derive(Debug)]
    struct Files(tempfile::TempDir);

    impl RootfsView for Files {
        fn open(&self, path: &Path) -> io::Result<Option<File>> {
            Ok(File::open(self.0.path().join(path.file_name().unwrap())).ok())
        }
    }

    fn files() -> Files {
        let dir = tempfile::tempdir().unwrap();
        let passwd = "# c\nroot:x:0:0:root:/root:/bin/sh\nbroken:x\nbob:x:1000:1001::/home/bob:\nnum:x:7:8:::\n4242:x:9:9::/n:\n";
        std::fs::write(dir.path().join("passwd"), passwd).unwrap();
        std::fs::write(
            dir.path().join("group"),
            "root:x:0:root\nwheel:x:10:root,bob\nbobs:x:1001:\naudio:x:29:bob\n",
        )
        .unwrap();
        Files(dir)
    }

    fn get(user: &str) -> Identity {
        resolve_user(&files(), user, &[]).unwrap()
    }

    fn ids(user: &str) -> (u32, u32, Vec<u32>) {
        let identity = get(user);
        (identity.uid, identity.gid, identity.groups)
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(ids(""), (0, 0, vec![0, 10]));
        assert_eq!(ids("bob"), (1000, 1001, vec![1001, 10, 29]));
        assert_eq!(ids("1000"), (1000, 1001, vec![1001, 10, 29]));
        assert_eq!(ids("bob:wheel"), (1000, 10, vec![10]));
        assert_eq!(ids("bob:77"), (1000, 77, vec![77]));
        assert_eq!(ids("5555"), (5555, 0, vec![0]));
        assert_eq!(ids("5555:6666"), (5555, 6666, vec![6666]));
        assert_eq!(ids("4242"), (9, 9, vec![9]));
        assert_eq!(get("bob").home, "/home/bob");
        assert_eq!(get("num").home, "/");
        assert_eq!(get("5555").home, "/");
    }

    #[test]
    fn further_groups() {
        let add = ["audio".to_owned(), "4711".to_owned(), "0".to_owned()];
        assert_eq!(
            resolve_user(&files(), "root", &add).unwrap().groups,
            [0, 10, 29, 4711]
        );
        let error = resolve_user(&files(), "", &["nope".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to find group nope: no matching entries in group file"
        );
    }

    #[test]
    fn unknown_and_out_of_range() {
        let text = |user: &str| resolve_user(&files(), user, &[]).unwrap_err().to_string();
        assert_eq!(
            text("foo"),
            "unable to find user foo: no matching entries in passwd file"
        );
        assert_eq!(
            text("bob:foo"),
            "unable to find group foo: no matching entries in group file"
        );
        assert_eq!(
            text("-1"),
            "unable to find user -1: no matching entries in passwd file"
        );
        assert_eq!(
            text("2147483648"),
            "uids and gids must be in range 0-2147483647"
        );
        assert_eq!(
            text("0:99999999999999999999999"),
            "uids and gids must be in range 0-2147483647"
        );
    }

    #[test]
    fn an_image_without_files_has_root_and_numbers() {
        let empty = Files(tempfile::tempdir().unwrap());
        assert_eq!(resolve_user(&empty, "", &[]).unwrap().groups, [0]);
        assert_eq!(resolve_user(&empty, "12:13", &[]).unwrap().uid, 12);
        assert!(resolve_user(&empty, "root", &[]).is_err());
    }
}
