//! The door itself, without a davitd behind it: versions, headers, refusals
//! and clients that misbehave.

#![allow(clippy::unwrap_used)] // tests fail by panicking

use std::{path::PathBuf, time::Duration};

use davit_gateway::{Config, bind, serve};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
};

struct Door {
    _dir: TempDir,
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Door {
    /// A gateway whose davitd is not there.
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = bind(&path, None).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let config = Config::new(dir.path().join("no-davitd.sock"));
        let serving = tokio::spawn(serve(listener, config, async {
            let _ = stopped.await;
        }));
        Self {
            _dir: dir,
            path,
            stop: Some(stop),
            serving,
        }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// Sends a request as it stands and reads until the server closes.
    async fn exchange(&self, request: &str) -> Reply {
        let mut socket = self.connect().await;
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let read = socket.read_to_string(&mut text);
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .unwrap()
            .unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        Reply {
            status: lines
                .next()
                .unwrap()
                .split(' ')
                .nth(1)
                .unwrap()
                .parse()
                .unwrap(),
            head: lines.map(str::to_owned).collect(),
            body: body.to_owned(),
        }
    }

    async fn request(&self, method: &str, path: &str) -> Reply {
        self.exchange(&format!(
            "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    async fn post(&self, path: &str, content_type: &str, body: &str) -> Reply {
        let length = body.len();
        self.exchange(&format!(
            "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: \
             {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: Vec<String>,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn message(&self) -> String {
        assert_eq!(
            self.header("Content-Type"),
            Some("application/json"),
            "{self:?}"
        );
        let value: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        value["message"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn ping_answers_with_all_headers_and_without_davitd() {
    let door = Door::open();
    for method in ["GET", "HEAD"] {
        let reply = door.request(method, "/_ping").await;
        assert_eq!(reply.status, 200);
        for (name, value) in [
            ("Api-Version", "1.51"),
            ("Ostype", "linux"),
            ("Docker-Experimental", "false"),
            ("Builder-Version", "1"),
            ("Swarm", "inactive"),
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Pragma", "no-cache"),
            ("Content-Type", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{name}");
        }
        assert!(reply.header("Server").unwrap().starts_with("Docker/"));
        assert_eq!(reply.body, if method == "GET" { "OK" } else { "" });
    }
    assert_eq!(door.request("GET", "/v1.41/_ping").await.status, 200);
}

#[tokio::test]
async fn refusals_are_dockerds() {
    let door = Door::open();
    for (method, path, status, message) in [
        ("GET", "/nosuch", 404, "page not found"),
        ("PATCH", "/info", 404, "page not found"),
        ("GET", "/containers/create", 404, "page not found"),
        (
            "GET",
            "/v1.99/info",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.51",
        ),
        (
            "GET",
            "/v1.20/info",
            400,
            "client version 1.20 is too old. Minimum supported API version is 1.24, please \
             upgrade your client to a newer version",
        ),
        ("GET", "/plugins/x/json", 404, "plugin \"x\" not found"),
        (
            "GET",
            "/services",
            503,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
             to connect this node to swarm and try again.",
        ),
        ("GET", "/containers/json?filters=x", 400, "invalid filter"),
        (
            "GET",
            "/containers/json?filters={%22nosuch%22:[%22x%22]}",
            400,
            "invalid filter 'nosuch'",
        ),
        (
            "GET",
            "/containers/x/logs",
            400,
            "Bad parameters: you must choose at least one stream",
        ),
        (
            "POST",
            "/containers/x/wait?condition=never",
            400,
            "invalid condition: \"never\"",
        ),
        (
            "POST",
            "/containers/x/stop?t=soon",
            400,
            "strconv.Atoi: parsing \"soon\": invalid syntax",
        ),
        (
            "POST",
            "/containers/x/rename",
            400,
            "Neither old nor new names may be empty",
        ),
        ("HEAD", "/containers/x/archive", 400, ""),
    ] {
        let reply = door.request(method, path).await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("Api-Version"), Some("1.51"));
        if method != "HEAD" {
            assert_eq!(reply.message(), message, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn bodies_are_checked_before_davitd_is_asked() {
    let door = Door::open();
    let create = "/containers/create";
    let json = "application/json";
    let empty = "config cannot be empty in order to create a container";
    for (path, content_type, body, status, message) in [
        (create, json, "", 400, empty),
        (
            create,
            json,
            "  ",
            400,
            "invalid JSON: got EOF while reading request body",
        ),
        (create, json, "{", 400, "invalid JSON: unexpected EOF"),
        (create, json, "{}", 400, empty),
        (
            create,
            "text/plain",
            "{}",
            400,
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
        (
            create,
            json,
            r#"{"Image":"x","HostConfig":{"Memory":"lots"}}"#,
            400,
            "invalid JSON: json: cannot unmarshal string into Go struct field \
             ContainerConfigWrapper.HostConfig.Memory of type int64",
        ),
        (
            "/containers/x/exec",
            json,
            r#"{"Cmd":[]}"#,
            400,
            "No exec command specified",
        ),
        (
            "/containers/create?name=a%20b",
            json,
            r#"{"Image":"x"}"#,
            400,
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ),
    ] {
        let reply = door.post(path, content_type, body).await;
        assert_eq!(
            (reply.status, reply.message().as_str()),
            (status, message),
            "{path} {body}"
        );
    }
    let large = format!(r#"{{"Image":"{}"}}"#, "x".repeat(5 << 20));
    let reply = door.post(create, json, &large).await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn without_davitd_calls_are_unavailable_and_fixed_answers_work() {
    let door = Door::open();
    let reply = door.request("GET", "/info").await;
    assert_eq!(reply.status, 503);
    assert!(!reply.message().is_empty());
    // Networks are davitd's, so that nothing can be said of them without it.
    for path in ["/networks", "/networks/host"] {
        assert_eq!(door.request("GET", path).await.status, 503, "{path}");
    }
    let prune = door.request("POST", "/build/prune").await;
    assert_eq!(
        prune.body.trim(),
        r#"{"CachesDeleted":[],"SpaceReclaimed":0}"#
    );
}

#[tokio::test]
async fn an_empty_host_and_half_closed_clients_are_served() {
    let door = Door::open();
    let reply = door
        .exchange("GET /_ping HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(reply.status, 200);
    let mut socket = door.connect().await;
    socket
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        .await
        .unwrap();
    socket.shutdown().await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nOK"),
        "{text}"
    );
}

#[tokio::test]
async fn slow_clients_hold_up_nobody() {
    let door = Door::open();
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut socket = door.connect().await;
        socket
            .write_all(b"POST /containers/create HTTP/1.1\r\nHost")
            .await
            .unwrap();
        slow.push(socket);
    }
    assert_eq!(door.request("GET", "/_ping").await.status, 200);
    let mut socket = door.connect().await;
    socket
        .write_all(b"\x00\xff\x16garbage\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    assert_eq!(door.request("GET", "/_ping").await.status, 200);
}

#[tokio::test]
async fn it_stops_when_told() {
    let mut door = Door::open();
    let _idle = door.connect().await;
    assert_eq!(door.request("GET", "/_ping").await.status, 200);
    door.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), &mut door.serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
