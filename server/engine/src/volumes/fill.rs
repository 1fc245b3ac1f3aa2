//! A new volume over files of the image gets those files, with owners, modes
//! and xattrs. They are gathered beside the data and then moved in, and an
//! intent says which of the two was under way, so that a crash leaves either
//! an empty volume or, after the next start, a full one.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use davit_store::table::{
    IntentRecord, Intents, VolumeRecord, Volumes,
    container::{ContainerMount, ContainerRecord},
};
use jiff::Timestamp;
use rustix::{
    fs::{Dir, Mode, OFlags, RenameFlags, ResolveFlags, openat2, renameat_with},
    io::Errno,
};

use super::{blocking, is_plain, mounting, place, remove};
use crate::{Error, Result, shared::Shared};

/// Kind of the intent to fill a volume.
pub(super) const INTENT: &str = "volume.fill";

/// Where files are gathered in a volume that is no plain directory of ours:
/// they must lie on its file system.
const INSIDE: &str = ".davit-filling";

fn intent_id(ns: &str, name: &str) -> String {
    format!("{INTENT}/{ns}/{name}")
}

/// Fills the empty volumes of a container that is being made, from its image.
///
/// # Errors
/// `InvalidArgument` when a volume is to be where the image has a file.
pub(crate) async fn fill(shared: &Shared, ns: &str, container: &ContainerRecord) -> Result<()> {
    let mounts = container
        .details
        .as_deref()
        .map(|details| details.mounts.as_slice())
        .unwrap_or_default();
    let wanted: Vec<&ContainerMount> = mounts
        .iter()
        .filter(|mount| !mount.volume.is_empty() && !mount.no_copy && mount.subpath.is_empty())
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let snapshots = shared.images.snapshots(&container.snapshotter)?;
    let tree = snapshots.open_tree(ns, &container.snapshot_key).await?;
    let mut mounted = false;
    let mut result = Ok(());
    for mount in wanted {
        result = fill_one(shared, (ns, &container.id), mount, &tree, &mut mounted).await;
        if result.is_err() {
            break;
        }
    }
    if mounted {
        mounting::release(shared, ns, &container.id).await;
    }
    result
}

async fn fill_one(
    shared: &Shared,
    (ns, id): (&str, &str),
    mount: &ContainerMount,
    tree: &OwnedFd,
    mounted: &mut bool,
) -> Result<()> {
    let failed =
        |error: io::Error| Error::io(format!("looking at {} of the image", mount.target), error);
    let (root, target) = (tree.try_clone().map_err(failed)?, mount.target.clone());
    let source = blocking(move || open_source(&root, &target)).await?;
    let Some(source) = source else { return Ok(()) };
    let Some(volume) = shared.store.get::<Volumes>((ns, mount.volume.as_str()))? else {
        return Ok(());
    };
    let (data, staging) = if is_plain(&volume) {
        let root = &shared.config.root;
        (
            place::data(root, ns, &volume.name),
            place::filling(root, ns, &volume.name),
        )
    } else {
        if !*mounted {
            let all = volumes(shared, ns, id)?;
            mounting::intend(shared, ns, id, &with(all, &volume)).await?;
            *mounted = true;
        } else {
            add_to_intent(shared, ns, id, &volume).await?;
        }
        let data = mounting::mount_volume(shared, ns, id, &volume).await?;
        (data.clone(), data.join(INSIDE))
    };
    fill_in_turn(shared, ns, &volume, source, Places { data, staging }).await
}

/// Where files go, and where they are gathered before.
#[derive(Debug, Clone)]
struct Places {
    data: PathBuf,
    staging: PathBuf,
}

async fn fill_in_turn(
    shared: &Shared,
    ns: &str,
    volume: &VolumeRecord,
    source: OwnedFd,
    places: Places,
) -> Result<()> {
    let _turn = shared
        .volumes
        .turn(&(ns.to_owned(), volume.name.clone()))
        .await?;
    let data = places.data.clone();
    if !blocking(move || is_empty(&data)).await? {
        return Ok(());
    }
    note(shared, ns, volume, &places, "gather").await?;
    fail::fail_point!("engine.volume.fill.after-intent");
    let gathering = places.clone();
    if let Err(error) = blocking(move || gather(&source, &gathering.staging)).await {
        undo(shared, ns, &volume.name, places.staging).await?;
        return Err(error.context(format!(
            "cannot copy the image's files into volume {}",
            volume.name
        )));
    }
    fail::fail_point!("engine.volume.fill.after-gather");
    note(shared, ns, volume, &places, "move").await?;
    finish(shared, ns, &volume.name, places).await
}

/// The directory of the image that a volume covers; None when there is none.
fn open_source(tree: &OwnedFd, target: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(
        tree,
        target.trim_start_matches('/'),
        flags,
        Mode::empty(),
        resolve,
    ) {
        Ok(source) => Ok(Some(source)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR) => Err(Error::invalid(format!(
            "cannot mount volume over existing file, file exists {target}"
        ))),
        Err(error) => Err(Error::io(
            format!("looking at {target} of the image"),
            error,
        )),
    }
}

fn is_empty(data: &Path) -> Result<bool> {
    let failed = |error| Error::io(format!("looking into {}", data.display()), error);
    for entry in fs::read_dir(data).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // mkfs makes the one, we the other.
        if name != "lost+found" && name != INSIDE {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn note(
    shared: &Shared,
    ns: &str,
    volume: &VolumeRecord,
    places: &Places,
    phase: &str,
) -> Result<()> {
    let id = intent_id(ns, &volume.name);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let intent = IntentRecord {
        id: id.clone(),
        namespace: ns.to_owned(),
        kind: INTENT.to_owned(),
        object: volume.name.clone(),
        data: [
            ("phase".to_owned(), phase.to_owned()),
            ("data".to_owned(), text(&places.data)),
            ("staging".to_owned(), text(&places.staging)),
        ]
        .into(),
        at: Timestamp::now(),
    };
    shared
        .store
        .transaction(|tx| tx.put::<Intents>(&id, &intent))?;
    // Files that are moved in must not look gathered when they are not: the
    // phase survives what the files survive.
    if phase == "move" {
        shared.store.durable().await
    } else {
        shared.store.written().await
    }
}

fn gather(source: &OwnedFd, staging: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::io(format!("filling {}", staging.display()), error);
    match fs::create_dir(staging) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_now(staging)
                .and_then(|()| fs::create_dir(staging))
                .map_err(failed)?;
        }
        made => made.map_err(failed)?,
    }
    let target = open_directory(staging).map_err(failed)?;
    davit_images::snapshots::copy_contents(source, &target).map_err(failed)?;
    if fs::read_dir(staging).map_err(failed)?.next().is_some() {
        rustix::fs::syncfs(&target).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// Moves what was gathered into the data. Done again after a crash, it goes on
/// where it was.
async fn finish(shared: &Shared, ns: &str, name: &str, places: Places) -> Result<()> {
    let volume = name.to_owned();
    blocking(move || {
        move_in(&places).map_err(|error| {
            Error::io(
                format!("moving the image's files into volume {volume}"),
                error,
            )
        })
    })
    .await?;
    shared
        .store
        .transaction(|tx| tx.delete::<Intents>(&intent_id(ns, name)).map(drop))
}

/// By open directories, never by paths: where files are gathered inside of a
/// volume, a container that has it may put a link in their place.
fn move_in(places: &Places) -> io::Result<()> {
    let from = match open_directory(&places.staging) {
        Ok(from) => from,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let to = open_directory(&places.data)?;
    // All names first: a directory that changes may not be read to its end.
    let names = Dir::read_from(&from)?
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .collect::<Result<Vec<CString>, Errno>>()?;
    for name in names {
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match renameat_with(&from, &name, &to, &name, RenameFlags::NOREPLACE) {
            // Somebody has written a file of that name meanwhile: it is newer.
            Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error.into()),
        }
        fail::fail_point!("engine.volume.fill.moving", |_| Err(io::Error::other(
            "failpoint"
        )));
    }
    davit_images::snapshots::take_after(from.as_fd(), to.as_fd())?;
    remove_now(&places.staging)
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn remove_now(dir: &Path) -> io::Result<()> {
    let (Some(top), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Ok(());
    };
    davit_images::tarball::remove_tree(open_directory(top)?.as_fd(), name.as_bytes())
}

async fn undo(shared: &Shared, ns: &str, name: &str, staging: PathBuf) -> Result<()> {
    remove::erase(staging).await?;
    shared
        .store
        .transaction(|tx| tx.delete::<Intents>(&intent_id(ns, name)).map(drop))
}

/// Ends a filling that the last daemon had begun.
pub(super) async fn recover(shared: &Shared, intent: &IntentRecord) -> Result<()> {
    let (ns, name) = (intent.namespace.as_str(), intent.object.as_str());
    let Some(volume) = shared.store.get::<Volumes>((ns, name))? else {
        return shared
            .store
            .transaction(|tx| tx.delete::<Intents>(&intent.id).map(drop));
    };
    let path = |key: &str| intent.data.get(key).map(PathBuf::from).unwrap_or_default();
    let mut places = Places {
        data: path("data"),
        staging: path("staging"),
    };
    let user = format!("fill-{name}");
    if !is_plain(&volume) {
        mounting::intend(shared, ns, &user, &with(BTreeMap::new(), &volume)).await?;
        places.data = mounting::mount_volume(shared, ns, &user, &volume).await?;
        places.staging = places.data.join(INSIDE);
    }
    // Slow ends go on when the daemon serves already.
    let turn = shared
        .volumes
        .turn(&(ns.to_owned(), name.to_owned()))
        .await?;
    let ended = if intent
        .data
        .get("phase")
        .is_some_and(|phase| phase == "move")
    {
        finish(shared, ns, name, places).await
    } else {
        undo(shared, ns, name, places.staging).await
    };
    drop(turn);
    mounting::release(shared, ns, &user).await;
    ended
}

fn with(
    mut all: BTreeMap<String, VolumeRecord>,
    volume: &VolumeRecord,
) -> BTreeMap<String, VolumeRecord> {
    all.insert(volume.name.clone(), volume.clone());
    all
}

/// The volumes that an open intent of the container names.
fn volumes(shared: &Shared, ns: &str, id: &str) -> Result<BTreeMap<String, VolumeRecord>> {
    let intent = shared
        .store
        .get::<Intents>(&mounting::intent_id(ns, id))?
        .unwrap_or_default();
    let mut found = BTreeMap::new();
    for name in intent.data.keys() {
        if let Some(volume) = shared.store.get::<Volumes>((ns, name.as_str()))? {
            found.insert(name.clone(), volume);
        }
    }
    Ok(found)
}

async fn add_to_intent(shared: &Shared, ns: &str, id: &str, volume: &VolumeRecord) -> Result<()> {
    let all = volumes(shared, ns, id)?;
    mounting::intend(shared, ns, id, &with(all, volume)).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn files_come_with_all_that_belongs_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::create_dir_all(image.join("data/sub")).unwrap();
        fs::write(image.join("data/sub/file"), "content").unwrap();
        fs::set_permissions(image.join("data"), fs::Permissions::from_mode(0o1750)).unwrap();
        std::os::unix::fs::chown(image.join("data"), Some(7), Some(8)).unwrap();
        std::os::unix::fs::symlink("/data", image.join("link")).unwrap();
        fs::write(image.join("file"), "").unwrap();
        let tree = open_directory(&image).unwrap();
        let places = Places {
            data: dir.path().join("v/_data"),
            staging: dir.path().join("v/.filling"),
        };
        fs::create_dir_all(&places.data).unwrap();

        assert!(open_source(&tree, "/none").unwrap().is_none());
        let error = open_source(&tree, "/file").unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot mount volume over existing file, file exists /file"
        );
        let source = open_source(&tree, "/link").unwrap().unwrap();
        assert!(is_empty(&places.data).unwrap());
        gather(&source, &places.staging).unwrap();
        // A half of it from an earlier try does not matter.
        gather(&source, &places.staging).unwrap();
        move_in(&places).unwrap();
        move_in(&places).unwrap();
        let metadata = fs::metadata(&places.data).unwrap();
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
            (0o1750, 7, 8)
        );
        assert_eq!(
            fs::read_to_string(places.data.join("sub/file")).unwrap(),
            "content"
        );
        assert!(!places.staging.exists() && !is_empty(&places.data).unwrap());
        // A link where files were gathered leads nowhere.
        std::os::unix::fs::symlink(&image, &places.staging).unwrap();
        assert!(move_in(&places).is_err());
        assert!(image.join("file").exists());
    }
}
