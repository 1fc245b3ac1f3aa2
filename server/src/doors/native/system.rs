//! The service `System`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use davit_engine::model::{ContainerStatus, ListContainersRequest};
use davit_proto::v1::{self, system_server::System};
use tonic::{Request, Response, Status};

use super::{
    Native,
    convert::{from_auth, to_container_usage, to_i64, to_image_usage, to_time},
    namespace,
    status::status,
};

/// What the daemon knows of itself from its start on.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) id: String,
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) address: PathBuf,
    pub(crate) snapshotter: String,
    pub(crate) default_runtime: String,
    pub(crate) runtimes: BTreeMap<String, PathBuf>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) shim: PathBuf,
    /// How the store came up: fresh, existing or rebuilt.
    pub(crate) store_condition: String,
}

#[tonic::async_trait]
impl System for Native {
    async fn version(
        &self,
        _: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        let shim = v1::Component {
            name: "containerd-shim-davit-v2".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            details: [("Path".to_owned(), self.facts.shim.display().to_string())].into(),
        };
        Ok(Response::new(v1::VersionResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            git_commit: option_env!("DAVIT_GIT_COMMIT").unwrap_or_default().into(),
            rust_version: option_env!("DAVIT_RUST_VERSION").unwrap_or_default().into(),
            os: "linux".into(),
            arch: go_arch().into(),
            kernel_version: kernel(),
            build_time: None,
            components: vec![shim],
        }))
    }

    async fn info(
        &self,
        request: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::InfoResponse>, Status> {
        let ns = namespace::of(&request)?;
        let all = ListContainersRequest {
            all: true,
            ..Default::default()
        };
        let containers = self
            .engine
            .containers()
            .list(&ns, all)
            .await
            .map_err(status)?;
        let count = |wanted: &[ContainerStatus]| {
            to_i64(
                containers
                    .iter()
                    .filter(|c| wanted.contains(&c.state.status))
                    .count() as u64,
            )
        };
        let running = count(&[ContainerStatus::Running, ContainerStatus::Restarting]);
        let paused = count(&[ContainerStatus::Paused]);
        let total = to_i64(containers.len() as u64);
        let images = self.images.list(&ns, &[]).await.map_err(status)?;
        let host = self.engine.host();
        let (operating_system, os_version) = os_release();
        let facts = &self.facts;
        let text = |path: &PathBuf| path.display().to_string();
        let mut runtimes: std::collections::HashMap<String, String> = facts
            .runtimes
            .iter()
            .map(|(name, path)| (name.clone(), text(path)))
            .collect();
        runtimes.insert("builtin".into(), String::new());
        Ok(Response::new(v1::InfoResponse {
            id: facts.id.clone(),
            name: nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            containers: total,
            containers_running: running,
            containers_paused: paused,
            containers_stopped: total - running - paused,
            images: to_i64(images.len() as u64),
            snapshotter: facts.snapshotter.clone(),
            root_dir: text(&facts.root),
            state_dir: text(&facts.state),
            address: text(&facts.address),
            cgroup_version: host.cgroup_version().into(),
            cgroup_driver: "cgroupfs".into(),
            kernel_version: kernel(),
            operating_system,
            os_version,
            architecture: std::env::consts::ARCH.into(),
            cpus: std::thread::available_parallelism().map_or(1, |cpus| to_i64(cpus.get() as u64)),
            memory: total_memory(),
            default_runtime: facts.default_runtime.clone(),
            runtimes,
            security_options: host.security_options(),
            warnings: host.warnings(),
            version: env!("CARGO_PKG_VERSION").into(),
            limits: host.limits(),
            time: Some(to_time(jiff::Timestamp::now())),
            insecure_registries: facts.insecure_registries.clone(),
            fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| to_i64(fds.count() as u64)),
            last_event: self.store.events().last_number(),
            labels: Vec::new(),
        }))
    }

    async fn disk_usage(
        &self,
        request: Request<v1::DiskUsageRequest>,
    ) -> Result<Response<v1::DiskUsageResponse>, Status> {
        let ns = namespace::of(&request)?;
        let images = self.images.disk_usage(&ns).await.map_err(status)?;
        let containers = self
            .engine
            .containers()
            .disk_usage()
            .await
            .map_err(status)?;
        Ok(Response::new(v1::DiskUsageResponse {
            images: Some(to_image_usage(images)),
            containers: containers
                .into_iter()
                .filter(|usage| usage.namespace == ns)
                .map(to_container_usage)
                .collect(),
            store: to_i64(self.store.disk_bytes().map_err(status)?),
            orphaned: 0,
        }))
    }

    async fn login(
        &self,
        request: Request<v1::LoginRequest>,
    ) -> Result<Response<v1::LoginResponse>, Status> {
        let request = request.into_inner();
        let auth = from_auth(request.auth.unwrap_or_default());
        self.images
            .login(&request.server, auth)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::LoginResponse {
            status: "Login Succeeded".into(),
            identity_token: String::new(),
        }))
    }

    async fn list_namespaces(
        &self,
        _: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        let records = self
            .store
            .scan::<davit_store::table::Namespaces>(())
            .map_err(status)?;
        let mut namespaces: std::collections::BTreeSet<String> =
            records.into_iter().map(|(name, _)| name).collect();
        namespaces.extend(self.engine.namespaces());
        Ok(Response::new(v1::ListNamespacesResponse {
            namespaces: namespaces.into_iter().collect(),
        }))
    }

    async fn debug(
        &self,
        _: Request<v1::DebugRequest>,
    ) -> Result<Response<v1::DebugResponse>, Status> {
        let stats = self.store.stats();
        let intents = self
            .store
            .scan::<davit_store::table::Intents>(())
            .map_err(status)?;
        let mut facts: std::collections::HashMap<String, String> = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("pid", std::process::id().to_string()),
            ("store.condition", self.facts.store_condition.clone()),
            ("store.transactions", stats.transactions.to_string()),
            ("store.flushes", stats.flushes.to_string()),
            ("store.fdatasyncs", stats.fdatasyncs.to_string()),
            (
                "store.last_event",
                self.store.events().last_number().to_string(),
            ),
            ("intents.open", intents.len().to_string()),
            ("memory.rss_kib", rss_kib().to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        for (id, intent) in intents {
            facts.insert(
                format!("intent.{id}"),
                format!("{} {}", intent.kind, intent.object),
            );
        }
        Ok(Response::new(v1::DebugResponse { facts }))
    }
}

/// The architecture in Go's names, as every other tool here says it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel() -> String {
    nix::sys::utsname::uname()
        .map(|uname| uname.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// PRETTY_NAME and VERSION_ID of os-release(5).
fn os_release() -> (String, String) {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    (field("PRETTY_NAME"), field("VERSION_ID"))
}

/// MemTotal of /proc/meminfo, in bytes.
fn total_memory() -> i64 {
    kib_field("/proc/meminfo", "MemTotal:") * 1024
}

fn rss_kib() -> i64 {
    kib_field("/proc/self/status", "VmRSS:")
}

fn kib_field(path: &str, name: &str) -> i64 {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}
