//! One POST to a plugin, over a connection of its own.

use std::io;

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};

use super::discovery::Address;

/// Most bytes of an answer: a list of tens of thousands of volumes.
const MAX_ANSWER: usize = 8 << 20;

const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// Whether the status was 2xx, and the body.
pub(super) async fn post(
    address: &Address,
    method: &str,
    body: String,
) -> io::Result<(bool, Bytes)> {
    match address {
        Address::Unix(path) => over(UnixStream::connect(path).await?, method, body).await,
        Address::Tcp(host) => over(TcpStream::connect(host).await?, method, body).await,
    }
}

async fn over<S>(stream: S, method: &str, body: String) -> io::Result<(bool, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends with this call, whatever becomes of it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::post(format!("/{method}"))
        .header("Host", "plugin")
        .header("Accept", MEDIA_TYPE)
        .header("Content-Type", MEDIA_TYPE)
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let reply = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let ok = reply.status().is_success();
    let body = Limited::new(reply.into_body(), MAX_ANSWER);
    let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok((ok, bytes))
}
