//! Streams: stdin, stdout, terminals, attach and logs, in bulk and by halves.

use std::{
    io::{Read, Write},
    process::Stdio,
};

use davit_tests::{Daemon, ImageSpec, Registry, eventually, run};

fn prepared() -> (Daemon, String) {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:latest", &ImageSpec::default());
    (daemon, image)
}

#[test]
fn stdin_reaches_the_container_and_its_end_too() {
    let (daemon, image) = prepared();
    let output = run(
        daemon
            .davit_command()
            .args(["run", "-i", "--rm", &image, "cat"]),
        Some(b"one\ntwo\n"),
    );
    assert_eq!((output.code, output.stdout.as_str()), (0, "one\ntwo\n"));
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    let output = run(
        daemon.davit_command().args(["exec", "-i", "c", "wc", "-c"]),
        Some(&[b'x'; 100_000]),
    );
    assert_eq!(output.ok().trim(), "100000");
}

#[test]
fn a_hundred_megabytes_go_through_whole_and_memory_stays_flat() {
    const BYTES: usize = 100_000_000;
    let (daemon, image) = prepared();
    let mut child = daemon
        .davit_command()
        .args(["run", "-i", "--rm", &image, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // Bytes that no text encoding survives.
    let pattern: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
    let sent = pattern.clone();
    let writer = std::thread::spawn(move || {
        let mut left = BYTES;
        while left > 0 {
            let chunk = left.min(sent.len());
            stdin.write_all(&sent[..chunk]).unwrap();
            left -= chunk;
        }
    });
    let mut peak = 0;
    let mut read = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = stdout.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        for (offset, byte) in buffer[..length].iter().enumerate() {
            assert_eq!(
                *byte,
                pattern[(read + offset) % pattern.len()],
                "at byte {}",
                read + offset
            );
        }
        read += length;
        peak = peak.max(rss_kib(daemon.pid()));
    }
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(read, BYTES);
    assert!(peak < 100_000, "the daemon grew to {peak} KiB");
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_reader_that_sleeps_does_not_stop_the_container() {
    let (daemon, image) = prepared();
    let mut child = daemon
        .davit_command()
        .args([
            "run",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "head -c 30000000 /dev/zero | tr '\\0' x; echo > /done; sleep 1000",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Nothing reads the child's stdout; the container must get to its end.
    eventually("the container to have written everything", || {
        daemon.davit(&["exec", "c", "test", "-e", "/done"]).code == 0
    });
    let mut stdout = child.stdout.take().unwrap();
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    while total < 30_000_000 {
        let length = stdout.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "the output ended at {total}");
        total += length;
    }
    drop(stdout);
    daemon.davit(&["rm", "-f", "c"]).ok();
    let _ = child.wait();
}

#[test]
fn a_terminal_is_a_terminal() {
    let (daemon, image) = prepared();
    let output = daemon.davit(&[
        "run",
        "-t",
        "--rm",
        &image,
        "sh",
        "-c",
        "test -t 0 && test -t 1 && echo yes",
    ]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "yes\r\n"));
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    let output = daemon.davit(&["exec", "-t", "c", "tty"]);
    assert_eq!(output.code, 0);
    assert!(output.stdout.starts_with("/dev/pts/"), "{}", output.stdout);
}

#[test]
fn logs_have_tails_times_and_follow_over_rotation() {
    let (daemon, image) = prepared();
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            "--log-opt",
            "max-size=20k",
            "--log-opt",
            "max-file=3",
            &image,
            "sh",
            "-c",
            "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; echo over; sleep 1000",
        ])
        .ok();
    eventually("the last line", || {
        daemon.davit(&["logs", "--tail", "1", "c"]).ok() == "over"
    });
    assert_eq!(
        daemon.davit(&["logs", "--tail", "2", "c"]).ok(),
        "line 2000\nover"
    );
    let all = daemon.davit(&["logs", "c"]).ok();
    assert!(!all.contains("line 1\n"), "rotation dropped nothing");
    let stamped = daemon.davit(&["logs", "-t", "--tail", "1", "c"]).ok();
    assert!(
        stamped.starts_with("20") && stamped.ends_with("Z over"),
        "{stamped}"
    );
    daemon.davit(&["rm", "-f", "c"]).ok();

    daemon
        .davit(&[
            "run", "-d", "--name", "f", "--log-opt", "max-size=10k", "--log-opt", "max-file=50", &image, "sh", "-c",
            "while [ ! -e /go ]; do usleep 1000; done; i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo $i; done",
        ])
        .ok();
    let mut child = daemon
        .davit_command()
        .args(["logs", "-f", "f"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.davit(&["exec", "f", "touch", "/go"]).ok();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(child.wait().unwrap().success());
    let expected: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(text, expected);
}

#[test]
fn detached_exec_and_resize_and_attach() {
    let (daemon, image) = prepared();
    daemon
        .davit(&[
            "run",
            "-d",
            "-i",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "while read line; do echo got $line; done",
        ])
        .ok();
    let output = run(
        daemon
            .davit_command()
            .args(["attach", "--sig-proxy=false", "c"]),
        Some(b"hello\n"),
    );
    // Stdin stays open for others; the end of ours ends our session only.
    assert!(
        output.stdout.is_empty() || output.stdout == "got hello\n",
        "{output:?}"
    );
    eventually("the line to be echoed", || {
        daemon.davit(&["logs", "c"]).ok().contains("got hello")
    });
    daemon.davit(&["exec", "-d", "c", "touch", "/there"]).ok();
    eventually("the detached exec to have run", || {
        daemon.davit(&["exec", "c", "test", "-e", "/there"]).code == 0
    });
}
