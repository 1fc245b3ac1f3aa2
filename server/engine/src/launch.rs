//! Makes a container run: bundle, shim, spec, Create, Start. Every step that
//! leaves something behind is undone when a later one fails.
//!
//! The shim is spawned before its spec is written: it starts up meanwhile,
//! and the socket takes the first call as soon as it listens.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use davit_store::table::container::{ContainerRecord, Details};
use jiff::Timestamp;

use crate::{
    Error, Kind, Result,
    log_options::LogOptions,
    networks::Attachment,
    session::Waiting,
    shared::Shared,
    shim::{Bundle, Client, CreateTask, NewRun, RootMount, Run, RunFile},
    spec,
    volumes::{self, Acquired},
};

/// Longest wait for sessions to connect to a container that is made and not
/// started.
const SESSIONS_WITHIN: Duration = Duration::from_secs(2);

/// What a start needs to know.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) ns: Arc<str>,
    pub(crate) record: Arc<ContainerRecord>,
    /// Sessions that want the streams from the first byte on.
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) backoff: Option<Duration>,
}

/// A container that runs.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) run: Arc<Run>,
    /// What has become different since Create.
    pub(crate) warnings: Vec<String>,
}

/// Starts a container.
pub(crate) async fn launch(shared: &Arc<Shared>, launch: Launch) -> Result<Launched> {
    let bundle = Bundle::of(&shared.config.state, &launch.ns, &launch.record.id);
    // Before there is a shim: it takes the host's mounts as they are when it
    // starts.
    let acquired = volumes::acquire(shared, &launch.ns, &launch.record).await?;
    let prepared = prepare(shared, &launch, &bundle, acquired).await;
    let outcome = match prepared {
        Ok(prepared) => run(shared, launch, &bundle, prepared).await,
        Err((error, shim_pid)) => Err(Failed {
            error,
            ns: launch.ns,
            record: launch.record,
            shim_pid,
        }),
    };
    match outcome {
        Ok(launched) => Ok(launched),
        Err(failed) => {
            undo(
                shared,
                &failed.ns,
                &failed.record.id,
                &bundle,
                failed.shim_pid,
            )
            .await;
            volumes::release(shared, &failed.ns, &failed.record.id).await;
            Err(failed.error)
        }
    }
}

struct Failed {
    error: Error,
    ns: Arc<str>,
    record: Arc<ContainerRecord>,
    shim_pid: Option<u32>,
}

struct Prepared {
    shim_pid: u32,
    task: CreateTask,
    warnings: Vec<String>,
}

/// Everything that reads and writes files, away from the async threads: a
/// mount of the caller's may hang.
async fn prepare(
    shared: &Arc<Shared>,
    launch: &Launch,
    bundle: &Bundle,
    acquired: Acquired,
) -> Result<Prepared, (Error, Option<u32>)> {
    let (shared, bundle) = (Arc::clone(shared), bundle.clone());
    let (ns, record) = (Arc::clone(&launch.ns), Arc::clone(&launch.record));
    let namespaces = donors(&shared, &ns, &record).map_err(|error| (error, None))?;
    let work = tokio::task::spawn_blocking(move || {
        let begin = Instant::now();
        bundle.make().map_err(|error| (error, None))?;
        let made = begin.elapsed();
        fail::fail_point!("engine.start.after-bundle");
        let shim_pid = shared
            .launcher
            .spawn(&ns, &record.id, &bundle)
            .map_err(|error| (error, None))?;
        let spawned = begin.elapsed();
        fail::fail_point!("engine.start.after-spawn");
        let written = write_spec(&shared, &ns, &record, &bundle, namespaces, &acquired);
        let (task, warnings) = written.map_err(|error| (error, Some(shim_pid)))?;
        tracing::debug!(container = record.id, bundle = ?made, shim = ?spawned, spec = ?begin.elapsed(), "a start is prepared");
        Ok(Prepared {
            shim_pid,
            task,
            warnings,
        })
    });
    work.await.unwrap_or_else(|panic| {
        Err((
            Error::internal("the preparation of a start panicked; this is a bug")
                .with_source(panic),
            None,
        ))
    })
}

type Namespaces = BTreeMap<spec::NamespaceKind, PathBuf>;

/// The namespaces of other containers that this one joins.
fn donors(shared: &Shared, ns: &str, record: &ContainerRecord) -> Result<Namespaces> {
    let details = details(record)?;
    let wanted = spec::Shared::parse(&details.options, shared.host.cgroup.mode)?;
    let mut found = Namespaces::new();
    for (kind, name) in wanted.containers {
        let donor = shared.index.find(ns, &name)?.now();
        let pid = donor
            .is_running()
            .then(|| donor.run.as_ref().map(|run| run.pid()))
            .flatten();
        let pid = pid.ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                format!(
                    "cannot join {} namespace of a non running container: {name}",
                    kind.file_name()
                ),
            )
        })?;
        found.insert(
            kind,
            PathBuf::from(format!("/proc/{pid}/ns/{}", kind.file_name())),
        );
    }
    Ok(found)
}

fn write_spec(
    shared: &Shared,
    ns: &str,
    record: &ContainerRecord,
    bundle: &Bundle,
    mut namespaces: Namespaces,
    acquired: &Acquired,
) -> Result<(CreateTask, Vec<String>)> {
    let details = details(record)?;
    let snapshots = shared.images.snapshots(&record.snapshotter)?;
    let mounts = snapshots.mounts(ns, &record.snapshot_key)?;
    let layers = spec::LayersView(snapshots.layer_paths(ns, &record.snapshot_key)?);
    let inputs = shared.inputs(&record.id, &details.options, &details.config);
    let connection = connect(shared, ns, record, bundle, &inputs)?;
    if let Some(connection) = &connection {
        namespaces.insert(spec::NamespaceKind::Network, connection.path.clone());
    }
    let etc = etc_files(shared, ns, details, &inputs, connection.unwrap_or_default())?;
    shared.net.changes().notify_one();
    let start = spec::Start {
        rootfs: &layers,
        root_path: Path::new("rootfs"),
        etc: &etc,
        namespaces: &namespaces,
        shm: None,
        mounts: &acquired.mounts,
        sources: &acquired.sources,
    };
    let built = spec::build(&inputs, &start)?;
    let bytes = serde_json::to_vec(&built.spec).map_err(|error| {
        Error::internal(format!("cannot encode the spec of {}", record.id)).with_source(error)
    })?;
    bundle.write_config(&bytes)?;
    fail::fail_point!("engine.start.after-spec");
    let options = serde_json::json!({
        "runtime": shared.runtime_path(&details.runtime)?,
        "root": shared.config.state.join("runtime-root"),
        "systemd_cgroup": shared.config.systemd_cgroup,
    });
    let task = CreateTask {
        bundle: bundle.dir.to_string_lossy().into_owned(),
        rootfs: mounts
            .into_iter()
            .map(|mount| RootMount {
                kind: mount.kind,
                source: mount.source,
                options: mount.options,
            })
            .collect(),
        terminal: details.options.tty,
        stdin: if details.options.open_stdin {
            "davit://".to_owned()
        } else {
            String::new()
        },
        stdout: LogOptions::of(&shared.config, &details.options.log)?.uri(&details.log_path),
        options: options.to_string().into_bytes(),
    };
    Ok((task, built.warnings))
}

/// Connects the container to its networks. Here, while the shim starts up.
fn connect(
    shared: &Shared,
    ns: &str,
    record: &ContainerRecord,
    bundle: &Bundle,
    inputs: &spec::Inputs<'_>,
) -> Result<Option<Attachment>> {
    let begin = Instant::now();
    let hostname = inputs.options.hostname.as_str();
    let attached =
        tokio::runtime::Handle::current().block_on(shared.net.attach(ns, record, hostname, bundle));
    tracing::debug!(container = record.id, took = ?begin.elapsed(), "its networks are connected");
    attached
}

/// The generated files below /etc: the container's own, or those of the one
/// whose network it shares.
fn etc_files(
    shared: &Shared,
    ns: &str,
    details: &Details,
    inputs: &spec::Inputs<'_>,
    connection: Attachment,
) -> Result<spec::etc::EtcFiles> {
    let network = spec::NetworkMode::parse(&details.options.network_mode)?;
    if let spec::NetworkMode::Container(donor) = &network {
        let donor = shared.index.find(ns, donor)?.now();
        let dir = donor
            .details()
            .map(|details| details.dir.clone())
            .unwrap_or_default();
        return Ok(spec::etc::EtcFiles::in_dir(Path::new(&dir)));
    }
    let hostname = spec::plan(inputs)?.hostname;
    let dir = Path::new(&details.dir);
    std::fs::create_dir_all(dir)
        .map_err(|error| Error::io(format!("cannot make {}", dir.display()), error))?;
    let connection = spec::etc::Connection {
        addresses: connection.addresses,
        resolver: connection.resolver,
        host: connection.host,
    };
    spec::etc::write(dir, &hostname, &details.options, &network, &connection)
}

async fn run(
    shared: &Arc<Shared>,
    launch: Launch,
    bundle: &Bundle,
    prepared: Prepared,
) -> Result<Launched, Failed> {
    let Launch {
        ns,
        record,
        waiting,
        backoff,
    } = launch;
    let shim_pid = prepared.shim_pid;
    let warnings = prepared.warnings.clone();
    match start(shared, (&ns, &record), waiting, backoff, bundle, prepared).await {
        Ok(run) => Ok(Launched { run, warnings }),
        Err(error) => Err(Failed {
            error,
            ns,
            record,
            shim_pid: Some(shim_pid),
        }),
    }
}

async fn start(
    shared: &Arc<Shared>,
    (ns, record): (&str, &ContainerRecord),
    waiting: Vec<Waiting>,
    backoff: Option<Duration>,
    bundle: &Bundle,
    prepared: Prepared,
) -> Result<Arc<Run>> {
    let details = details(record)?;
    let begin = Instant::now();
    let client = Client::connect(&bundle.socket, ns, &record.id, shared.deadlines())?;
    let pid = client
        .create(prepared.task)
        .await
        .map_err(|error| explain(error, bundle))?;
    let created = begin.elapsed();
    fail::fail_point!("engine.start.after-create");
    let started_at = Timestamp::now();
    let run = Arc::new(Run::new(NewRun {
        number: shared.next_run(),
        ns: ns.to_owned(),
        id: record.id.clone(),
        bundle: bundle.clone(),
        started_at,
        shim_pid: prepared.shim_pid,
        pid,
        deadlines: shared.deadlines(),
        client: client.clone(),
    }));
    connect_sessions(waiting, &run).await;
    let file = RunFile {
        pid,
        shim_pid: prepared.shim_pid,
        started_at,
        backoff_ms: backoff.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
    };
    // Before Start: a run that the next daemon finds is known to it.
    bundle.write("run.json", &file)?;
    if details.options.tty
        && let Some(size) = &details.options.terminal_size
        && let Err(error) = client.resize("", size.width, size.height).await
    {
        tracing::debug!(container = %record.id, error = %error.chain(), "cannot set the terminal's size yet");
    }
    client
        .start("")
        .await
        .map_err(|error| explain(error, bundle))?;
    tracing::debug!(container = record.id, create = ?created, start = ?begin.elapsed(), "the shim has started it");
    fail::fail_point!("engine.start.after-start");
    Ok(run)
}

/// Lets the sessions that waited connect before the first byte is written.
async fn connect_sessions(waiting: Vec<Waiting>, run: &Arc<Run>) {
    let connected = waiting
        .into_iter()
        .filter_map(|session| session.go(Arc::clone(run)))
        .collect::<Vec<_>>();
    if !connected.is_empty() {
        let all = futures::future::join_all(connected);
        let _ = tokio::time::timeout(SESSIONS_WITHIN, all).await;
    }
}

/// A shim that broke off has said why in its log.
fn explain(error: Error, bundle: &Bundle) -> Error {
    if error.kind() != Kind::Unavailable {
        return error;
    }
    match std::fs::read_to_string(bundle.dir.join("shim.log")) {
        Ok(log) if !log.trim().is_empty() => {
            let tail = log.trim().lines().rev().take(5).collect::<Vec<_>>();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("; ");
            error.context(format!("the shim said: {tail}"))
        }
        Ok(_) | Err(_) => error,
    }
}

/// Takes back what a failed start made.
async fn undo(shared: &Shared, ns: &str, id: &str, bundle: &Bundle, shim_pid: Option<u32>) {
    shared.net.detach(id).await;
    if let Some(pid) = shim_pid {
        if let Ok(client) = Client::connect(&bundle.socket, ns, id, shared.deadlines()) {
            // Either may have nothing to do.
            let _ = client.delete("").await;
            let _ = client.shutdown().await;
        }
        shared.end_shim(pid, bundle).await;
        if let Err(error) = shared
            .launcher
            .delete(ns, id, bundle, shared.config.start_deadline)
            .await
        {
            tracing::warn!(container = id, error = %error.chain(), "cleaning up after a failed start");
        }
    }
    if let Err(error) = bundle.remove() {
        tracing::warn!(container = id, error = %error.chain(), "a bundle is left; the next start removes it");
    }
}

fn details(record: &ContainerRecord) -> Result<&Details> {
    record.details.as_deref().ok_or_else(|| {
        Error::internal(format!(
            "the record of container {} has no details",
            record.id
        ))
    })
}
