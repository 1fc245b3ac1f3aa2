//! Which runtime a container gets: the options of `Task.Create`, remembered in the bundle for `delete`.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::shim::oci;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::runtime::RuntimeOptions;

/// Chooses the runtime when the options do not; for containerd's clients that cannot send any.
const ENVIRONMENT: &str = "DAVIT_RUNTIME";
/// Where runtimes keep their state unless told otherwise.
const ROOT_EXTERNAL: &str = "/run/containerd/runc";
const ROOT_BUILTIN: &str = "/run/containerd/davit";

/// davitd's own options: `davit.shim.v1.Options`, as JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Davit {
    /// "" = built in, else a name or an absolute path.
    runtime: String,
    /// The namespace is appended to it.
    root: PathBuf,
    systemd_cgroup: bool,
    no_pivot_root: bool,
    no_new_keyring: bool,
}

/// Reads the options of a create request.
///
/// # Errors
/// Invalid argument: an unknown type or bad contents.
pub(crate) fn parse(any: Option<&Any>, namespace: &str) -> Result<RuntimeOptions> {
    let any = any.cloned().unwrap_or_default();
    let invalid = |cause: String| {
        Error::new(
            Kind::InvalidArgument,
            format!("options {}: {cause}", any.type_url),
        )
    };
    let mut options = RuntimeOptions::default();
    match any.type_url.trim_start_matches("type.googleapis.com/") {
        // What runtimeoptions names is a configuration file, of which davit has none.
        "" | "runtimeoptions.v1.Options" => {}
        "davit.shim.v1.Options" => {
            let davit: Davit =
                serde_json::from_slice(&any.value).map_err(|error| invalid(error.to_string()))?;
            options.runtime = davit.runtime;
            options.root = davit.root;
            options.systemd_cgroup = davit.systemd_cgroup;
            options.no_pivot_root = davit.no_pivot_root;
            options.no_new_keyring = davit.no_new_keyring;
        }
        "containerd.runc.v1.Options" => {
            let runc = oci::Options::parse_from_bytes(&any.value)
                .map_err(|error| invalid(error.to_string()))?;
            options.runtime = runc.binary_name;
            options.root = runc.root.into();
            options.systemd_cgroup = runc.systemd_cgroup;
            options.no_pivot_root = runc.no_pivot_root;
            options.no_new_keyring = runc.no_new_keyring;
            options.criu_work_path = Some(PathBuf::from(runc.criu_work_path))
                .filter(|path| !path.as_os_str().is_empty());
        }
        _ => return Err(invalid("unknown type".into())),
    }
    if options.runtime.is_empty() {
        options.runtime = std::env::var(ENVIRONMENT).unwrap_or_default();
    }
    if options.root.as_os_str().is_empty() {
        options.root = if options.runtime.is_empty() {
            ROOT_BUILTIN
        } else {
            ROOT_EXTERNAL
        }
        .into();
    }
    if !options.root.is_absolute() {
        return Err(invalid(format!(
            "root {} is not absolute",
            options.root.display()
        )));
    }
    options.root.push(namespace);
    Ok(options)
}

/// The cgroup that containerd wants the shim in, or "".
pub(crate) fn shim_cgroup(any: &Any) -> String {
    if any.type_url != "containerd.runc.v1.Options" {
        return String::new();
    }
    oci::Options::parse_from_bytes(&any.value)
        .map(|options| options.shim_cgroup)
        .unwrap_or_default()
}

/// Leaves word of the runtime in the bundle, for a `delete` that runs when this process is gone.
///
/// # Errors
/// The file system's.
pub(crate) fn remember(bundle: &Path, options: &RuntimeOptions) -> std::io::Result<()> {
    let path = bundle.join("runtime.json");
    let aside = bundle.join(".runtime.json");
    fs::write(&aside, serde_json::to_vec(options)?)?;
    fs::rename(aside, path)
}

/// What [`remember`] left; none when no container was ever made here.
pub(crate) fn recall(bundle: &Path) -> Option<RuntimeOptions> {
    serde_json::from_slice(&fs::read(bundle.join("runtime.json")).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn davit_s_and_runc_s_options() {
        let value = br#"{"runtime":"runc","root":"/state/runtime-root"}"#.to_vec();
        let any = Any {
            type_url: "davit.shim.v1.Options".into(),
            value,
            ..Default::default()
        };
        let options = parse(Some(&any), "ns").unwrap();
        assert_eq!(
            (options.runtime.as_str(), options.root),
            ("runc", PathBuf::from("/state/runtime-root/ns"))
        );
        let runc = oci::Options {
            binary_name: "crun".into(),
            systemd_cgroup: true,
            ..Default::default()
        };
        let any = crate::events::pack("containerd.runc.v1", &runc);
        let options = parse(Some(&any), "ns").unwrap();
        assert_eq!(
            (options.runtime.as_str(), options.systemd_cgroup),
            ("crun", true)
        );
        assert_eq!(options.root, PathBuf::from("/run/containerd/runc/ns"));
    }

    #[test]
    fn nonsense_is_refused() {
        let any = Any {
            type_url: "davit.shim.v1.Options".into(),
            value: b"{\"rutime\":1}".to_vec(),
            ..Default::default()
        };
        assert_eq!(
            parse(Some(&any), "ns").unwrap_err().kind,
            Kind::InvalidArgument
        );
        let any = Any {
            type_url: "what.is.this".into(),
            ..Default::default()
        };
        assert!(parse(Some(&any), "ns").is_err());
    }
}
