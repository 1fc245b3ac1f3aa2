//! Logs and attached clients, with a real runtime.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;

use std::fs;
use std::time::Duration;

use containerd_shim_protos::api;
use rig::{Attached, Heard, Rig, Setup, deadline, send, until};
use serde_json::json;
use tokio::io::AsyncReadExt;

fn all() -> serde_json::Value {
    json!({"stdin": true, "stdout": true, "stderr": true})
}

#[tokio::test]
async fn attached_before_the_start_nothing_is_missed() {
    let rig = Rig::new(&["sh", "-c", "echo out; echo err >&2; exit 5"]).await;
    rig.create().await;
    let attached = rig.attach(all()).await;
    assert_eq!(attached.ready, json!({"tty": false}));
    rig.start().await;
    let heard = attached.rest().await;
    assert_eq!(
        (heard.stdout.as_slice(), heard.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(heard.exit.unwrap()["code"], json!(5));
    // After the end: the past on request, and the exit.
    let late = rig
        .attach(json!({"stdout": true, "stderr": true, "from": "start"}))
        .await
        .rest()
        .await;
    assert_eq!(
        (late.stdout.as_slice(), late.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let exit = late.exit.unwrap();
    let record = fs::read_to_string(rig.bundle.join("exits/init.json")).unwrap();
    assert!(record.contains(exit["at"].as_str().unwrap()));
    let live = rig.attach(all()).await.rest().await;
    assert!(live.stdout.is_empty() && live.exit.is_some());
}

#[tokio::test]
async fn stdin_half_close() {
    let rig = Rig::new(&["sh", "-c", "cat; echo done"]).await;
    rig.create_interactive().await;
    rig.start().await;
    let mut attached = rig.attach(all()).await;
    attached.stdin(b"hello\n").await;
    attached.expect("hello\n").await;
    attached.close_stdin().await;
    let heard = attached.rest().await;
    assert_eq!(heard.stdout, b"done\n");
    assert_eq!(rig.log_text(), "hello\ndone\n");
}

#[tokio::test]
async fn without_stdin_a_process_reads_end_of_file() {
    let rig = Rig::new(&["cat"]).await;
    assert_eq!(rig.run().await, (0, String::new()));
}

#[tokio::test]
async fn close_io_is_the_same() {
    let rig = Rig::new(&["cat"]).await;
    rig.create_interactive().await;
    rig.start().await;
    let request = api::CloseIORequest {
        id: rig.id.clone(),
        stdin: true,
        ..Default::default()
    };
    rig.client.close_io(deadline(10), &request).await.unwrap();
    assert_eq!(rig.wait("").await, 0);
}

#[tokio::test]
async fn terminal_and_its_size() {
    let rig = Rig::tty(&[
        "sh",
        "-c",
        "tty; read x; stty size; read y; stty size; exit 4",
    ])
    .await;
    rig.create_interactive().await;
    let mut attached = rig.attach(all()).await;
    assert_eq!(attached.ready, json!({"tty": true}));
    attached.resize(100, 30).await;
    rig.start().await;
    attached.expect("/dev/pts/0\r\n").await;
    attached.stdin(b"go\n").await;
    attached.expect("30 100\r\n").await;
    let request = api::ResizePtyRequest {
        id: rig.id.clone(),
        width: 77,
        height: 22,
        ..Default::default()
    };
    rig.client.resize_pty(deadline(10), &request).await.unwrap();
    attached.stdin(b"go\n").await;
    attached.expect("22 77\r\n").await;
    let heard = attached.rest().await;
    assert_eq!(heard.exit.unwrap()["code"], json!(4));
    assert_eq!(rig.wait("").await, 4);
    assert!(rig.log_text().ends_with("22 77\r\n"));
    rig.delete("").await.unwrap();
}

#[tokio::test]
async fn a_terminal_let_go_and_opened_again() {
    let script = "exec 0<&- 1>&- 2>&-; sleep 1; echo again >/dev/pts/0; sleep 0.5; exit 3";
    let rig = Rig::tty(&["sh", "-c", script]).await;
    rig.create().await;
    let attached = rig.attach(all()).await;
    rig.start().await;
    let heard = attached.rest().await;
    assert_eq!(heard.exit.unwrap()["code"], json!(3));
    assert_eq!(heard.stdout, b"again\r\n");
    let stat = fs::read_to_string(format!("/proc/{}/stat", rig.shim_pid())).unwrap();
    let ticks: u64 = stat
        .split(' ')
        .skip(13)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    assert!(ticks < 50, "the shim was busy for {ticks} ticks");
}

#[tokio::test]
async fn exec_with_and_without_terminal() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    rig.create().await;
    rig.start().await;
    rig.exec(
        "e1",
        &["sh", "-c", "read x; echo got $x; echo bad >&2; exit 3"],
        false,
    )
    .await
    .unwrap();
    let mut attached = rig
        .attach(json!({"exec": "e1", "stdin": true, "stdout": true, "stderr": true}))
        .await;
    rig.start_exec("e1").await.unwrap();
    attached.stdin(b"it\n").await;
    let heard = attached.rest().await;
    assert_eq!(
        (heard.stdout.as_slice(), heard.stderr.as_slice()),
        (&b"got it\n"[..], &b"bad\n"[..])
    );
    assert_eq!(heard.exit.unwrap()["code"], json!(3));
    rig.delete("e1").await.unwrap();

    rig.exec("e2", &["sh", "-c", "stty size; echo bye"], true)
        .await
        .unwrap();
    let mut attached = rig
        .attach(json!({"exec": "e2", "stdin": true, "stdout": true}))
        .await;
    attached.resize(90, 20).await;
    rig.start_exec("e2").await.unwrap();
    let heard = attached.rest().await;
    let text = String::from_utf8(heard.stdout).unwrap();
    // The size may come after the program has asked for it: only that it came at all is promised.
    assert!(text.ends_with("bye\r\n"), "{text:?}");
    assert_eq!(heard.exit.unwrap()["code"], json!(0));
    rig.delete("e2").await.unwrap();
    assert_eq!(rig.log_text(), "");
}

#[tokio::test]
async fn an_unknown_exec_is_refused() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    rig.create().await;
    let mut stream = tokio::net::UnixStream::connect(rig.bundle.join("a.sock"))
        .await
        .unwrap();
    send(&mut stream, 0x01, br#"{"exec":"nobody"}"#).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer[0], 0x24);
    assert!(String::from_utf8_lossy(&answer).contains("nobody"));
    // Rubbish closes the connection and harms nobody else.
    for rubbish in [
        &[0xff; 100][..],
        &[0x01, 0xff, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = tokio::net::UnixStream::connect(rig.bundle.join("a.sock"))
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, rubbish)
            .await
            .unwrap();
        let mut answer = Vec::new();
        // The shim may close before it has read everything.
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer.first(), Some(&0x24));
    }
    rig.attach(all()).await;
}

#[tokio::test]
async fn who_waits_for_a_process_that_cannot_start_is_let_go() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    rig.create().await;
    rig.start().await;
    rig.exec("e1", &["no-such-program"], false).await.unwrap();
    let attached = rig.attach(json!({"exec": "e1", "stdout": true})).await;
    rig.start_exec("e1").await.unwrap_err();
    assert!(attached.rest().await.exit.is_none());
}

#[tokio::test]
async fn a_reader_may_leave_and_come_back() {
    let rig = Rig::new(&["sh", "-c", "while read line; do echo said $line; done"]).await;
    rig.create_interactive().await;
    rig.start().await;
    let mut first = rig.attach(all()).await;
    first.stdin(b"one\n").await;
    first.expect("said one\n").await;
    drop(first);
    let mut second = rig
        .attach(json!({"stdin": true, "stdout": true, "from": "start"}))
        .await;
    second.expect("said one\n").await;
    let mut third = rig.attach(all()).await;
    second.stdin(b"two\n").await;
    second.expect("said two\n").await;
    third.expect("said two\n").await;
    third.close_stdin().await;
    assert!(second.rest().await.exit.is_some());
    assert!(third.rest().await.exit.is_some());
    assert_eq!(rig.log_text(), "said one\nsaid two\n");
}

#[tokio::test]
async fn an_unfinished_line_is_seen_at_once_and_replayed() {
    let rig = Rig::new(&["sh", "-c", "printf 'a\nprompt> '; read x; echo $x"]).await;
    rig.create_interactive().await;
    rig.start().await;
    let mut first = rig
        .attach(json!({"stdin": true, "stdout": true, "from": "start"}))
        .await;
    first.expect("prompt> ").await;
    let mut second = rig.attach(json!({"stdout": true, "from": "start"})).await;
    assert_eq!(second.expect("prompt> ").await, "a\nprompt> ");
    first.stdin(b"ok\n").await;
    assert_eq!(second.rest().await.stdout, b"ok\n");
    assert_eq!(rig.log_text(), "a\nprompt> ok\n");
}

/// 100 MB in and out, complete, whatever the client's pace.
#[tokio::test]
async fn a_hundred_megabytes_through_stdin_and_stdout() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 100;
    let rig = Rig::new(&["cat"]).await;
    let request = api::CreateTaskRequest {
        stdin: "davit://".into(),
        stdout: "davit://".into(),
        ..rig.create_request()
    };
    rig.client.create(deadline(60), &request).await.unwrap();
    rig.start().await;
    let attached = rig.attach(all()).await;
    let (mut read, mut write) = attached.stream.into_split();
    let pieces: Vec<u8> = (0..PIECE)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    let expected = pieces.clone();
    let writer = tokio::spawn(async move {
        for _ in 0..PIECES {
            send(&mut write, 0x10, &pieces).await;
        }
        send(&mut write, 0x11, b"").await;
        write
    });
    let heard = Attached::rest_of(&mut read).await;
    drop(writer.await.unwrap());
    assert!(heard.lagged.is_none());
    assert_eq!(heard.stdout.len(), PIECE * PIECES);
    assert!(heard.stdout.chunks(PIECE).all(|piece| piece == expected));
    assert_eq!(heard.exit.unwrap()["code"], json!(0));
    assert!(peak(&rig) < 2 * 1024, "{} KiB", peak(&rig));
}

/// The most memory that the shim has had for data, in KiB (its code, which a debug build has much of, aside).
fn peak(rig: &Rig) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", rig.shim_pid())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    field("VmHWM:") - field("RssFile:")
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_nobody() {
    let rig = Rig::new(&["sh", "-c", "seq 1 3000000; echo end >&2"]).await;
    let request = api::CreateTaskRequest {
        stdout: "davit://".into(),
        ..rig.create_request()
    };
    rig.client.create(deadline(60), &request).await.unwrap();
    let slow = rig.attach(json!({"stdout": true, "stderr": true})).await;
    let quick = rig.attach(json!({"stderr": true})).await;
    rig.start().await;
    // The container ends although nobody has read a byte.
    assert_eq!(rig.wait("").await, 0);
    assert_eq!(quick.rest().await.stderr, b"end\n");
    let heard = slow.rest().await;
    let expected: usize = (1..=3_000_000_u32).map(|n| n.to_string().len() + 1).sum();
    assert_eq!(heard.stdout.len(), expected);
    assert!(heard.stdout.starts_with(b"1\n2\n") && heard.stdout.ends_with(b"\n3000000\n"));
    assert_eq!(heard.stderr, b"end\n");
    assert!(heard.exit.is_some() && heard.lagged.is_none());
    assert!(peak(&rig) < 2 * 1024, "{} KiB", peak(&rig));
}

#[tokio::test]
async fn a_reader_that_never_reads_is_told_what_it_lost() {
    let rig = Rig::new(&[
        "sh",
        "-c",
        "dd if=/dev/zero bs=1M count=300 2>/dev/null; echo end",
    ])
    .await;
    let request = api::CreateTaskRequest {
        stdout: "davit://".into(),
        ..rig.create_request()
    };
    rig.client.create(deadline(60), &request).await.unwrap();
    let slow = rig.attach(json!({"stdout": true})).await;
    rig.start().await;
    assert_eq!(rig.wait("").await, 0);
    let Heard {
        stdout,
        exit,
        lagged,
        ..
    } = slow.rest().await;
    let dropped = lagged.expect("LAGGED")["dropped"].as_u64().unwrap();
    // What was kept and what was lost are all there was; the EXIT frame may be among the lost.
    let total = stdout.len() as u64 + dropped;
    assert!(
        (300 * (1 << 20) + 4..300 * (1 << 20) + 200).contains(&total),
        "{total}"
    );
    assert!(stdout.len() >= 250 << 20 && exit.is_none());
}

#[tokio::test]
async fn output_while_nobody_is_attached_is_logged_and_rotated() {
    let rig = Rig::new(&["seq", "1", "200000"]).await;
    let request = api::CreateTaskRequest {
        stdout: format!(
            "davit://{}?max-size=4000000&max-file=3",
            rig.log_path().display()
        ),
        ..rig.create_request()
    };
    rig.client.create(deadline(60), &request).await.unwrap();
    rig.start().await;
    assert_eq!(rig.wait("").await, 0);
    let mut numbers = Vec::new();
    for suffix in [".2", ".1", ""] {
        let path = format!("{}{suffix}", rig.log_path().display());
        assert!(fs::metadata(&path).unwrap().len() <= 4_000_000);
        for line in fs::read_to_string(path).unwrap().lines() {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            numbers.push(
                entry["log"]
                    .as_str()
                    .unwrap()
                    .trim_end()
                    .parse::<u32>()
                    .unwrap(),
            );
        }
    }
    assert!(!fs::exists(format!("{}.3", rig.log_path().display())).unwrap());
    assert_eq!(*numbers.last().unwrap(), 200_000);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1) && numbers.len() > 80_000);
}

#[tokio::test]
async fn a_process_left_behind_holds_nobody_up() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    rig.create().await;
    rig.start().await;
    rig.exec("e1", &["sh", "-c", "echo now; sleep 1000 & exit 0"], false)
        .await
        .unwrap();
    let attached = rig.attach(json!({"exec": "e1", "stdout": true})).await;
    let began = std::time::Instant::now();
    rig.start_exec("e1").await.unwrap();
    let heard = attached.rest().await;
    assert_eq!(
        (
            heard.stdout.as_slice(),
            heard.exit.unwrap()["code"].as_u64()
        ),
        (&b"now\n"[..], Some(0))
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    rig.delete("e1").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn containerd_s_fifos_files_and_nothing() {
    // Null.
    let rig = Rig::new(&["sh", "-c", "echo gone"]).await;
    let request = api::CreateTaskRequest {
        stdout: String::new(),
        ..rig.create_request()
    };
    rig.client.create(deadline(60), &request).await.unwrap();
    rig.start().await;
    assert_eq!(rig.wait("").await, 0);
    assert!(!rig.log_path().exists());
    // One file for both.
    let rig = Rig::new(&["sh", "-c", "echo out; echo err >&2"]).await;
    let url = format!("file://{}", rig.log_path().display());
    let request = api::CreateTaskRequest {
        stdout: url.clone(),
        stderr: url,
        ..rig.create_request()
    };
    rig.client.create(deadline(60), &request).await.unwrap();
    rig.start().await;
    assert_eq!(rig.wait("").await, 0);
    rig.delete("").await.unwrap();
    let text = fs::read_to_string(rig.log_path()).unwrap();
    assert!(text == "out\nerr\n" || text == "err\nout\n", "{text}");
    // FIFOs, stdin too.
    let rig = Rig::new(&["sh", "-c", "cat; echo err >&2"]).await;
    let path = |name: &str| rig.directory.path().join(name);
    for name in ["in", "out", "err"] {
        nix::unistd::mkfifo(&path(name), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    }
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let request = api::CreateTaskRequest {
        stdin: text("in"),
        stdout: text("out"),
        stderr: text("err"),
        ..rig.create_request()
    };
    rig.client.create(deadline(60), &request).await.unwrap();
    let mut out = tokio::net::unix::pipe::OpenOptions::new()
        .open_receiver(path("out"))
        .unwrap();
    let mut err = tokio::net::unix::pipe::OpenOptions::new()
        .open_receiver(path("err"))
        .unwrap();
    let mut stdin = tokio::net::unix::pipe::OpenOptions::new()
        .open_sender(path("in"))
        .unwrap();
    rig.start().await;
    let payload = vec![b'x'; 500_000];
    let writing = async {
        tokio::io::AsyncWriteExt::write_all(&mut stdin, &payload)
            .await
            .unwrap();
        drop(stdin);
        // The FIFO ends when the client has closed it and has said so.
        let request = api::CloseIORequest {
            id: rig.id.clone(),
            stdin: true,
            ..Default::default()
        };
        rig.client.close_io(deadline(10), &request).await.unwrap();
    };
    let mut heard = vec![0; payload.len()];
    let reading = async {
        out.read_exact(&mut heard).await.unwrap();
    };
    tokio::join!(writing, reading);
    assert!(heard == payload);
    assert_eq!(rig.wait("").await, 0);
    rig.delete("").await.unwrap();
    let mut rest = String::new();
    err.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "err\n");
}

#[tokio::test]
async fn a_logging_program() {
    let rig = Rig::new(&["sh", "-c", "echo out; echo err >&2"]).await;
    let logger = rig.directory.path().join("logger");
    let got = rig.directory.path().join("got");
    let script = "#!/bin/sh\nexec >$2 2>&1\necho $CONTAINER_ID $CONTAINER_NAMESPACE\necho x >&5\nexec 5>&-\ncat <&3\ncat <&4\n";
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let url = format!("binary://{}?path={}", logger.display(), got.display());
    let request = api::CreateTaskRequest {
        stdout: url.clone(),
        stderr: url,
        ..rig.create_request()
    };
    rig.client.create(deadline(60), &request).await.unwrap();
    rig.start().await;
    assert_eq!(rig.wait("").await, 0);
    let expected = format!("{} test\nout\nerr\n", rig.id);
    until("the logger has all", || {
        fs::read_to_string(&got).unwrap_or_default() == expected
    })
    .await;
    rig.delete("").await.unwrap();
}

#[tokio::test]
async fn the_binary_cannot_be_overwritten_from_a_container() {
    // What a container with host pids and root could try on a shim started by `start` or davitd.
    let setup = Setup {
        process: Some(json!({"user": {"uid": 0, "gid": 0}})),
        ..Setup::default()
    };
    let rig = Rig::with(&["true"], setup).await;
    let protected = davit_sys::protect::protect(std::path::Path::new(&rig::shim()));
    let child = protected
        .command(std::path::Path::new(&rig::shim()))
        .arg("-v")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&child.stdout).contains("Version"));
    drop(rig);
}
