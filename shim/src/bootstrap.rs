//! `start`, `delete`, `-info`, `-v`: the short runs of this binary that containerd makes around the server's long one.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeRequest, RuntimeVersion};
use davit_sys::protect::{Protected, protect};
use jiff::Timestamp;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use sha2::{Digest, Sha256};

use crate::args::Args;
use crate::bundle::Config;
use crate::diag;
use crate::error::{Error, Kind, Result};
use crate::events::timestamp;
use crate::exits;
use crate::io::scratch;
use crate::options;
use crate::reaper::Reaper;
use crate::runtime::{Runtime, RuntimeOptions};

/// Where containerd keeps shims' sockets, unless it says otherwise.
const SOCKETS: &str = "/run/containerd/s";
/// More is no request.
const MAX_INPUT: u64 = 16 << 20;

/// `start`: spawns the server, or finds the one of the same pod, and prints its address in the caller's form.
pub(crate) fn start(args: &Args) -> Result<()> {
    let input = read_stdin();
    let caller = Caller::recognise(args, &input);
    let bundle = bundle(args)?;
    let config = Config::read(&bundle)?;
    let group = config.group().unwrap_or(&args.id);
    let path = caller.socket_path(args, group)?;
    if let Some(listener) = bind(&path)?
        && let Err(error) = spawn_server(args, &caller, listener)
    {
        // Nobody will ever listen there.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    let address = format!("unix://{}", path.display());
    // Older daemons find the shim by this file after their restart.
    fs::write(bundle.join("address"), &address)
        .map_err(|error| Error::because("writing the file address", error))?;
    reply(&caller.answer(&address)?)
}

/// `delete`: what a server that died left behind. Prints how the container ended.
pub(crate) fn delete(args: &Args) -> Result<()> {
    let bundle = bundle(args)?;
    if let Some(options) = options::recall(&bundle) {
        remove_container(args, &bundle, options)?;
    }
    let rootfs = bundle.join("rootfs");
    davit_sys::mount::detach(&rootfs).map_err(|error| Error::because(&error, error.io()))?;
    let pid = fs::read_to_string(bundle.join("init.pid"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let (pid, code, at) = match exits::read(&bundle, exits::INIT) {
        Some(exit) => (u32::try_from(exit.pid).unwrap_or(0), exit.code, exit.at),
        // containerd's number for a container that somebody else ended.
        None => (pid, 128 + 9, Timestamp::now()),
    };
    let response = DeleteResponse {
        pid,
        exit_status: code,
        exited_at: MessageField::some(timestamp(at)),
        ..Default::default()
    };
    reply(&encode(&response)?)
}

/// `-info`: what runtime the options on stdin mean.
pub(crate) fn info() -> Result<()> {
    let input = read_stdin();
    // Newer callers send a request with the options inside, others the options alone.
    let request = RuntimeRequest::parse_from_bytes(&input)
        .ok()
        .filter(|request| request.options.is_some());
    let given = match request {
        Some(request) => request.options.into_option(),
        None => Any::parse_from_bytes(&input)
            .ok()
            .filter(|any| !any.type_url.is_empty()),
    };
    let options = options::parse(given.as_ref(), "default")?;
    let scratch = std::env::temp_dir();
    let features = event_loop()?.block_on(async {
        let runtime = Runtime::open(options, &scratch, reaper()?)?;
        runtime.features().await
    });
    let version = RuntimeVersion {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let features = features.ok().map(|value| Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features".to_owned(),
        value,
        ..Default::default()
    });
    let info = RuntimeInfo {
        name: "io.containerd.davit.v2".to_owned(),
        version: MessageField::some(version),
        options: given.into(),
        features: features.into(),
        ..Default::default()
    };
    reply(&encode(&info)?)
}

/// `-v`.
pub(crate) fn version() -> Result<()> {
    reply(
        format!(
            "containerd-shim-davit-v2:\n  Version: {}\n",
            env!("CARGO_PKG_VERSION")
        )
        .as_bytes(),
    )
}

/// How the caller speaks: it has changed over the versions.
#[derive(Debug)]
enum Caller {
    /// containerd from 2.3 on, by what stands on stdin.
    Params(Box<BootstrapParams>),
    /// containerd 1.7 to 2.2, by an environment variable; with the runtime's options.
    Json(Any),
    /// containerd up to 1.6; all later ones take its answer, too.
    Plain(Any),
}

impl Caller {
    fn recognise(args: &Args, input: &[u8]) -> Caller {
        // Options (an Any) have the same wire form: only the contents tell.
        if let Ok(params) = BootstrapParams::parse_from_bytes(input)
            && params.instance_id == args.id
            && params.namespace == args.namespace
        {
            return Caller::Params(Box::new(params));
        }
        let options = Any::parse_from_bytes(input).unwrap_or_default();
        if std::env::var_os("MAX_SHIM_VERSION").is_some() {
            Caller::Json(options)
        } else {
            Caller::Plain(options)
        }
    }

    /// One socket for each pod: its name is a hash of who asks and what for.
    fn socket_path(&self, args: &Args, group: &str) -> Result<PathBuf> {
        let (directory, grpc) = match self {
            Caller::Params(params) => {
                let address = if args.address.is_empty() {
                    &params.containerd_grpc_address
                } else {
                    &args.address
                };
                (
                    params
                        .socket_dir
                        .as_deref()
                        .filter(|dir| !dir.is_empty())
                        .unwrap_or(SOCKETS),
                    address,
                )
            }
            Caller::Json(_) | Caller::Plain(_) => (SOCKETS, &args.address),
        };
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o711)
            .create(directory)
            .map_err(|error| Error::because(format_args!("making {directory}"), error))?;
        let name = Sha256::digest(format!("{grpc}/{}/{group}/davit", args.namespace));
        Ok(Path::new(directory).join(hex::encode(name)))
    }

    /// Where events go.
    fn ttrpc_address(&self) -> String {
        let environment = || std::env::var("TTRPC_ADDRESS").unwrap_or_default();
        match self {
            Caller::Params(params) if !params.containerd_ttrpc_address.is_empty() => {
                params.containerd_ttrpc_address.clone()
            }
            Caller::Params(_) | Caller::Json(_) | Caller::Plain(_) => environment(),
        }
    }

    fn answer(&self, address: &str) -> Result<Vec<u8>> {
        match self {
            Caller::Params(_) => encode(&BootstrapResult {
                version: 3,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..Default::default()
            }),
            Caller::Json(_) => {
                // Version 2 is what all of them know; version 3 would promise a sandbox service.
                let answer =
                    serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"});
                Ok(answer.to_string().into_bytes())
            }
            Caller::Plain(_) => Ok(address.as_bytes().to_vec()),
        }
    }
}

/// Listens at `path`; none when a server does already. What a dead one left is replaced.
fn bind(path: &Path) -> Result<Option<UnixListener>> {
    let failed = |error: std::io::Error| {
        Error::because(format_args!("listening at {}", path.display()), error)
    };
    match UnixListener::bind(path) {
        Ok(listener) => return restrict(listener, path).map(Some).map_err(failed),
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => return Err(failed(error)),
        Err(_) => {}
    }
    if UnixStream::connect(path).is_ok() {
        return Ok(None);
    }
    fs::remove_file(path).map_err(failed)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    restrict(listener, path).map(Some).map_err(failed)
}

fn restrict(listener: UnixListener, path: &Path) -> std::io::Result<UnixListener> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn spawn_server(args: &Args, caller: &Caller, listener: UnixListener) -> Result<()> {
    // The name under /proc reaches this very binary, also when its file has been replaced since.
    let protected = protect(Path::new("/proc/self/exe"));
    if let Protected::Plain(error) = &protected {
        diag::info(format_args!(
            "the shim's binary is not protected from its containers: {error}"
        ));
    }
    let name =
        std::env::current_exe().map_err(|error| Error::because("finding this program", error))?;
    let mut command = match &protected {
        Protected::Sealed(_) => protected.command(&name),
        Protected::Plain(_) => std::process::Command::new(&name),
    };
    command.args([
        "-namespace",
        &args.namespace,
        "-id",
        &args.id,
        "-address",
        &args.address,
    ]);
    let cgroup = shim_cgroup(caller);
    if !cgroup.is_empty() {
        command.args(["-cgroup", &cgroup]);
    }
    command
        .arg("serve")
        .env("TTRPC_ADDRESS", caller.ttrpc_address());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    davit_sys::process::inherit(&mut command, vec![(OwnedFd::from(listener), 3)]);
    davit_sys::process::new_session(&mut command);
    command
        .spawn()
        .map_err(|error| Error::because("starting the server", error))?;
    Ok(())
}

fn shim_cgroup(caller: &Caller) -> String {
    match caller {
        Caller::Params(params) => params
            .extensions
            .iter()
            .filter_map(|extension| extension.value.as_ref())
            .map(options::shim_cgroup)
            .find(|cgroup| !cgroup.is_empty())
            .unwrap_or_default(),
        Caller::Json(any) | Caller::Plain(any) => options::shim_cgroup(any),
    }
}

fn remove_container(args: &Args, bundle: &Path, options: RuntimeOptions) -> Result<()> {
    event_loop()?.block_on(async {
        let runtime = Runtime::open(options, bundle, reaper()?)?;
        match runtime.delete(&args.id, true).await {
            Err(error) if error.kind != Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
}

fn reaper() -> Result<Reaper> {
    let reaper = Reaper::default();
    reaper
        .start()
        .map_err(|error| Error::because("watching children", error))?;
    Ok(reaper)
}

/// The event loop, on this thread alone.
pub(crate) fn event_loop() -> Result<tokio::runtime::Runtime> {
    let code = davit_sys::memory::Code::find();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || {
            if scratch::fell_idle() {
                code.forget();
            }
        })
        .build()
        .map_err(|error| Error::because("starting the event loop", error))
}

/// The bundle, as an absolute path.
pub(crate) fn bundle(args: &Args) -> Result<PathBuf> {
    let current = std::env::current_dir()
        .map_err(|error| Error::because("finding the working directory", error))?;
    Ok(current.join(&args.bundle))
}

fn read_stdin() -> Vec<u8> {
    let mut input = Vec::new();
    // No input at all is what old callers give.
    let _ = std::io::stdin().take(MAX_INPUT).read_to_end(&mut input);
    input
}

fn encode(message: &impl Message) -> Result<Vec<u8>> {
    message
        .write_to_bytes()
        .map_err(|error| Error::because("encoding the answer", error))
}

fn reply(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::because("writing the answer", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Action;

    fn args() -> Args {
        Args {
            action: Action::Start,
            namespace: "default".into(),
            id: "web".into(),
            address: "/run/c.sock".into(),
            bundle: PathBuf::new(),
            cgroup: None,
        }
    }

    #[test]
    fn bootstrap_params_are_told_from_options() {
        let params = BootstrapParams {
            instance_id: "web".into(),
            namespace: "default".into(),
            ..Default::default()
        };
        let caller = Caller::recognise(&args(), &params.write_to_bytes().unwrap());
        let answer = caller.answer("unix:///s").unwrap();
        let result = BootstrapResult::parse_from_bytes(&answer).unwrap();
        assert_eq!(
            (
                result.version,
                result.address.as_str(),
                result.protocol.as_str()
            ),
            (3, "unix:///s", "ttrpc")
        );
        let any = Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: b"x".to_vec(),
            ..Default::default()
        };
        let caller = Caller::recognise(&args(), &any.write_to_bytes().unwrap());
        assert!(
            matches!(caller, Caller::Json(_) | Caller::Plain(_)),
            "{caller:?}"
        );
    }
}
