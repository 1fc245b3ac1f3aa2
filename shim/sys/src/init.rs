//! The init program that containers run as process 1 when they ask for one:
//! a static file, carried in this library. Its source is `init/main.rs`.

/// The program, an ELF file; empty on architectures that have none.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/davit-init"));

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        os::unix::{fs::PermissionsExt, process::ExitStatusExt},
        path::PathBuf,
        process::{Command, Output, Stdio},
    };

    fn program(dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("init");
        fs::write(&path, super::PROGRAM).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn run(args: &[&str]) -> Output {
        let dir = tempfile::tempdir().unwrap();
        Command::new(program(&dir))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[test]
    fn is_small_and_needs_nothing() {
        assert!(
            super::PROGRAM.len() < 32 << 10,
            "{} bytes",
            super::PROGRAM.len()
        );
        assert!(!super::PROGRAM.windows(7).any(|window| window == b"ld-linu"));
    }

    #[test]
    fn ends_as_the_command_does() {
        let output = run(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!(
            (
                output.status.code(),
                output.stdout.as_slice(),
                output.stderr.as_slice()
            ),
            (Some(7), &b"out\n"[..], &b"err\n"[..])
        );
        assert_eq!(
            run(&["/bin/sh", "-c", "kill -9 $$"]).status.code(),
            Some(137)
        );
        assert_eq!(
            run(&["--", "sh", "-c", "kill -TERM $$"]).status.code(),
            Some(143)
        );
    }

    #[test]
    fn what_cannot_run() {
        let output = run(&["--", "there-is-no-such-command"]);
        assert_eq!(output.status.code(), Some(127));
        assert_eq!(
            output.stderr,
            b"davit-init: exec there-is-no-such-command failed: No such file or directory\n"
        );
        assert_eq!(run(&["--", "/etc/passwd"]).status.code(), Some(126));
        assert_eq!(run(&["--"]).status.code(), Some(125));
        assert_eq!(run(&["--", ""]).status.code(), Some(127));
    }

    #[test]
    fn signals_are_passed_on_and_blocked_ones_are_not_inherited() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(program(&dir))
            .args(["--", "sh", "-c", "trap 'echo got; exit 3' USR1; grep SigBlk /proc/self/status; echo ready; while :; do sleep 0.05; done"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut text = String::new();
        while !text.ends_with("ready\n") {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            text.push(char::from(byte[0]));
        }
        assert!(text.starts_with("SigBlk:\t0000000000000000\n"), "{text}");
        let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
        out.read_to_string(&mut text).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(3), None));
        assert!(text.ends_with("got\n"));
    }

    #[test]
    fn orphans_are_reaped() {
        // As process 1 of a PID namespace it inherits what others leave.
        let dir = tempfile::tempdir().unwrap();
        let script = "(sh -c 'exit 0' &); cat; n=0; \
            while ps -eo stat= | grep -q Z && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.05; done; ps -eo stat= | grep -c Z; exit 5";
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .arg(program(&dir))
            .args(["--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"in\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(5));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "in\n0\n");
    }
}
