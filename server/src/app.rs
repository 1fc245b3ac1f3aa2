//! The daemon: its parts wired together, from configuration to a graceful stop.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use davit_engine::{Engine, EngineConfig, VolumesConfig};
use davit_images::{Images, ImagesConfig};
use davit_store::{Condition, Error, Result, Store};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{service::RoutesBuilder, transport::Server};

use crate::{
    config::Config,
    doors::native::{Facts, Native},
    log, socket,
};

/// How long calls that run may take to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the daemon until SIGTERM or SIGINT.
pub(crate) fn run(config: Config) -> Result<ExitCode> {
    log::init(&config.log).map_err(Error::invalid)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(
            std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8)),
        )
        .max_blocking_threads(64)
        .thread_name("davitd")
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start the async runtime", error))?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.map(|()| ExitCode::SUCCESS)
}

/// The store, images and engine of a root directory.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) images: Images,
    pub(crate) engine: Engine,
    pub(crate) condition: String,
}

/// Opens the parts from the bottom to the top. The engine recovers what ran.
async fn open(config: &Config) -> Result<Parts> {
    for dir in [&config.root, &config.state] {
        make_private(dir)?;
    }
    let (store, condition) = open_store(config).await?;
    let mut of_images = images_config(config);
    of_images.store_was_lost = matches!(condition, Condition::Rebuilt { .. });
    let images = Images::open(of_images, store.clone()).await?;
    let engine = Engine::open(engine_config(config)?, store.clone(), images.clone()).await?;
    let condition = match condition {
        Condition::Fresh => "fresh".to_owned(),
        Condition::Existing => "existing".to_owned(),
        Condition::Rebuilt { reason, .. } => format!("rebuilt: {reason}"),
    };
    Ok(Parts {
        store,
        images,
        engine,
        condition,
    })
}

async fn open_store(config: &Config) -> Result<(Store, Condition)> {
    let dir = config.root.join("store");
    let options = store_options(config);
    let opened = tokio::task::spawn_blocking(move || Store::open(dir, options))
        .await
        .map_err(|error| Error::internal("opening the store failed").with_source(error))??;
    if let Condition::Rebuilt { moved_to, reason } = &opened.condition {
        tracing::error!(
            moved_to = %moved_to.display(),
            reason,
            "THE METADATA STORE WAS DAMAGED; it was moved aside and is rebuilt from what is on disk"
        );
    }
    Ok((opened.store, opened.condition))
}

pub(crate) fn store_options(config: &Config) -> davit_store::Options {
    davit_store::Options {
        cache_bytes: config.store.cache_bytes,
        event_max_age: Duration::from_secs(config.events.max_age_hours.saturating_mul(3600)),
        event_max_count: config.events.max_count,
        ..Default::default()
    }
}

pub(crate) fn images_config(config: &Config) -> ImagesConfig {
    let section = &config.images;
    let mut images = ImagesConfig::new(&config.root, &config.state);
    images.snapshotter.clone_from(&section.snapshotter);
    images.certs_d.clone_from(&section.certs_d);
    images.docker_config =
        (!section.docker_config.as_os_str().is_empty()).then(|| section.docker_config.clone());
    images
        .insecure_registries
        .clone_from(&section.insecure_registries);
    images.limits.bytes = section.max_unpacked_bytes;
    images.limits.entries = section.max_entries;
    images.max_concurrent_downloads = section.parallel_layers;
    images
}

pub(crate) fn engine_config(config: &Config) -> Result<EngineConfig> {
    let section = &config.containers;
    let mut engine = EngineConfig::new(&config.root, &config.state, shim(&section.shim)?);
    engine.runtimes.clone_from(&config.runtimes);
    engine.default_runtime.clone_from(&section.default_runtime);
    engine.snapshotter.clone_from(&config.images.snapshotter);
    engine.cgroup_parent.clone_from(&section.cgroup_parent);
    engine.log_max_size = section.log_max_size;
    engine.log_max_file = section.log_max_file;
    engine.networks.bridge.clone_from(&config.networks.bridge);
    engine.networks.subnet.clone_from(&config.networks.subnet);
    let pools = config
        .networks
        .pools
        .iter()
        .map(|pool| (pool.base.clone(), pool.size));
    engine.networks.pools = pools.collect();
    let volumes = &config.volumes;
    engine.volumes = VolumesConfig {
        auto_create: volumes.auto_create,
        plugin_sockets: volumes.plugin_sockets.clone(),
        plugin_specs: volumes.plugin_specs.clone(),
        timeout: Duration::from_secs(volumes.timeout_seconds),
        list_timeout: Duration::from_secs(volumes.list_timeout_seconds),
    };
    Ok(engine)
}

/// The shim: as configured, beside davitd, or in `$PATH`.
fn shim(configured: &Path) -> Result<PathBuf> {
    const NAME: &str = "containerd-shim-davit-v2";
    if !configured.as_os_str().is_empty() {
        return Ok(configured.into());
    }
    let beside = std::env::current_exe()
        .ok()
        .map(|path| path.with_file_name(NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join(NAME)))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::precondition(format!(
                "{NAME} is neither beside davitd nor in $PATH; install it or set containers.shim"
            ))
        })
}

/// Makes a directory that only its owner may enter: layers have setuid
/// programs, and sockets are not everybody's. Others may pass (0711), so that
/// a group can reach the sockets.
fn make_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let what = || format!("cannot make {}", dir.display());
    fs::create_dir_all(dir).map_err(|error| Error::io(what(), error))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711))
        .map_err(|error| Error::io(what(), error))
}

async fn serve(config: Config) -> Result<()> {
    let group = socket::group_id(&config.group)?;
    let parts = open(&config).await?;
    let listener = socket::bind(&config.address, group)?;
    let facts = Arc::new(facts(&config, &parts)?);
    let native = Native {
        engine: parts.engine.clone(),
        images: parts.images.clone(),
        store: parts.store.clone(),
        facts,
    };
    let (stop, stopping) = watch::channel(false);
    let grpc = tokio::spawn(serve_grpc(native, listener, stopping.clone()));
    let docker = if config.docker.enabled {
        let listener = socket::bind(&config.docker.address, group)?;
        Some(tokio::spawn(serve_docker(
            listener,
            config.address.clone(),
            stopping,
        )))
    } else {
        None
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %config.address.display(),
        docker_address = %config.docker.address.display(),
        "davitd is ready"
    );
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let tidying = tokio::spawn(crate::memory::tidy());
    wait_for_stop().await?;
    tracing::info!("stopping; containers go on running");
    tidying.abort();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let _ = stop.send(true);
    drain(grpc, docker).await;
    for path in [&config.address, &config.docker.address] {
        let _ = fs::remove_file(path);
    }
    parts.engine.close().await;
    if let Err(error) = parts.images.close().await {
        tracing::warn!(
            error = error.chain(),
            "the copy of the image names is not up to date"
        );
    }
    let store = parts.store;
    tokio::task::spawn_blocking(move || store.close())
        .await
        .map_err(|error| Error::internal("closing the store failed").with_source(error))?
}

async fn wait_for_stop() -> Result<()> {
    let handler = |kind| signal(kind).map_err(|error| Error::io("cannot handle signals", error));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Gives calls that run a while to end: streams that follow never would.
async fn drain(
    grpc: tokio::task::JoinHandle<Result<()>>,
    docker: Option<tokio::task::JoinHandle<Result<()>>>,
) {
    let all = async {
        for task in [Some(grpc), docker].into_iter().flatten() {
            match task.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(error = error.chain(), "a door ended badly"),
                Err(error) => tracing::error!(%error, "a door ended badly"),
            }
        }
    };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
        tracing::info!("some calls did not end in time and are cut off");
    }
}

async fn serve_grpc(
    native: Native,
    listener: UnixListener,
    stopping: watch::Receiver<bool>,
) -> Result<()> {
    let failed = |error: tonic::transport::Error| {
        Error::internal("the gRPC server failed").with_source(error)
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let reflection = |error: tonic_reflection::server::Error| {
        Error::internal("the reflection service can't be made").with_source(error)
    };
    let reflection_v1 = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(davit_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(reflection)?;
    let reflection_v1alpha = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(davit_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1alpha()
        .map_err(reflection)?;
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(health_service)
        .add_service(reflection_v1)
        .add_service(reflection_v1alpha);
    native.add_to(&mut routes);
    Server::builder()
        // Bulk streams (attach, cp, export) are slow with HTTP/2's 64 KiB.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped(stopping))
        .await
        .map_err(failed)
}

async fn serve_docker(
    listener: UnixListener,
    grpc: PathBuf,
    stopping: watch::Receiver<bool>,
) -> Result<()> {
    davit_gateway::serve(
        listener,
        davit_gateway::Config::new(grpc),
        stopped(stopping),
    )
    .await
    .map_err(|error| Error::internal("the Docker API server failed").with_source(error))
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop, too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn facts(config: &Config, parts: &Parts) -> Result<Facts> {
    Ok(Facts {
        id: daemon_id(&config.root)?,
        root: config.root.clone(),
        state: config.state.clone(),
        address: config.address.clone(),
        snapshotter: config.images.snapshotter.clone(),
        default_runtime: config.containers.default_runtime.clone(),
        runtimes: config.runtimes.clone(),
        insecure_registries: config.images.insecure_registries.clone(),
        shim: shim(&config.containers.shim)?,
        store_condition: parts.condition.clone(),
    })
}

/// The stable id of this root directory, made at its first use.
fn daemon_id(root: &Path) -> Result<String> {
    let path = root.join("id");
    if let Ok(id) = fs::read_to_string(&path)
        && !id.trim().is_empty()
    {
        return Ok(id.trim().to_owned());
    }
    let id = uuid::Uuid::new_v4().to_string();
    fs::write(&path, format!("{id}\n"))
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))?;
    Ok(id)
}
