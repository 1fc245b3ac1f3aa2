//! From the mounts that a container asks for to those that it gets: other
//! containers' volumes join in, volumes get their names, images their views.
//! Nothing is made here.

use davit_images::{Operation, image::Resolved};
use davit_store::{
    Tx,
    options::{ContainerOptions, Mount},
    table::{Intents, VolumeRecord, Volumes, container::ContainerMount},
};

use super::{ANONYMOUS, LOCAL, create, list, name, points, remove, state::Hold};
use crate::{
    Error, Kind, Result, names,
    shared::Shared,
    spec::{self, PlannedMount, PlannedSource},
};

/// What a container's mounts come to.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The mounts, for the record.
    pub(crate) mounts: Vec<ContainerMount>,
    /// Volumes that are to be made.
    pub(super) make: Vec<VolumeRecord>,
    /// Keys of the views that are to be made, with their images.
    pub(crate) views: Vec<(String, Resolved)>,
    /// Keep the volumes from being removed until the container is stored.
    holds: Vec<Hold>,
}

/// Settles the mounts of the container `id`.
///
/// # Errors
/// `NotFound` for containers, images and volumes that are not there and not
/// made on the way, `Conflict` for a volume of another driver.
pub(crate) async fn settle(
    shared: &Shared,
    (ns, id): (&str, &str),
    op: &Operation,
    options: &ContainerOptions,
    planned: Vec<PlannedMount>,
    warnings: &mut Vec<String>,
) -> Result<Settled> {
    let inherited = inherited(shared, ns, &options.volumes_from)?;
    let mut settled = Settled::default();
    for mount in join(planned, inherited) {
        let mut point = points::record(&mount);
        match &mount.source {
            PlannedSource::Bind { .. } | PlannedSource::Tmpfs => {}
            PlannedSource::Volume { name, request } => {
                let driver = first(&request.volume_driver, &options.volume_driver);
                let volume = Wanted {
                    shared,
                    ns,
                    id,
                    driver,
                    request,
                };
                match name {
                    Some(name) => {
                        volume
                            .named(name, &mut settled, &mut point, warnings)
                            .await?
                    }
                    None => volume.anonymous(&mut settled, &mut point),
                }
            }
            PlannedSource::Image { request } => {
                let found = shared.images.resolve(ns, &request.source, None).await;
                let image = found.map_err(|error| match error.kind() {
                    // Not NotFound: clients would pull the container's image.
                    Kind::NotFound => Error::precondition(format!(
                        "cannot mount image {} at {}: it is not here; pull it first",
                        request.source, mount.target
                    )),
                    _ => error,
                })?;
                op.hold(davit_images::Resource::Blob(davit_images::Digest::parse(
                    &image.manifest.digest,
                )?));
                point.image_id.clone_from(&image.image_id);
                point.snapshot_key = format!("{id}-image-{}", settled.views.len());
                settled.views.push((point.snapshot_key.clone(), image));
            }
        }
        settled.mounts.push(point);
    }
    Ok(settled)
}

/// Within the transaction that stores a container: its volumes are all there
/// and nobody is removing one.
pub(crate) fn still_there(tx: &Tx<'_>, ns: &str, mounts: &[ContainerMount]) -> Result<()> {
    for name in mounts
        .iter()
        .map(|mount| mount.volume.as_str())
        .filter(|name| !name.is_empty())
    {
        let going = tx.contains::<Intents>(&remove::intent_id(ns, name))?;
        if going || !tx.contains::<Volumes>((ns, name))? {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "volume {name} was removed while a container with it was being made; try again"
                ),
            ));
        }
    }
    Ok(())
}

fn first(own: &str, inherited: &str) -> String {
    let driver = if own.is_empty() { inherited } else { own };
    driver.to_owned()
}

/// A volume that a container asks for.
struct Wanted<'a> {
    shared: &'a Shared,
    ns: &'a str,
    id: &'a str,
    driver: String,
    request: &'a Mount,
}

impl Wanted<'_> {
    async fn named(
        &self,
        name: &str,
        settled: &mut Settled,
        point: &mut ContainerMount,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let Self {
            shared,
            ns,
            id,
            request,
            ..
        } = *self;
        point.volume = name.to_owned();
        settled
            .holds
            .push(shared.volumes.hold((ns.to_owned(), name.to_owned()), id));
        if let Some(there) = settled.make.iter().find(|new| new.name == name) {
            point.driver.clone_from(&there.driver);
            return Ok(());
        }
        if let Some(found) = shared.store.get::<Volumes>((ns, name))? {
            if !self.driver.is_empty() {
                create::same_driver(&found, &self.driver)?;
            }
            // A container that takes another one's anonymous volume does not own it
            // more than that one: it goes with the last of them.
            point.anonymous = point.anonymous && super::is_anonymous(&found);
            point.driver = found.driver;
            return Ok(());
        }
        if self.driver.is_empty()
            && let Some(known) = list::find_elsewhere(shared, name).await
        {
            point.driver.clone_from(&known.driver);
            settled.make.push(known);
            return Ok(());
        }
        let near = near(shared, ns, name)?;
        if request.must_exist || !shared.volumes.config.auto_create {
            return Err(refusal(name, near.as_deref(), request.must_exist));
        }
        warnings.push(match near {
            Some(near) => format!("created new volume `{name}`; did you mean `{near}`?"),
            None => format!("created new volume `{name}`"),
        });
        self.make(name.to_owned(), settled, point);
        Ok(())
    }

    fn anonymous(&self, settled: &mut Settled, point: &mut ContainerMount) {
        point.anonymous = true;
        self.make(names::new_id(), settled, point);
        if let Some(new) = settled.make.last_mut() {
            new.labels.insert(ANONYMOUS.to_owned(), String::new());
        }
    }

    fn make(&self, name: String, settled: &mut Settled, point: &mut ContainerMount) {
        let driver = first(&self.driver, LOCAL);
        point.volume.clone_from(&name);
        point.driver.clone_from(&driver);
        settled.holds.push(
            self.shared
                .volumes
                .hold((self.ns.to_owned(), name.clone()), self.id),
        );
        settled.make.push(VolumeRecord {
            name,
            driver,
            labels: self.request.volume_labels.clone(),
            options: self.request.volume_options.clone(),
            ..Default::default()
        });
    }
}

/// The volume that may have been meant.
fn near(shared: &Shared, ns: &str, name: &str) -> Result<Option<String>> {
    let all = shared.store.scan::<Volumes>(ns)?;
    let named = all
        .iter()
        .filter(|(_, record)| !super::is_anonymous(record));
    Ok(name::closest(name, named.map(|((_, name), _)| name.as_str())).map(str::to_owned))
}

fn refusal(name: &str, near: Option<&str>, asked: bool) -> Error {
    let why = if asked {
        "the mount says that it must exist"
    } else {
        "volumes.auto_create is off"
    };
    let hint = near
        .map(|near| format!("did you mean `{near}`? "))
        .unwrap_or_default();
    Error::not_found(format!(
        "no such volume: `{name}`; {hint}It is not made on the way, since {why}: make it with `davit volume create {name}`"
    ))
}

/// The mounts of other containers: "<container>[:ro|rw]".
fn inherited(shared: &Shared, ns: &str, from: &[String]) -> Result<Vec<PlannedMount>> {
    let mut all: Vec<PlannedMount> = Vec::new();
    for spec in from {
        let (container, mode) = spec.split_once(':').unwrap_or((spec, ""));
        if container.is_empty() {
            return Err(Error::invalid(format!(
                "invalid volumes-from specification: '{spec}'; give a container[:ro|rw]"
            )));
        }
        if !mode
            .split(',')
            .all(|word| matches!(word, "" | "ro" | "rw" | "z" | "Z"))
        {
            return Err(Error::invalid(format!(
                "invalid mode for volumes-from: {mode}"
            )));
        }
        let read_only = mode.split(',').any(|word| word == "ro");
        let donor = shared.index.find(ns, container)?.now();
        for mut mount in points::planned(shared, &donor.record)? {
            if matches!(mount.source, PlannedSource::Tmpfs) {
                continue;
            }
            mount.read_only |= read_only;
            // Of several donors the last one counts.
            all.retain(|other| other.target != mount.target);
            all.push(mount);
        }
    }
    Ok(all)
}

/// What the caller mounts comes before what others have, and that before
/// volumes that nobody asked for.
fn join(planned: Vec<PlannedMount>, mut inherited: Vec<PlannedMount>) -> Vec<PlannedMount> {
    inherited.retain(|theirs| {
        !planned
            .iter()
            .any(|own| !own.implicit && own.target == theirs.target)
    });
    let mut all: Vec<PlannedMount> = planned
        .into_iter()
        .filter(|own| !inherited.iter().any(|theirs| theirs.target == own.target))
        .collect();
    all.append(&mut inherited);
    spec::sorted(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(target: &str, name: Option<&str>, implicit: bool) -> PlannedMount {
        PlannedMount {
            target: target.to_owned(),
            source: PlannedSource::Volume {
                name: name.map(str::to_owned),
                request: Box::default(),
            },
            read_only: false,
            propagation: String::new(),
            mode: String::new(),
            non_recursive: false,
            options: Vec::new(),
            implicit,
        }
    }

    #[test]
    fn who_comes_first_at_a_place() {
        let own = vec![
            mount("/a", Some("own"), false),
            mount("/b", None, true),
            mount("/c", None, true),
        ];
        let theirs = vec![
            mount("/a", Some("theirs"), false),
            mount("/b", Some("theirs"), false),
        ];
        let names: Vec<_> = join(own, theirs)
            .into_iter()
            .map(|mount| match mount.source {
                PlannedSource::Volume { name, .. } => (mount.target, name.unwrap_or_default()),
                _ => unreachable!("volumes only"),
            })
            .collect();
        let expected = [("/a", "own"), ("/c", ""), ("/b", "theirs")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(names, expected);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let text = refusal("web_volum", Some("web_volume"), false).to_string();
        assert!(
            text.contains("did you mean `web_volume`?")
                && text.contains("davit volume create web_volum"),
            "{text}"
        );
    }
}
