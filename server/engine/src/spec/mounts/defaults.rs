//! The whole list for the spec: docker's default mounts, the generated files
//! in /etc, and what the caller asks for, which goes before both.

use std::path::Path;

use davit_store::{Error, Result, options::ContainerOptions};
use oci_spec::runtime::{Mount, MountBuilder};

use super::{PlannedMount, PlannedSource, bind::prepare_source, host_path};
use crate::spec::{Defaults, NamespaceKind, Plan, Start};

/// Bytes of /dev/shm when nobody says.
const SHM_SIZE: i64 = 64 << 20;

/// Where the init binary appears in the container; docker's path.
pub(in super::super) const INIT_TARGET: &str = "/sbin/docker-init";

/// The mounts of the spec, in the order in which they are made.
pub(in super::super) fn assemble(
    options: &ContainerOptions,
    plan: &Plan,
    start: &Start<'_>,
    defaults: &Defaults,
) -> Result<Vec<Mount>> {
    let taken = |target: &str| plan.mounts.iter().any(|mount| mount.target == target);
    let dev_taken = taken("/dev");
    let mut list = Vec::new();
    for one in system(options, plan, start.shm) {
        let below_taken = dev_taken && one.target.starts_with("/dev/");
        if !(taken(one.target) || below_taken) {
            list.push(one.build()?);
        }
    }
    for (index, mount) in plan.mounts.iter().enumerate() {
        prepare_source(mount)?;
        list.push(of_caller(
            mount,
            index,
            start,
            defaults.recursive_read_only,
        )?);
    }
    for (target, source) in start.etc.mounts() {
        if !taken(target) {
            let options = ["rbind", "rprivate"]
                .into_iter()
                .chain(options.read_only.then_some("ro"));
            list.push(build(
                target,
                "bind",
                source,
                options.map(str::to_owned).collect(),
            )?);
        }
    }
    if options.init {
        let init = defaults.init.as_deref();
        let init = init.ok_or_else(|| {
            Error::precondition("the daemon has no init binary: start the container without init")
        })?;
        let flags = ["bind", "ro", "nosuid", "nodev"]
            .map(str::to_owned)
            .to_vec();
        list.push(build(INIT_TARGET, "bind", init, flags)?);
    }
    Ok(list)
}

/// One of docker's default mounts.
struct System<'a> {
    target: &'static str,
    kind: &'static str,
    source: &'a Path,
    options: Vec<String>,
}

impl System<'_> {
    fn build(self) -> Result<Mount> {
        build(self.target, self.kind, self.source, self.options)
    }
}

fn system<'a>(options: &ContainerOptions, plan: &Plan, shm: Option<&'a Path>) -> Vec<System<'a>> {
    let new = |target, kind: &'static str, flags: &str| System {
        target,
        kind,
        source: Path::new(kind),
        options: flags.split(',').map(str::to_owned).collect(),
    };
    // A privileged container manages the host's devices and cgroups.
    let access = if options.privileged && !options.read_only {
        "rw"
    } else {
        "ro"
    };
    let cgroup_access = if options.privileged { "rw" } else { "ro" };
    let mut list = vec![
        new("/proc", "proc", "nosuid,noexec,nodev"),
        new("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        new(
            "/dev/pts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        new("/sys", "sysfs", &format!("nosuid,noexec,nodev,{access}")),
        new(
            "/sys/fs/cgroup",
            "cgroup",
            &format!("{cgroup_access},nosuid,noexec,nodev"),
        ),
    ];
    let host_ipc = plan.shared.host.contains(&NamespaceKind::Ipc);
    let bound = |target, source: &'a Path| System {
        target,
        kind: "bind",
        source,
        options: ["rbind", "nosuid", "noexec", "nodev"]
            .map(str::to_owned)
            .to_vec(),
    };
    // Shows the queues of whatever IPC namespace the container is in.
    list.push(new("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"));
    if host_ipc {
        list.push(bound("/dev/shm", Path::new("/dev/shm")));
    } else if let Some(shm) = shm {
        list.push(bound("/dev/shm", shm));
    } else if !plan.shared.no_shm {
        let size = if options.shm_size == 0 {
            SHM_SIZE
        } else {
            options.shm_size
        };
        let mut one = new(
            "/dev/shm",
            "tmpfs",
            &format!("nosuid,noexec,nodev,mode=1777,size={size}"),
        );
        one.source = Path::new("shm");
        list.push(one);
    }
    list
}

fn of_caller(
    mount: &PlannedMount,
    index: usize,
    start: &Start<'_>,
    recursive_read_only: bool,
) -> Result<Mount> {
    if mount.source == PlannedSource::Tmpfs {
        return build(
            &mount.target,
            "tmpfs",
            Path::new("tmpfs"),
            mount.options.clone(),
        );
    }
    let mut flags = vec![if mount.non_recursive { "bind" } else { "rbind" }.to_owned()];
    if mount.read_only {
        flags.push("ro".to_owned());
        if recursive_read_only && !mount.non_recursive {
            flags.push("rro".to_owned());
        }
    }
    let propagation = if mount.propagation.is_empty() {
        "rprivate"
    } else {
        &mount.propagation
    };
    flags.push(propagation.to_owned());
    flags.extend(mount.options.iter().cloned());
    build(
        &mount.target,
        "bind",
        host_path(mount, index, start.sources)?,
        flags,
    )
}

fn build(target: &str, kind: &str, source: &Path, options: Vec<String>) -> Result<Mount> {
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options)
        .build()
        .map_err(|error| {
            Error::internal(format!("making the mount entry of {target}")).with_source(error)
        })
}
