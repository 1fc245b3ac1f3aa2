//! The command line that containerd gives a shim (Go's flags: `-id X`, `--id X`, `-id=X`), and davitd's `serve`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

/// What the program is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Spawn a server, print its address.
    Start,
    /// Clean up after a server that is gone.
    Delete,
    /// Be the server; the listening socket is descriptor 3.
    Serve,
    /// Print what runtime this is.
    Info,
    /// Print the version.
    Version,
}

/// The parsed command line.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) action: Action,
    pub(crate) namespace: String,
    pub(crate) id: String,
    /// containerd's gRPC socket.
    pub(crate) address: String,
    /// Empty: the working directory.
    pub(crate) bundle: PathBuf,
    /// The cgroup that the server moves itself to: a path below each controller's mount.
    pub(crate) cgroup: Option<String>,
}

impl Args {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// Invalid argument, naming the flag.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args> {
        let mut args = Args {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: PathBuf::new(),
            cgroup: None,
        };
        let mut action = None;
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let argument = text(argument)?;
            let Some(flag) = argument
                .strip_prefix("--")
                .or_else(|| argument.strip_prefix('-'))
            else {
                action = Some(word(&argument)?);
                continue;
            };
            let (name, mut value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "v" | "version" => action = Some(Action::Version),
                "info" => action = Some(Action::Info),
                // Nothing is logged only when debugging.
                "debug" => {}
                _ => {
                    if value.is_none() {
                        value = rest.next().map(text).transpose()?;
                    }
                    args.set(name, value)?;
                }
            }
        }
        args.action = action.ok_or_else(|| {
            Error::new(
                Kind::InvalidArgument,
                "no action: say start, delete, serve, -info or -v",
            )
        })?;
        args.check()?;
        Ok(args)
    }

    fn set(&mut self, name: &str, value: Option<String>) -> Result<()> {
        let value = value.ok_or_else(|| {
            Error::new(Kind::InvalidArgument, format!("flag -{name} needs a value"))
        })?;
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "bundle" => self.bundle = value.into(),
            "cgroup" => self.cgroup = Some(value),
            // Events go over ttrpc, never through containerd's own binary; the socket is descriptor 3.
            "publish-binary" | "socket" | "log" => {}
            _ => {
                return Err(Error::new(
                    Kind::InvalidArgument,
                    format!("unknown flag -{name}"),
                ));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if matches!(self.action, Action::Info | Action::Version) {
            return Ok(());
        }
        check_id("container", &self.id)?;
        check_id("namespace", &self.namespace)
    }
}

/// Refuses what is no containerd identifier: ids become file names here.
///
/// # Errors
/// Invalid argument, with the rule.
pub(crate) fn check_id(what: &str, id: &str) -> Result<()> {
    let plain = id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let edges = id
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain && edges && id.len() <= 128 {
        return Ok(());
    }
    Err(Error::new(
        Kind::InvalidArgument,
        format!(
            "{what} id {id:?}: must be 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter, digit or _"
        ),
    ))
}

fn text(argument: OsString) -> Result<String> {
    argument.into_string().map_err(|argument| {
        Error::new(
            Kind::InvalidArgument,
            format!("argument {argument:?} is not UTF-8"),
        )
    })
}

fn word(action: &str) -> Result<Action> {
    match action {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        "serve" => Ok(Action::Serve),
        _ => Err(Error::new(
            Kind::InvalidArgument,
            format!("unknown action {action:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn containerd_s_lines_parse() {
        let args = parse("-namespace default -address /run/c.sock -publish-binary /bin/containerd -id web -debug start")
            .unwrap();
        assert_eq!(args.action, Action::Start);
        assert_eq!(
            (
                args.namespace.as_str(),
                args.id.as_str(),
                args.address.as_str()
            ),
            ("default", "web", "/run/c.sock")
        );
        let args = parse("serve --namespace=n --id=a.b-c --bundle /b").unwrap();
        assert_eq!(
            (args.action, args.bundle),
            (Action::Serve, PathBuf::from("/b"))
        );
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn ids_that_would_be_paths_are_refused() {
        for id in ["../x", "a/b", "", ".hidden", "a b"] {
            assert!(check_id("container", id).is_err(), "{id}");
        }
    }
}
