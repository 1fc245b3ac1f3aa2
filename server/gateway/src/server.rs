//! Connections: accept, speak HTTP/1.1, notice clients that went away, end
//! with a deadline.

use std::{
    convert::Infallible, io, os::fd::AsFd, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures::FutureExt;
use http::{HeaderValue, Method, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    failure::{Failure, Result},
    gateway::{Config, Gateway},
    reply::Reply,
    request::{Call, Query},
    router,
    routes::ROUTES,
    version::{self, ApiVersion},
};

/// Longest time that a request's head may take; also of an idle connection.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// Connections at once; more are closed at once, so that a flood of idle
/// clients does not eat the daemon's file descriptors.
const MAX_CONNECTIONS: usize = 4096;
/// Time that running requests get when the gateway stops.
const DRAIN_TIME: Duration = Duration::from_secs(3);
/// Pause after a failed accept (no more file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the Docker Engine API on `listener` (for the davitd whose socket
/// `config` names) until `shutdown` resolves, then
/// lets running requests finish for a few seconds.
///
/// # Errors
/// `InvalidInput` when the namespace in `config` can't be sent. Failures of
/// single connections are logged; an unreachable davitd is what the clients
/// are told, with status 503.
pub async fn serve(
    listener: UnixListener,
    config: impl Into<Config>,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let gateway = Gateway::new(config.into())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        tracing::warn!(limit = MAX_CONNECTIONS, "too many connections; closed one");
                        continue;
                    };
                    let (gateway, stopped) = (gateway.clone(), stopped.clone());
                    connections.spawn(async move {
                        connection(socket, gateway, stopped).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME, drained).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(socket: UnixStream, gateway: Gateway, mut stopped: watch::Receiver<bool>) {
    let gone = match HangUp::watch(&socket) {
        Ok(gone) => gone,
        Err(error) => return tracing::warn!(%error, "cannot watch a connection"),
    };
    let service = service_fn(move |request| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(answer(gateway, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        // A client may be done sending and still read (docker's attach).
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let stopping = async {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let result = tokio::select! {
        result = &mut serving => result,
        // With half_close hyper does not take the end of input for the end of
        // the client, so an abandoned `/wait` or `/events` would stay for ever.
        () = gone.wait() => return,
        () = stopping => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

/// Tells when a client has closed its socket altogether, not only its sending
/// side.
pub(crate) struct HangUp(UnixStream);

impl HangUp {
    /// Watches through a descriptor of its own, so that the socket's readiness
    /// in the runtime stays as it is.
    pub(crate) fn watch(socket: &UnixStream) -> io::Result<Self> {
        let twin = socket.as_fd().try_clone_to_owned()?;
        UnixStream::from_std(std::os::unix::net::UnixStream::from(twin)).map(Self)
    }

    pub(crate) async fn wait(&self) {
        while let Ok(ready) = self.0.ready(Interest::WRITABLE).await {
            if ready.is_write_closed() {
                return;
            }
            // Being writable is no news: wait for the next change.
            let _ = self
                .0
                .try_io::<()>(Interest::WRITABLE, || Err(io::ErrorKind::WouldBlock.into()));
        }
    }
}

/// One request from its head to its reply, with the headers that every reply
/// of dockerd has. A panic of a handler is a 500 and nothing more.
async fn answer(gateway: Gateway, request: Request<Incoming>) -> Reply {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begin = std::time::Instant::now();
    let handled = AssertUnwindSafe(handle(gateway, request))
        .catch_unwind()
        .await;
    let mut reply = match handled {
        Ok(Ok(reply)) => reply,
        Ok(Err(failure)) => {
            tracing::debug!(%method, path, status = %failure.status(), message = failure.message());
            failure.into()
        }
        Err(_) => {
            tracing::error!(%method, path, "handler panicked");
            Failure::internal("the gateway failed on this request; see its log").into()
        }
    };
    tracing::debug!(%method, path, status = reply.status().as_u16(), took = ?begin.elapsed());
    let headers = reply.headers_mut();
    for (name, value) in [
        ("api-version", version::MAX_API_VERSION),
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        (
            "server",
            concat!("Docker/", env!("CARGO_PKG_VERSION"), " (linux)"),
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

async fn handle(gateway: Gateway, mut request: Request<Incoming>) -> Result<Reply> {
    let path = percent_decode(request.uri().path());
    let (version, path) = ApiVersion::split(&path)?;
    if *request.method() == Method::OPTIONS {
        return Ok(crate::reply::empty(http::StatusCode::OK));
    }
    let (route, params) =
        router::find(ROUTES, request.method(), path).ok_or_else(Failure::page_not_found)?;
    let upgrade = request
        .headers()
        .contains_key(header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let (head, body) = request.into_parts();
    let headers = head.headers;
    (route.handler)(Call {
        gateway,
        version,
        params,
        query,
        headers,
        body,
        upgrade,
    })
    .await
}

/// Percent escapes only: a "+" in a path is a plus.
fn percent_decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| path.get(at + 1..at + 3))
            .flatten()
            .filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_escapes_are_decoded() {
        assert_eq!(
            percent_decode("/images/a%2Fb%3Ac/json"),
            "/images/a/b:c/json"
        );
        assert_eq!(percent_decode("/a+b/%zz/%4"), "/a+b/%zz/%4");
        assert_eq!(percent_decode("/%ff"), "/\u{fffd}");
    }
}
