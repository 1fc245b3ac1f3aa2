//! `davit load`, and the reading of a tar stream that `import` and `cp` share.

use std::{
    fs::File,
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
};

use davit_client::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    context::{Context, line},
    error::{Failure, Outcome},
    options::platform,
    progress::Progress,
    reference::familiar,
};

/// Bytes of one message.
const CHUNK: usize = 256 << 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long)]
    input: Option<PathBuf>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
    /// Load only the given platform
    #[arg(long)]
    platform: Option<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    if args.input.is_none() && std::io::stdin().is_terminal() {
        return Err(Failure::new(
            "requested load from stdin, but stdin is empty",
        ));
    }
    let options = v1::ImportOptions {
        platform: args
            .platform
            .as_deref()
            .map(platform)
            .transpose()
            .map_err(Failure::new)?,
        fallback_name: String::new(),
    };
    let first = v1::ImportRequest {
        options: Some(options),
        ..Default::default()
    };
    let requests = upload(source(args.input.as_deref())?, first, |data| {
        v1::ImportRequest {
            options: None,
            data: data.into(),
        }
    });
    let mut stream = context.client.images().import(requests).await?.into_inner();
    let mut progress = Progress::new(context.terminal, args.quiet);
    let mut loaded = 0;
    while let Some(message) = stream.message().await? {
        progress.bytes("Loading", message.current);
        let Some(image) = message.image else { continue };
        loaded += 1;
        progress.say(&if message.name.is_empty() {
            format!("Loaded image ID: {}", image.id)
        } else {
            format!("Loaded image: {}", familiar(&message.name))
        });
        if args.quiet {
            line(if message.name.is_empty() {
                format!("Loaded image ID: {}", image.id)
            } else {
                format!("Loaded image: {}", familiar(&message.name))
            })?;
        }
    }
    progress.finish();
    if loaded == 0 {
        return Err(Failure::new("the archive has no image"));
    }
    Ok(0)
}

/// The file, or stdin without one (or for "-").
pub(crate) fn source(path: Option<&Path>) -> Outcome<Box<dyn Read + Send>> {
    match path {
        None => Ok(Box::new(std::io::stdin())),
        Some(path) if path == Path::new("-") => Ok(Box::new(std::io::stdin())),
        Some(path) => match File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(Failure::new(format!(
                "cannot open {}: {error}",
                path.display()
            ))),
        },
    }
}

/// Sends `first`, then what `source` gives, in messages; reads only as fast as
/// they go out. A read error ends the program: the daemon must not take what
/// came so far for the whole.
pub(crate) fn upload<M: Send + 'static>(
    mut source: Box<dyn Read + Send>,
    first: M,
    message: impl Fn(Vec<u8>) -> M + Send + 'static,
) -> ReceiverStream<M> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        if sender.blocking_send(first).is_err() {
            return;
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if sender
                        .blocking_send(message(buffer[..length].to_vec()))
                        .is_err()
                    {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    use std::io::Write;
                    let _ = writeln!(std::io::stderr(), "davit: cannot read the input: {error}");
                    #[allow(clippy::exit)] // A clean end of the stream would say "complete".
                    std::process::exit(1);
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}
