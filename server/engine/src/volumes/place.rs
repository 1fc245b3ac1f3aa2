//! Where volumes lie: `<root>/volumes/<name>/_data`. Namespaces other than the
//! default one have a directory of their own, `@<namespace>`, which no
//! volume's name can be.

use std::path::{Path, PathBuf};

/// Namespace whose volumes lie where docker's users look for them.
const DEFAULT_NAMESPACE: &str = "default";

/// Directories of volumes that are being deleted begin with this.
pub(super) const GONE: &str = ".gone-";

/// Copy of the record beside the data, from which a lost store is made again.
pub(super) const COPY: &str = "volume.json";

/// The directories of all volumes of a namespace.
pub(super) fn top(root: &Path, ns: &str) -> PathBuf {
    let all = root.join("volumes");
    if ns == DEFAULT_NAMESPACE {
        all
    } else {
        all.join(format!("@{ns}"))
    }
}

/// A local volume's directory.
pub(super) fn of_volume(root: &Path, ns: &str, name: &str) -> PathBuf {
    top(root, ns).join(name)
}

/// Its data.
pub(super) fn data(root: &Path, ns: &str, name: &str) -> PathBuf {
    of_volume(root, ns, name).join("_data")
}

/// Where the image's files are gathered before they go into the data.
pub(super) fn filling(root: &Path, ns: &str, name: &str) -> PathBuf {
    of_volume(root, ns, name).join(".filling")
}

/// Namespaces that have a directory, with it.
pub(super) fn namespaces(root: &Path) -> Vec<(String, PathBuf)> {
    let mut found = vec![(DEFAULT_NAMESPACE.to_owned(), top(root, DEFAULT_NAMESPACE))];
    for name in directories(&root.join("volumes")) {
        if let Some(ns) = name
            .strip_prefix('@')
            .filter(|ns| crate::names::check_namespace(ns).is_ok())
        {
            found.push((ns.to_owned(), top(root, ns)));
        }
    }
    found
}

/// Names of the directories in `dir`; none when it is not there.
pub(super) fn directories(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Places of a container's mounts that the daemon makes: parts of volumes, and
/// images.
pub(super) fn mounts(state: &Path, ns: &str, container: &str) -> PathBuf {
    state.join("mounts").join(ns).join(container)
}
