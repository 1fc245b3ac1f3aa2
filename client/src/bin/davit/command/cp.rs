//! `davit cp`: between a container and the local file system, with docker's
//! rules for what ends up where.

use std::{
    fs,
    io::{Read, Write},
    path::{Component, Path, PathBuf},
};

use davit_client::v1;

use crate::{
    command::load::upload,
    context::Context,
    error::{Failure, Outcome},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Suppress progress output during copy
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a local path, or - for a tar stream on stdin
    source: String,
    /// CONTAINER:PATH, a local path, or - for a tar stream on stdout
    target: String,
}

/// One side of the copy.
enum Side {
    Container { container: String, path: String },
    Local(PathBuf),
    Stream,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    match (side(&args.source), side(&args.target)) {
        (Side::Container { container, path }, Side::Local(target)) => {
            out(context, &args, container, &path, Some(&target)).await
        }
        (Side::Container { container, path }, Side::Stream) => {
            out(context, &args, container, &path, None).await
        }
        (Side::Local(source), Side::Container { container, path }) => {
            into(context, &args, &source, container, &path).await
        }
        (Side::Stream, Side::Container { container, path }) => {
            let reader = Box::new(std::io::stdin());
            send(context, &args, container, path, reader).await
        }
        (Side::Container { .. }, Side::Container { .. }) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        _ => Err(Failure::new("must specify at least one container source")),
    }
}

/// "name:path" is a container's; absolute and "./" paths are local.
fn side(text: &str) -> Side {
    if text == "-" {
        return Side::Stream;
    }
    if !text.starts_with(['/', '.'])
        && let Some((container, path)) = text.split_once(':')
        && !container.is_empty()
    {
        return Side::Container {
            container: container.into(),
            path: path.into(),
        };
    }
    Side::Local(text.into())
}

/// Container to local path, or to stdout.
async fn out(
    context: &Context,
    args: &Args,
    container: String,
    path: &str,
    target: Option<&Path>,
) -> Outcome {
    let mut path = path.to_owned();
    if args.follow_link {
        let request = v1::StatPathRequest {
            container: container.clone(),
            path: path.clone(),
        };
        let stat = context
            .client
            .containers()
            .stat_path(request)
            .await?
            .into_inner();
        if !stat.link_target.is_empty() {
            path = stat.link_target;
        }
    }
    let request = v1::CopyOutRequest {
        container,
        path: path.clone(),
    };
    let mut stream = context
        .client
        .containers()
        .copy_out(request)
        .await?
        .into_inner();
    let first = stream
        .message()
        .await?
        .ok_or_else(|| Failure::new("the daemon sent nothing"))?;
    let stat = first.stat.unwrap_or_default();
    let Some(target) = target else {
        crate::context::write_all(&first.data)?;
        while let Some(message) = stream.message().await? {
            crate::context::write_all(&message.data)?;
        }
        return Ok(0);
    };
    let is_dir = stat.mode & libc_type_mask() == DIRECTORY;
    let destination = Destination::choose(target, &stat.name, is_dir, &path)?;
    // The tar crate reads from a plain reader, so the stream goes through a pipe.
    let (mut writer, reader) = pipe()?;
    let unpacking = std::thread::spawn(move || destination.unpack(reader));
    let mut result = writer.write_all(&first.data);
    while result.is_ok() {
        match stream.message().await? {
            Some(message) => result = writer.write_all(&message.data),
            None => break,
        }
    }
    drop(writer);
    unpacking
        .join()
        .map_err(|_| Failure::new("unpacking failed"))??;
    Ok(0)
}

const DIRECTORY: u32 = 0o040_000;

fn libc_type_mask() -> u32 {
    0o170_000
}

fn pipe() -> Outcome<(fs::File, fs::File)> {
    let (reader, writer) = nix::unistd::pipe().map_err(|error| Failure::new(error.to_string()))?;
    Ok((fs::File::from(writer), fs::File::from(reader)))
}

/// Where the entries of a tar go: below `dir`, their first part renamed.
struct Destination {
    dir: PathBuf,
    /// Name of the source in the tar.
    from: String,
    /// Its name on this side; none when only its content is wanted.
    to: Option<String>,
}

impl Destination {
    /// docker's rules: into an existing directory under the source's name, or
    /// (with "/." behind the source) its content; else under the new name.
    fn choose(target: &Path, name: &str, is_dir: bool, source: &str) -> Outcome<Self> {
        let shown = target.display();
        let ends_with_slash = target.to_string_lossy().ends_with('/');
        if target.is_dir() {
            let content = is_dir && (source.ends_with("/.") || source == ".");
            let to = if content { None } else { Some(name.to_owned()) };
            return Ok(Self {
                dir: target.into(),
                from: name.into(),
                to,
            });
        }
        if target.exists() && is_dir {
            return Err(Failure::new(format!(
                "cannot copy directory to file {shown}"
            )));
        }
        if ends_with_slash && !is_dir {
            return Err(Failure::new(format!(
                "destination directory \"{shown}\" must exist"
            )));
        }
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !parent.is_dir() {
            return Err(Failure::new(format!(
                "no such directory: {}",
                parent.display()
            )));
        }
        let to = target
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        Ok(Self {
            dir: parent.into(),
            from: name.into(),
            to,
        })
    }

    fn unpack(self, reader: fs::File) -> Outcome<()> {
        let mut archive = tar::Archive::new(reader);
        archive.set_preserve_permissions(true);
        archive.set_overwrite(true);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let Some(relative) = self.place(&path) else {
                continue;
            };
            let target = self.dir.join(&relative);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            // `unpack_in` refuses links and paths that lead out of the
            // directory; the name is ours, so the entry goes by its own path.
            if entry.header().entry_type().is_hard_link()
                && let Some(link) = entry.link_name()?
                && let Some(link) = self.place(&link)
            {
                let _ = fs::remove_file(&target);
                fs::hard_link(self.dir.join(link), &target)?;
                continue;
            }
            entry.unpack(&target).map_err(|error| {
                Failure::new(format!("cannot write {}: {error}", target.display()))
            })?;
        }
        // What is left of the stream is padding; reading it lets the sender end.
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
        Ok(())
    }

    /// The place of an entry below `dir`; none for paths that leave it and for
    /// the directory itself.
    fn place(&self, path: &Path) -> Option<PathBuf> {
        let mut parts = path
            .components()
            .filter(|part| !matches!(part, Component::CurDir));
        let mut place = PathBuf::new();
        let first = parts.next()?;
        match (first, &self.to) {
            (Component::Normal(name), Some(to)) if name.to_string_lossy() == self.from => {
                place.push(to)
            }
            (Component::Normal(name), None) if name.to_string_lossy() == self.from => {}
            (Component::Normal(name), _) => place.push(name),
            _ => return None,
        }
        for part in parts {
            match part {
                Component::Normal(name) => place.push(name),
                _ => return None,
            }
        }
        (!place.as_os_str().is_empty()).then_some(place)
    }
}

/// Local path into a container.
async fn into(
    context: &Context,
    args: &Args,
    source: &Path,
    container: String,
    path: &str,
) -> Outcome {
    let stat = if args.follow_link {
        fs::metadata(source)
    } else {
        fs::symlink_metadata(source)
    };
    let stat = stat.map_err(|error| Failure::new(format!("{}: {error}", source.display())))?;
    let content = source.to_string_lossy().ends_with("/.");
    let request = v1::StatPathRequest {
        container: container.clone(),
        path: path.to_owned(),
    };
    let target = match context.client.containers().stat_path(request).await {
        Ok(reply) => Some(reply.into_inner()),
        Err(status)
            if status.code() == tonic::Code::NotFound
                && !status.message().contains("container") =>
        {
            None
        }
        Err(status)
            if status.code() == tonic::Code::NotFound
                && status.message().contains("Could not find the file") =>
        {
            None
        }
        Err(status) => return Err(status.into()),
    };
    let name = fs::canonicalize(source)
        .ok()
        .and_then(|path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .unwrap_or_default();
    let is_dir = |stat: &v1::PathStat| stat.mode & libc_type_mask() == DIRECTORY;
    let (dir, name) = match target {
        Some(target) if is_dir(&target) || target.link_target.ends_with('/') => {
            (path.to_owned(), if content { String::new() } else { name })
        }
        Some(_) if stat.is_dir() => {
            return Err(Failure::new(format!(
                "cannot copy directory to file {path}"
            )));
        }
        _ if path.ends_with('/') && !stat.is_dir() => {
            return Err(Failure::new(format!(
                "destination directory \"{path}\" must exist"
            )));
        }
        _ => {
            let path = Path::new(path.trim_end_matches('/'));
            let parent = path.parent().unwrap_or(Path::new("/"));
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (parent.display().to_string(), name)
        }
    };
    let (writer, reader) = pipe()?;
    let (source, follow) = (source.to_owned(), args.follow_link);
    let packing = std::thread::spawn(move || pack(writer, &source, &name, follow));
    let dir = if dir.is_empty() { "/".to_owned() } else { dir };
    let code = send(context, args, container, dir, Box::new(reader)).await?;
    packing
        .join()
        .map_err(|_| Failure::new("packing failed"))??;
    Ok(code)
}

/// Writes `source` as a tar whose entries begin with `name` (or with nothing).
fn pack(writer: fs::File, source: &Path, name: &str, follow: bool) -> Outcome<()> {
    let mut builder = tar::Builder::new(writer);
    builder.follow_symlinks(false);
    let source = if follow {
        fs::canonicalize(source)?
    } else {
        source.to_owned()
    };
    let told =
        |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", source.display()));
    if fs::symlink_metadata(&source).map_err(told)?.is_dir() {
        builder.append_dir_all(name, &source).map_err(told)?;
    } else {
        builder.append_path_with_name(&source, name).map_err(told)?;
    }
    builder
        .into_inner()
        .and_then(|mut writer| writer.flush())
        .map_err(told)
}

async fn send(
    context: &Context,
    args: &Args,
    container: String,
    path: String,
    source: Box<dyn Read + Send>,
) -> Outcome {
    let options = v1::CopyInOptions {
        container,
        path,
        no_overwrite_dir_non_dir: true,
        copy_uid_gid: args.archive,
    };
    let first = v1::CopyInRequest {
        options: Some(options),
        ..Default::default()
    };
    let requests = upload(source, first, |data| v1::CopyInRequest {
        options: None,
        data: data.into(),
    });
    context.client.containers().copy_in(requests).await?;
    Ok(0)
}
