//! A TCP proxy in front of a registry that can cut connections, and notes
//! what was asked for.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[derive(Clone, Default)]
struct State {
    /// First lines and headers of all requests.
    requests: Arc<Mutex<Vec<String>>>,
    /// Bytes of answers after which a connection is cut; 0 for never.
    cut_after: Arc<AtomicU64>,
    /// Connections that are cut after so many bytes of requests.
    uploads_to_cut: Arc<AtomicU64>,
}

/// Bytes of a request after which an upload is cut.
const UPLOAD_CUT: u64 = 600 << 10;

pub struct Proxy {
    state: State,
    pub port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State::default();
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(shared.clone().pass(client, to));
            }
        });
        Self { state, port, task }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Cuts each connection after this many bytes of answers; 0 for never.
    pub fn cut_after(&self, bytes: u64) {
        self.state.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// Cuts this many uploads in the middle.
    pub fn cut_uploads(&self, count: u64) {
        self.state.uploads_to_cut.store(count, Ordering::SeqCst);
    }

    /// All requests whose head contains this.
    pub fn requests(&self, with: &str) -> Vec<String> {
        let requests = self.state.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request.contains(with))
            .cloned()
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    async fn pass(self, client: TcpStream, to: u16) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
            return;
        };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let requests = self.requests.clone();
        let to_cut = self.uploads_to_cut.clone();
        let up = async move {
            let mut passed = 0;
            let mut block = vec![0; 64 << 10];
            loop {
                let n = from_client.read(&mut block).await.unwrap_or(0);
                if n == 0 {
                    break;
                }
                let text = String::from_utf8_lossy(&block[..n]).into_owned();
                if let Some(end) = text.find("\r\n\r\n")
                    && text.contains(" HTTP/1.1\r\n")
                {
                    requests.lock().unwrap().push(text[..end].to_owned());
                }
                if to_server.write_all(&block[..n]).await.is_err() {
                    break;
                }
                passed += n as u64;
                let less = |left: u64| left.checked_sub(1);
                if passed > UPLOAD_CUT
                    && to_cut
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                        .is_ok()
                {
                    break;
                }
            }
        };
        let cut_after = self.cut_after.clone();
        let down = async move {
            let mut block = vec![0; 16 << 10];
            let mut passed = 0;
            loop {
                let n = from_server.read(&mut block).await.unwrap_or(0);
                if n == 0 || to_client.write_all(&block[..n]).await.is_err() {
                    break;
                }
                passed += n as u64;
                let cut = cut_after.load(Ordering::SeqCst);
                if cut > 0 && passed > cut {
                    break;
                }
            }
        };
        tokio::select! {
            () = up => {}
            () = down => {}
        }
    }
}
