//! The lines of /etc/hosts about others on the same networks. The name server
//! answers for them, too; the lines are for when no daemon runs.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{Net, state::Known};
use crate::{Error, Result};

const BEGIN: &str = "# others on this container's networks, kept by davit";
const END: &str = "# end of the others";

/// Others that are listed at most: more are left to the name server.
const LISTED: usize = 256;

impl Net {
    /// Writes everybody's lines anew where they differ. Blocks.
    pub(crate) fn write_peers(&self) {
        let wanted: Vec<(PathBuf, Vec<String>)> = {
            let known = self.known();
            known
                .sandboxes
                .values()
                .map(|sandbox| {
                    (
                        sandbox.files.join("hosts"),
                        lines(&known, &sandbox.container),
                    )
                })
                .collect()
        };
        for (path, lines) in wanted {
            if let Err(error) = write(&path, &lines) {
                tracing::warn!(error = %error.chain(), "a container does not see its peers in /etc/hosts");
            }
        }
    }
}

/// "address<tab>names", in the order of addresses.
fn lines(known: &Known, container: &str) -> Vec<String> {
    let Some(own) = known.sandboxes.get(container) else {
        return Vec::new();
    };
    let mut peers: BTreeMap<IpAddr, String> = BTreeMap::new();
    for endpoint in &own.endpoints {
        let Some(network) = known.networks.get(&endpoint.network) else {
            continue;
        };
        if network.is_default() {
            continue;
        }
        for (other, connection) in known.on(&endpoint.network) {
            if other.container == container {
                continue;
            }
            for net in &connection.addresses {
                peers.insert(net.addr(), other.names(connection).join(" "));
            }
        }
    }
    peers
        .into_iter()
        .take(LISTED)
        .map(|(address, names)| format!("{address}\t{names}"))
        .collect()
}

/// Replaces the block of peers; every other line stays as it is.
fn write(path: &Path, lines: &[String]) -> Result<()> {
    let failed = |error| Error::io(format!("writing {}", path.display()), error);
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        // Not written yet, or gone with its container.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let new = with_block(&old, lines);
    if new == old {
        return Ok(());
    }
    use std::os::unix::fs::OpenOptionsExt;
    // In place, since the file is bound into the container; no link is
    // followed.
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(new.as_bytes())
        .and_then(|()| file.set_len(new.len() as u64))
        .map_err(failed)
}

fn with_block(old: &str, lines: &[String]) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in old.lines() {
        match line {
            BEGIN => inside = true,
            END => inside = false,
            _ if inside => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    if !lines.is_empty() {
        text.push_str(&format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_block_changes() {
        let one = with_block("127.0.0.1\tlocalhost\n", &["10.0.0.2\tweb".to_owned()]);
        assert!(one.starts_with("127.0.0.1\tlocalhost\n# others"));
        let edited = format!("{one}10.9.9.9\tmine\n");
        let two = with_block(&edited, &["10.0.0.3\tdb".to_owned()]);
        assert!(
            two.starts_with("127.0.0.1\tlocalhost\n10.9.9.9\tmine\n# others"),
            "{two}"
        );
        assert!(two.contains("10.0.0.3\tdb") && !two.contains("10.0.0.2"));
        assert_eq!(
            with_block(&two, &[]),
            "127.0.0.1\tlocalhost\n10.9.9.9\tmine\n"
        );
    }
}
