//! Files of containers: what `cp`, `diff`, `export` and `commit` do.
//!
//! Everything works on a [`Root`]: the container's root directory, opened.
//! For a running container that is `/proc/<pid>/root`, so its tmpfs and bind
//! mounts are seen; for a stopped one a mount of its snapshot that is attached
//! nowhere. Each path is resolved beneath it by the kernel (`openat2` with
//! `RESOLVE_IN_ROOT`), so a container's symbolic links lead nowhere else.

mod commit;
mod copy_in;
mod copy_out;
mod diff;
mod place;
mod root;
mod stream;
mod walk;

pub use commit::{commit, committed_config};
pub use copy_in::copy_in;
pub use copy_out::{copy_out, export, stat_path};
pub use diff::diff;
pub use root::Root;
