//! Finding and running programs: the workspace's own binaries and the peers
//! that tests compare with.

use std::{
    env,
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a program printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128+n when signal n ended it.
    pub code: i32,
    /// Standard output, lossy.
    pub stdout: String,
    /// Standard error, lossy.
    pub stderr: String,
}

impl Output {
    /// Fails the test unless the program succeeded; gives stdout without the
    /// last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout.trim_end_matches('\n').to_owned()
    }
}

/// The workspace's root directory.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .into()
}

/// A binary of this workspace, built beside the test that runs.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test has an executable");
    let path = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in target/<profile>/deps")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace` first",
        path.display()
    );
    path
}

/// A command that can't read the test's stdin.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end; `stdin` is fed when given.
#[track_caller]
pub fn run(command: &mut Command, stdin: Option<&[u8]>) -> Output {
    use std::os::unix::process::ExitStatusExt;
    if stdin.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let feeder = stdin.map(|bytes| {
        let mut pipe = child.stdin.take().expect("stdin is piped");
        let bytes = bytes.to_vec();
        std::thread::spawn(move || {
            // The program may end without reading everything.
            let _ = pipe.write_all(&bytes);
        })
    });
    let output = child.wait_with_output().expect("a child can be waited for");
    if let Some(feeder) = feeder {
        feeder.join().expect("the feeder does not panic");
    }
    Output {
        code: output
            .status
            .code()
            .unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default()),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `program args…`, expects success and gives its stdout.
#[track_caller]
pub fn run_ok(program: impl AsRef<OsStr>, args: &[&str]) -> String {
    run(command(program).args(args), None).ok()
}
