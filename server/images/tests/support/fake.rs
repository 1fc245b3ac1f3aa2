//! A registry that answers whatever a test wants it to.

use std::sync::{Arc, Mutex};

use davit_images::Digest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A request's first line and headers, as they came, in lower case.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub head: String,
}

/// What to answer.
#[derive(Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Goes on with zeros for ever.
    pub endless: bool,
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Answer = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

pub struct Fake {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    pub async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let answer: Answer = Arc::new(answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, answer.clone(), noted.clone()));
            }
        });
        Self { port, asked, task }
    }

    pub fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    pub fn asked(&self, with: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.path.contains(with))
            .cloned()
            .collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, answer: Answer, noted: Arc<Mutex<Vec<Asked>>>) {
    let mut text = Vec::new();
    let mut block = vec![0; 16 << 10];
    let end = loop {
        let n = client.read(&mut block).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        text.extend_from_slice(&block[..n]);
        let end = text.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            break end;
        }
    };
    let head = String::from_utf8_lossy(&text[..end]).into_owned();
    let mut line = head.lines().next().unwrap_or_default().split(' ');
    let asked = Asked {
        method: line.next().unwrap_or_default().into(),
        path: line.next().unwrap_or_default().into(),
        head: head.to_lowercase(),
    };
    let reply = answer(&asked);
    let is_head = asked.method == "HEAD";
    noted.lock().unwrap().push(asked);
    let mut out = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    let has = |name: &str| reply.headers.iter().any(|(other, _)| other == name);
    if !reply.endless && !has("content-length") {
        out.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    let _ = client.write_all(out.as_bytes()).await;
    if is_head {
        return;
    }
    let _ = client.write_all(&reply.body).await;
    while reply.endless && client.write_all(&[0; 64 << 10]).await.is_ok() {}
    let _ = client.shutdown().await;
}

/// An image as a registry hands it out, to be tampered with.
#[derive(Clone)]
pub struct Parts {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
}

impl Parts {
    pub fn new(files: &[(String, Vec<u8>)]) -> Self {
        let plain = super::fixture::tar(files);
        let layer = super::fixture::gzip(&plain);
        let config = json!({
            "architecture": super::fixture::host(), "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&plain)]},
        })
        .to_string()
        .into_bytes();
        let size = layer.len();
        Self::with(config, layer, size)
    }

    /// A manifest for these blobs that claims this size for the layer.
    pub fn with(config: Vec<u8>, layer: Vec<u8>, size: usize) -> Self {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config), "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(&layer), "size": size,
            }],
        });
        Self {
            manifest: manifest.to_string().into_bytes(),
            config,
            layer,
        }
    }

    pub fn layer_digest(&self) -> String {
        Digest::of(&self.layer).to_string()
    }

    /// The honest answer.
    pub fn answer(&self, asked: &Asked) -> Reply {
        let path = asked.path.split('?').next().unwrap_or_default();
        if path == "/v2/" {
            return Reply::ok("{}");
        }
        if path.contains("/manifests/") {
            return Reply::ok(self.manifest.clone())
                .header("content-type", "application/vnd.oci.image.manifest.v1+json");
        }
        for blob in [&self.config, &self.layer] {
            if path.ends_with(Digest::of(blob).as_str()) {
                return Reply::ok(blob.clone());
            }
        }
        Reply::status(404)
    }
}
