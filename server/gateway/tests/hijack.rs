//! Attached connections against a davit.v1 server that the test plays itself,
//! so that each end can be held still: what the gateway asks the engine for
//! when a client half-closes, closes, or sends early.

#![allow(clippy::unwrap_used)] // tests fail by panicking

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use davit_client::v1::{
    self, AttachRequest, AttachResponse, attach_request::Message as In,
    attach_response::Message as Out,
};
use davit_gateway::{Config, bind, serve};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, body::Body, server::Grpc};
use tonic_prost::ProstCodec;

const PATIENCE: Duration = Duration::from_secs(10);

/// What the engine's side of an attach saw.
#[derive(Debug, PartialEq)]
enum Seen {
    Start,
    Stdin(Vec<u8>),
    CloseStdin,
    /// The gateway gave the call up.
    Gone,
}

/// The engine that the test plays: one container with the given options, one
/// attach.
#[derive(Clone)]
struct Engine(Arc<Inner>);

struct Inner {
    options: v1::ContainerOptions,
    state: v1::ContainerState,
    seen: mpsc::UnboundedSender<Seen>,
    output: Mutex<Option<mpsc::UnboundedReceiver<Result<AttachResponse, Status>>>>,
}

impl Engine {
    fn inspect(&self) -> v1::ContainerDetails {
        let container = v1::Container {
            id: "c".repeat(64),
            state: Some(self.0.state.clone()),
            ..Default::default()
        };
        v1::ContainerDetails {
            container: Some(container),
            options: Some(self.0.options.clone()),
            ..Default::default()
        }
    }

    fn attach(
        &self,
        requests: Streaming<AttachRequest>,
    ) -> BoxStream<'static, Result<AttachResponse, Status>> {
        let seen = self.0.seen.clone();
        tokio::spawn(async move {
            let mut requests = requests;
            while let Ok(Some(request)) = requests.message().await {
                let _ = seen.send(match request.message {
                    Some(In::Start(_)) => Seen::Start,
                    Some(In::Stdin(data)) => Seen::Stdin(data.to_vec()),
                    Some(In::CloseStdin(_)) => Seen::CloseStdin,
                    Some(In::Resize(_)) | None => continue,
                });
            }
            let _ = seen.send(Seen::Gone);
        });
        let attached = Out::Attached(v1::Attached {
            tty: self.0.options.tty,
        });
        let first = Ok(AttachResponse {
            message: Some(attached),
        });
        let output = self.0.output.lock().unwrap().take().expect("one attach");
        futures::stream::iter([first])
            .chain(UnboundedReceiverStream::new(output))
            .boxed()
    }
}

type Reply<T> = BoxFuture<'static, Result<Response<BoxStream<'static, Result<T, Status>>>, Status>>;

struct Inspect(Engine);
impl tonic::server::ServerStreamingService<v1::InspectContainerRequest> for Inspect {
    type Response = v1::ContainerDetails;
    type ResponseStream = BoxStream<'static, Result<v1::ContainerDetails, Status>>;
    type Future = Reply<v1::ContainerDetails>;
    fn call(&mut self, _: Request<v1::InspectContainerRequest>) -> Self::Future {
        let details = futures::stream::iter([Ok(self.0.inspect())]).boxed();
        async move { Ok(Response::new(details)) }.boxed()
    }
}

struct Attach(Engine);
impl tonic::server::StreamingService<AttachRequest> for Attach {
    type Response = AttachResponse;
    type ResponseStream = BoxStream<'static, Result<AttachResponse, Status>>;
    type Future = Reply<AttachResponse>;
    fn call(&mut self, request: Request<Streaming<AttachRequest>>) -> Self::Future {
        let output = self.0.attach(request.into_inner());
        async move { Ok(Response::new(output)) }.boxed()
    }
}

/// One gRPC service of the played engine.
#[derive(Clone)]
struct Service<const CONTAINERS: bool>(Engine);
impl tonic::server::NamedService for Service<true> {
    const NAME: &'static str = "davit.v1.Containers";
}
impl tonic::server::NamedService for Service<false> {
    const NAME: &'static str = "davit.v1.Tasks";
}
impl<const CONTAINERS: bool> tower::Service<http::Request<Body>> for Service<CONTAINERS> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let engine = self.0.clone();
        async move {
            Ok(match request.uri().path() {
                "/davit.v1.Containers/Inspect" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.server_streaming(Inspect(engine), request).await
                }
                "/davit.v1.Tasks/Attach" => {
                    Grpc::new(ProstCodec::default())
                        .streaming(Attach(engine), request)
                        .await
                }
                path => Status::unimplemented(path.to_owned()).into_http(),
            })
        }
        .boxed()
    }
}

/// A gateway over a played engine, and the strings of the latter.
struct Stage {
    _dir: TempDir,
    docker: PathBuf,
    seen: mpsc::UnboundedReceiver<Seen>,
    output: Option<mpsc::UnboundedSender<Result<AttachResponse, Status>>>,
}

impl Stage {
    fn set(options: v1::ContainerOptions, state: v1::ContainerState) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (seen_in, seen) = mpsc::unbounded_channel();
        let (output_in, output) = mpsc::unbounded_channel();
        let output = Mutex::new(Some(output));
        let engine = Engine(Arc::new(Inner {
            options,
            state,
            seen: seen_in,
            output,
        }));
        let listener = UnixListener::bind(dir.path().join("davit.sock")).unwrap();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(Service::<true>(engine.clone()))
                .add_service(Service::<false>(engine))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        let docker = dir.path().join("docker.sock");
        let config = Config::new(dir.path().join("davit.sock"));
        tokio::spawn(serve(
            bind(&docker, None).unwrap(),
            config,
            std::future::pending(),
        ));
        Self {
            _dir: dir,
            docker,
            seen,
            output: Some(output_in),
        }
    }

    fn with(open_stdin: bool, stdin_once: bool, tty: bool) -> Self {
        let options = v1::ContainerOptions {
            open_stdin,
            stdin_once,
            tty,
            ..Default::default()
        };
        Self::set(options, v1::ContainerState::default())
    }

    /// Attaches; what `behind` says comes in the same write as the request.
    async fn attach(&self, query: &str, behind: &[u8]) -> (UnixStream, String) {
        let mut socket = UnixStream::connect(&self.docker).await.unwrap();
        let mut request = format!(
            "POST /v1.51/containers/c/attach?stream=1&stdout=1&stderr=1{query} HTTP/1.1\r\n\
             Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(behind);
        socket.write_all(&request).await.unwrap();
        let head = head(&mut socket).await;
        (socket, head)
    }

    async fn next(&mut self) -> Seen {
        tokio::time::timeout(PATIENCE, self.seen.recv())
            .await
            .expect("something")
            .unwrap()
    }

    fn say(&self, message: Out) {
        let answer = AttachResponse {
            message: Some(message),
        };
        self.output.as_ref().unwrap().send(Ok(answer)).unwrap();
    }

    fn exit(&self) {
        self.say(Out::Exit(v1::ExitStatus::default()));
    }
}

async fn head(socket: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, socket.read_u8())
            .await
            .unwrap();
        head.push(byte.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn rest(mut socket: UnixStream) -> Vec<u8> {
    let mut data = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut data))
        .await
        .unwrap()
        .unwrap();
    data
}

#[tokio::test]
async fn the_head_of_an_upgrade_is_dockers() {
    let stage = Stage::with(false, false, false);
    let (_socket, head) = stage.attach("", b"").await;
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    for line in [
        "Content-Type: application/vnd.docker.multiplexed-stream\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: tcp\r\n",
        "Api-Version: 1.51\r\n",
    ] {
        assert!(head.contains(line), "{head}");
    }
    let stage = Stage::with(false, false, true);
    let (_socket, head) = stage.attach("", b"").await;
    assert!(
        head.contains("Content-Type: application/vnd.docker.raw-stream\r\n"),
        "{head}"
    );
}

/// `docker run` without -i closes its side before it starts the container.
#[tokio::test]
async fn without_stdin_the_end_of_input_means_nothing() {
    let mut stage = Stage::with(false, false, false);
    let (mut socket, _) = stage.attach("&stdin=1", b"").await;
    assert_eq!(stage.next().await, Seen::Start);
    socket.shutdown().await.unwrap();
    stage.say(Out::Stdout("out".into()));
    stage.say(Out::Stderr("err".into()));
    stage.exit();
    assert_eq!(
        rest(socket).await,
        b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err"
    );
    assert_eq!(stage.next().await, Seen::Gone);
}

/// `docker run -i`: the end of input is the container's, output goes on.
#[tokio::test]
async fn with_stdin_once_the_end_of_input_closes_stdin() {
    let mut stage = Stage::with(true, true, false);
    let (mut socket, _) = stage.attach("&stdin=1", b"early ").await;
    assert_eq!(stage.next().await, Seen::Start);
    assert_eq!(stage.next().await, Seen::Stdin(b"early ".to_vec()));
    socket.write_all(b"late").await.unwrap();
    assert_eq!(stage.next().await, Seen::Stdin(b"late".to_vec()));
    socket.shutdown().await.unwrap();
    assert_eq!(stage.next().await, Seen::CloseStdin);
    stage.say(Out::Stdout("after".into()));
    stage.exit();
    assert_eq!(rest(socket).await, b"\x01\0\0\0\0\0\0\x05after");
}

/// A container that keeps its stdin, or has a terminal: the session ends.
#[tokio::test]
async fn otherwise_the_end_of_input_ends_the_session() {
    for (once, tty) in [(false, false), (true, true)] {
        let mut stage = Stage::with(true, once, tty);
        let (mut socket, _) = stage.attach("&stdin=1", b"").await;
        assert_eq!(stage.next().await, Seen::Start);
        socket.shutdown().await.unwrap();
        assert_eq!(rest(socket).await, b"");
        assert_eq!(stage.next().await, Seen::Gone);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_call() {
    for half_close_first in [false, true] {
        let mut stage = Stage::with(false, false, false);
        let (mut socket, _) = stage.attach("", b"").await;
        assert_eq!(stage.next().await, Seen::Start);
        if half_close_first {
            socket.shutdown().await.unwrap();
        }
        drop(socket);
        assert_eq!(stage.next().await, Seen::Gone);
    }
}

#[tokio::test]
async fn a_terminal_is_raw_both_ways() {
    let mut stage = Stage::with(true, true, true);
    let (mut socket, _) = stage.attach("&stdin=1", b"").await;
    assert_eq!(stage.next().await, Seen::Start);
    socket.write_all(b"\x1b[A").await.unwrap();
    assert_eq!(stage.next().await, Seen::Stdin(b"\x1b[A".to_vec()));
    stage.say(Out::Stdout("$ ".into()));
    stage.say(Out::Detached(v1::Detached {}));
    assert_eq!(rest(socket).await, b"$ ");
}

/// `yes | docker run -i busybox true`: output and its end arrive though the
/// client's input was never read to its end.
#[tokio::test]
async fn unread_input_does_not_reset_the_connection() {
    let mut stage = Stage::with(true, true, false);
    let (socket, _) = stage.attach("&stdin=1", b"").await;
    assert_eq!(stage.next().await, Seen::Start);
    let (mut reader, mut writer) = socket.into_split();
    let flood = tokio::spawn(async move {
        let data = vec![b'y'; 64 << 10];
        while writer.write_all(&data).await.is_ok() {}
    });
    stage.say(Out::Stdout("done".into()));
    stage.exit();
    let mut data = Vec::new();
    let read = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut data))
        .await
        .unwrap();
    read.unwrap();
    assert_eq!(data, b"\x01\0\0\0\0\0\0\x04done");
    drop(reader);
    tokio::time::timeout(PATIENCE, flood)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn without_an_upgrade_the_reply_is_plain_and_ends_with_the_connection() {
    let stage = Stage::with(false, false, false);
    let mut socket = UnixStream::connect(&stage.docker).await.unwrap();
    let request = "POST /containers/c/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\
                   Content-Length: 0\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut socket).await;
    assert!(
        head.contains(" 200 OK\r\n") && !head.contains("Transfer-Encoding"),
        "{head}"
    );
    stage.say(Out::Stdout("raw".into()));
    stage.exit();
    assert_eq!(rest(socket).await, b"\x01\0\0\0\0\0\0\x03raw");
}

#[tokio::test]
async fn a_paused_container_can_not_be_attached_to() {
    let mut state = v1::ContainerState::default();
    state.set_status(v1::ContainerStatus::Paused);
    let stage = Stage::set(v1::ContainerOptions::default(), state);
    let (_socket, head) = stage.attach("", b"").await;
    assert!(head.starts_with("HTTP/1.1 409 Conflict\r\n"), "{head}");
}

#[tokio::test]
async fn a_lot_of_input_arrives_whole() {
    let mut stage = Stage::with(true, true, false);
    let (mut socket, _) = stage.attach("&stdin=1", b"").await;
    assert_eq!(stage.next().await, Seen::Start);
    let data = vec![7; 1 << 20];
    let mut sent = 0;
    for _ in 0..16 {
        socket.write_all(&data).await.unwrap();
        sent += data.len();
    }
    socket.shutdown().await.unwrap();
    let mut got = 0;
    loop {
        match stage.next().await {
            Seen::Stdin(data) => got += data.len(),
            Seen::CloseStdin => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, sent);
}
