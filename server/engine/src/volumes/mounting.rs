//! What must be mounted on the host before a container can start, and taken
//! off when it has ended: volumes of plugins and with a device, parts of
//! volumes, images. One intent a container says that there may be some of it.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use davit_store::table::{
    IntentRecord, Intents, VolumeRecord, Volumes,
    container::{ContainerMount, ContainerRecord},
};
use davit_sys::mount::{self, Mount, Placed};
use jiff::Timestamp;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

use super::{LOCAL, blocking, is_plain, local, place, points};
use crate::{
    Error, Kind, Result, create,
    shared::Shared,
    spec::{PlannedMount, PlannedSource},
};

/// Kind of the intent to mount for a container.
pub(super) const INTENT: &str = "volume.mount";

/// Tries of a lookup that a rename somewhere above raced with.
const TRIES: usize = 64;

pub(super) fn intent_id(ns: &str, container: &str) -> String {
    format!("{INTENT}/{ns}/{container}")
}

/// A container's mounts, ready to be mounted by a runtime.
#[derive(Debug, Default)]
pub(crate) struct Acquired {
    pub(crate) mounts: Vec<PlannedMount>,
    /// Directories of volumes and images, by index in `mounts`.
    pub(crate) sources: BTreeMap<usize, PathBuf>,
}

impl Acquired {
    /// What lies in the container's tree; memory is empty until it runs.
    pub(crate) fn placed(&self) -> Vec<Placed> {
        let place = |(index, mount): (usize, &PlannedMount)| {
            let source = match (&mount.source, self.sources.get(&index)) {
                (PlannedSource::Bind { path, .. }, _) => path.clone(),
                (_, Some(source)) => source.clone(),
                (_, None) => return None,
            };
            Some(Placed {
                source,
                place: mount.target.clone().into(),
                read_only: mount.read_only,
            })
        };
        self.mounts.iter().enumerate().filter_map(place).collect()
    }
}

/// Makes everything ready that a container mounts; what was done is taken back
/// when a part of it fails.
pub(crate) async fn acquire(
    shared: &Shared,
    ns: &str,
    record: &ContainerRecord,
) -> Result<Acquired> {
    let mut acquired = Acquired {
        mounts: points::planned(shared, record)?,
        ..Default::default()
    };
    let mounts = record
        .details
        .as_deref()
        .map(|details| details.mounts.as_slice())
        .unwrap_or_default();
    if mounts
        .iter()
        .all(|mount| matches!(mount.kind.as_str(), "bind" | "tmpfs"))
    {
        return Ok(acquired);
    }
    match sources(shared, ns, &record.id, mounts).await {
        Ok(sources) => {
            acquired.sources = sources;
            Ok(acquired)
        }
        Err(error) => {
            release(shared, ns, &record.id).await;
            Err(error)
        }
    }
}

async fn sources(
    shared: &Shared,
    ns: &str,
    id: &str,
    mounts: &[ContainerMount],
) -> Result<BTreeMap<usize, PathBuf>> {
    let volumes = records(shared, ns, mounts)?;
    let with_effect = |mount: &ContainerMount| {
        mount.kind == "image"
            || !mount.subpath.is_empty()
            || volumes
                .get(&mount.volume)
                .is_some_and(|volume| !is_plain(volume))
    };
    if mounts.iter().any(with_effect) {
        intend(shared, ns, id, &volumes).await?;
    }
    let mut sources = BTreeMap::new();
    let mut whole: BTreeMap<&str, PathBuf> = BTreeMap::new();
    for (index, mount) in mounts.iter().enumerate() {
        let spot = place::mounts(&shared.config.state, ns, id).join(index.to_string());
        let source = match mount.kind.as_str() {
            "volume" => {
                // A plugin counts one mount for each container.
                let root = match (whole.get(mount.volume.as_str()), volumes.get(&mount.volume)) {
                    (Some(root), _) => root.clone(),
                    (None, Some(volume)) => mount_volume(shared, ns, id, volume).await?,
                    (None, None) => continue,
                };
                whole.insert(&mount.volume, root.clone());
                if mount.subpath.is_empty() {
                    root
                } else {
                    part(
                        mount.volume.clone(),
                        root,
                        mount.subpath.clone(),
                        spot,
                        within(shared),
                    )
                    .await?
                }
            }
            "image" => {
                view(shared, ns, id, mount).await?;
                image(shared, ns, mount, spot).await?
            }
            _ => continue,
        };
        sources.insert(index, source);
    }
    fail::fail_point!("engine.volume.mount.after-mounts");
    Ok(sources)
}

fn within(shared: &Shared) -> std::time::Duration {
    shared.volumes.config.timeout
}

/// The records of the volumes that `mounts` have.
fn records(
    shared: &Shared,
    ns: &str,
    mounts: &[ContainerMount],
) -> Result<BTreeMap<String, VolumeRecord>> {
    let names = mounts
        .iter()
        .map(|mount| mount.volume.as_str())
        .filter(|name| !name.is_empty());
    names
        .map(|name| {
            let record = shared.store.get::<Volumes>((ns, name))?.ok_or_else(|| {
                Error::new(
                    Kind::FailedPrecondition,
                    format!(
                        "volume {name} is gone; make it again with `davit volume create {name}`"
                    ),
                )
            })?;
            Ok((name.to_owned(), record))
        })
        .collect()
}

/// Records what is about to be mounted; the volumes by name and driver, since
/// taking them off must not depend on the container's record.
pub(super) async fn intend(
    shared: &Shared,
    ns: &str,
    id: &str,
    volumes: &BTreeMap<String, VolumeRecord>,
) -> Result<()> {
    let key = intent_id(ns, id);
    let data = volumes.values().filter(|volume| !is_plain(volume));
    let intent = IntentRecord {
        id: key.clone(),
        namespace: ns.to_owned(),
        kind: INTENT.to_owned(),
        object: id.to_owned(),
        data: data
            .map(|volume| (volume.name.clone(), volume.driver.clone()))
            .collect(),
        at: Timestamp::now(),
    };
    shared
        .store
        .transaction(|tx| tx.put::<Intents>(&key, &intent))?;
    shared.store.written().await?;
    fail::fail_point!("engine.volume.mount.after-intent");
    Ok(())
}

/// Gives a volume's directory, mounted if it has to be.
pub(super) async fn mount_volume(
    shared: &Shared,
    ns: &str,
    id: &str,
    volume: &VolumeRecord,
) -> Result<PathBuf> {
    if volume.driver != LOCAL {
        let mounted = async {
            shared
                .volumes
                .plugins
                .get(&volume.driver)
                .await?
                .mount(&volume.name, id)
                .await
        };
        return mounted.await.map(PathBuf::from).map_err(|error| {
            // The container that was asked for is there.
            let kind = if error.kind() == Kind::NotFound {
                Kind::FailedPrecondition
            } else {
                error.kind()
            };
            Error::new(
                kind,
                format!("cannot mount volume {}: {error}", volume.name),
            )
            .with_source(error)
        });
    }
    let data = place::data(&shared.config.root, ns, &volume.name);
    if is_plain(volume) {
        return match tokio::fs::metadata(&data).await {
            Ok(_) => Ok(data),
            Err(error) => Err(Error::new(
                Kind::FailedPrecondition,
                format!(
                    "the data of volume {} is not at {}; bring it back, or remove the volume",
                    volume.name,
                    data.display()
                ),
            )
            .with_source(error)),
        };
    }
    let key = (ns.to_owned(), volume.name.clone());
    let turn = shared.volumes.turn(&key).await?;
    shared.volumes.used(&key, id);
    let (name, options, spot) = (volume.name.clone(), volume.options.clone(), data.clone());
    let abandoned = Arc::new(AtomicBool::new(false));
    let given_up = Arc::clone(&abandoned);
    let work = blocking(move || {
        // The turn ends with the mount, even when nobody waits any more.
        let _turn = turn;
        local::mount(&name, &options, &spot)?;
        if given_up.load(Ordering::Acquire) {
            local::unmount(&spot)
        } else {
            Ok(())
        }
    });
    match tokio::time::timeout(within(shared), work).await {
        Ok(Ok(())) => Ok(data),
        failed => {
            if shared.volumes.unused(&key, id) {
                abandoned.store(true, Ordering::Release);
            }
            match failed {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) | Err(_) => Err(Error::new(
                    Kind::DeadlineExceeded,
                    format!(
                        "mounting volume {} did not end within {:?}; is its server up?",
                        volume.name,
                        within(shared)
                    ),
                )),
            }
        }
    }
}

/// Binds a part of a volume on `spot`. The part is opened beneath the volume's
/// root, so links in the volume lead nowhere else, and what is bound is what
/// was opened, whatever a container does meanwhile.
async fn part(
    volume: String,
    root: PathBuf,
    subpath: String,
    spot: PathBuf,
    within: std::time::Duration,
) -> Result<PathBuf> {
    let work = blocking(move || {
        let what = || format!("cannot mount {subpath:?} of volume {volume}");
        let opened = open_root(&root)
            .and_then(|root| open_beneath(&root, &subpath))
            .map_err(|error| refuse(what(), error))?;
        bind(&opened, &spot).map_err(|error| error.context(what()))?;
        Ok(spot)
    });
    tokio::time::timeout(within, work).await.map_err(|_| {
        Error::new(
            Kind::DeadlineExceeded,
            format!("a volume did not answer within {within:?}"),
        )
    })?
}

/// Makes the view of an image again when it is gone: a store that was rebuilt
/// from the disk knows no views.
async fn view(shared: &Shared, ns: &str, id: &str, point: &ContainerMount) -> Result<()> {
    let snapshots = shared.images.snapshots(&shared.config.snapshotter)?;
    if snapshots.contains(ns, &point.snapshot_key)? {
        return Ok(());
    }
    let op = shared.images.leases().operation(ns);
    let image = shared.images.resolve(ns, &point.image_id, None).await?;
    let parent = shared.images.unpack(&op, &image).await?;
    let labels = [(create::LABEL.to_owned(), id.to_owned())].into();
    snapshots
        .view(&op, &point.snapshot_key, &parent, labels)
        .await
        .map(drop)
}

/// Shows an image's files, or a part of them, on `spot`.
async fn image(
    shared: &Shared,
    ns: &str,
    point: &ContainerMount,
    spot: PathBuf,
) -> Result<PathBuf> {
    let snapshots = shared.images.snapshots(&shared.config.snapshotter)?;
    let mounts = snapshots.mounts(ns, &point.snapshot_key)?;
    let (image, subpath) = (point.source.clone(), point.subpath.clone());
    blocking(move || {
        let what = || format!("cannot mount image {image}");
        let whole = if subpath.is_empty() {
            spot.clone()
        } else {
            spot.with_extension("all")
        };
        make_directory(&whole)?;
        mount::attach(&mounts, &whole).map_err(|error| Error::io(what(), error.into_io()))?;
        if subpath.is_empty() {
            return Ok(spot);
        }
        let opened = open_root(&whole)
            .and_then(|root| open_beneath(&root, &subpath))
            .map_err(|error| refuse(format!("{} at {subpath:?}", what()), error))?;
        bind(&opened, &spot).map_err(|error| error.context(what()))?;
        Ok(spot)
    })
    .await
}

fn refuse(what: String, error: std::io::Error) -> Error {
    let kind = match Errno::from_io_error(&error) {
        Some(
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::XDEV
            | Errno::INVAL
            | Errno::NAMETOOLONG,
        ) => Kind::InvalidArgument,
        _ => Kind::Internal,
    };
    Error::new(kind, what).with_source(error)
}

fn open_root(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn open_beneath(root: &OwnedFd, path: &str) -> std::io::Result<OwnedFd> {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    for _ in 0..TRIES {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(
            root,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return Ok(opened?),
        }
    }
    Err(Errno::AGAIN.into())
}

fn make_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|error| Error::io(format!("cannot make {}", path.display()), error))
}

/// Binds an open file or directory on `spot`, which is made to fit.
fn bind(opened: &OwnedFd, spot: &Path) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::io(format!("binding it on {}", spot.display()), error);
    let stat = rustix::fs::fstat(opened.as_fd()).map_err(|error| failed(error.into()))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        make_directory(spot)?;
    } else {
        if let Some(dir) = spot.parent() {
            make_directory(dir)?;
        }
        std::fs::File::create(spot).map_err(failed)?;
    }
    let one = Mount {
        kind: "bind".to_owned(),
        source: format!("/proc/self/fd/{}", opened.as_raw_fd()),
        options: vec!["rbind".to_owned()],
        ..Default::default()
    };
    mount::attach(std::slice::from_ref(&one), spot).map_err(|error| failed(error.into_io()))
}

/// Takes off what [`acquire`] mounted for a container. What does not go off now
/// is tried again at the next start of the daemon.
pub(crate) async fn release(shared: &Shared, ns: &str, id: &str) {
    let key = intent_id(ns, id);
    let intent = match shared.store.get::<Intents>(&key) {
        Ok(Some(intent)) => intent,
        Ok(None) => return,
        Err(error) => {
            tracing::error!(container = id, error = %error.chain(), "cannot read what is mounted for it");
            return;
        }
    };
    let mut clean = true;
    if let Err(error) = clear_spots(&shared.config.state, ns, id).await {
        tracing::warn!(container = id, error = %error.chain(), "a mount of a container is left");
        clean = false;
    }
    for (volume, driver) in &intent.data {
        if let Err(error) = unmount_volume(shared, ns, id, volume, driver).await {
            tracing::warn!(container = id, volume, error = %error.chain(), "a volume is not unmounted");
            // A plugin that says no will say so again.
            clean &= error.kind() == Kind::Internal;
        }
    }
    fail::fail_point!("engine.volume.mount.after-unmounts");
    if clean
        && let Err(error) = shared
            .store
            .transaction(|tx| tx.delete::<Intents>(&key).map(drop))
    {
        tracing::error!(container = id, error = %error.chain(), "cannot record that its mounts are gone");
    }
}

async fn unmount_volume(
    shared: &Shared,
    ns: &str,
    id: &str,
    volume: &str,
    driver: &str,
) -> Result<()> {
    if driver != LOCAL {
        return shared
            .volumes
            .plugins
            .get(driver)
            .await?
            .unmount(volume, id)
            .await;
    }
    let key = (ns.to_owned(), volume.to_owned());
    let turn = shared.volumes.turn(&key).await?;
    if !shared.volumes.unused(&key, id) {
        return Ok(());
    }
    let data = place::data(&shared.config.root, ns, volume);
    let work = blocking(move || {
        let _turn = turn;
        local::unmount(&data)
    });
    tokio::time::timeout(within(shared), work)
        .await
        .map_err(|_| {
            Error::new(
                Kind::DeadlineExceeded,
                format!("unmounting did not end within {:?}", within(shared)),
            )
        })?
}

/// Detaches a container's own places and removes them. Never with what is in
/// them: a place that is still mounted is somebody's data.
async fn clear_spots(state: &Path, ns: &str, id: &str) -> Result<()> {
    let dir = place::mounts(state, ns, id);
    blocking(move || {
        let failed =
            |path: &Path, error| Error::io(format!("cannot remove {}", path.display()), error);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(&dir, error)),
        };
        let mut spots: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        // A part before the whole that it is of.
        spots.sort();
        for spot in spots {
            mount::detach(&spot).map_err(|error| failed(&spot, error.into_io()))?;
            let removed = match spot.is_dir() {
                true => std::fs::remove_dir(&spot),
                false => std::fs::remove_file(&spot),
            };
            removed.map_err(|error| failed(&spot, error))?;
        }
        std::fs::remove_dir(&dir).map_err(|error| failed(&dir, error))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subpath_stays_in_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("v"), dir.path().join("outside"));
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("escape")).unwrap();
        std::os::unix::fs::symlink("/a", volume.join("inside")).unwrap();
        let root = open_root(&volume).unwrap();
        let opened = |path: &str| {
            let fd = open_beneath(&root, path)?;
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        };
        assert_eq!(opened("a/b").unwrap(), volume.join("a/b"));
        assert_eq!(opened("/inside/b").unwrap(), volume.join("a/b"));
        assert_eq!(opened("../../a").unwrap(), volume.join("a"));
        assert!(opened("escape").is_err());
        assert!(opened("nothing").is_err());
    }
}
