//! A token server of the kind that docker hub has: it answers GET with basic
//! credentials and POST with an identity token, with tokens that
//! docker-registry believes because they are signed with a key it knows.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::run;

pub const USER: &str = "alice";
pub const PASSWORD: &str = "secret";
pub const IDENTITY: &str = "a-refresh-token";

pub struct TokenServer {
    keys: Arc<Keys>,
    pub port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

struct Keys {
    dir: TempDir,
}

impl Keys {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sign(&self, scopes: &[String], user: &str) -> String {
        let certificate = fs::read_to_string(self.path("cert.pem")).unwrap();
        let der: String = certificate
            .lines()
            .filter(|line| !line.starts_with("---"))
            .collect();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
        let access: Vec<_> = scopes
            .iter()
            .filter_map(|scope| {
                let (rest, actions) = scope.rsplit_once(':')?;
                let (kind, name) = rest.split_once(':')?;
                // Strangers may read what is public.
                let actions: Vec<_> = actions
                    .split(',')
                    .filter(|action| {
                        user == USER || (*action == "pull" && name.starts_with("public/"))
                    })
                    .collect();
                Some(json!({"type": kind, "name": name, "actions": actions}))
            })
            .collect();
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "iss": "tests", "sub": user, "aud": "registry", "exp": now + 300, "nbf": now - 10,
            "iat": now, "jti": "1", "access": access,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let mut child = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(self.path("key.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(message.as_bytes())
            .unwrap();
        let signature = child.wait_with_output().unwrap().stdout;
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl TokenServer {
    pub async fn start() -> Self {
        let dir = TempDir::with_prefix("davit-token-").unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=tests",
                "-keyout",
                &path("key.pem"),
                "-out",
                &path("cert.pem"),
            ],
        );
        let keys = Arc::new(Keys { dir });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (signing, noted) = (keys.clone(), requests.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(answer(client, signing.clone(), noted.clone()));
            }
        });
        Self {
            keys,
            port,
            requests,
            task,
        }
    }

    /// Lines for a registry that believes this server.
    pub fn registry_config(&self) -> String {
        format!(
            "auth:\n  token:\n    realm: http://127.0.0.1:{}/token\n    service: registry\n    issuer: tests\n    rootcertbundle: {}\n",
            self.port,
            self.keys.path("cert.pem").display()
        )
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut client: TcpStream, keys: Arc<Keys>, noted: Arc<Mutex<Vec<String>>>) {
    let mut text = String::new();
    let mut block = vec![0; 16 << 10];
    loop {
        let n = client.read(&mut block).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        text.push_str(&String::from_utf8_lossy(&block[..n]));
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length: ")
                        .map(str::to_owned)
                })
                .and_then(|length| length.parse::<usize>().ok())
                .unwrap_or(0);
            if body.len() >= length {
                break;
            }
        }
    }
    noted.lock().unwrap().push(text.clone());
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let line = head.lines().next().unwrap_or_default();
    let target = line.split(' ').nth(1).unwrap_or_default();
    let (query, user) = if line.starts_with("POST") {
        let fields: Vec<_> = url::form_urlencoded::parse(body.as_bytes())
            .into_owned()
            .collect();
        let good = fields.contains(&("refresh_token".to_owned(), IDENTITY.to_owned()));
        (body.to_owned(), if good { Some(USER) } else { None })
    } else {
        let basic = format!(
            "authorization: basic {}",
            STANDARD.encode(format!("{USER}:{PASSWORD}"))
        );
        let shown = head
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("authorization:"));
        let user = match shown {
            None => Some(""),
            Some(shown) if shown.eq_ignore_ascii_case(&basic) => Some(USER),
            Some(_) => None,
        };
        (
            target
                .split_once('?')
                .map(|(_, query)| query.to_owned())
                .unwrap_or_default(),
            user,
        )
    };
    let scopes: Vec<String> = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key == "scope")
        .flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let (status, reply) = match user {
        Some(user) => {
            let token = tokio::task::block_in_place(|| keys.sign(&scopes, user));
            ("200 OK", json!({"token": token, "expires_in": 300}).to_string())
        }
        None => (
            "401 Unauthorized",
            json!({"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}).to_string(),
        ),
    };
    let reply = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{reply}",
        reply.len()
    );
    let _ = client.write_all(reply.as_bytes()).await;
}
