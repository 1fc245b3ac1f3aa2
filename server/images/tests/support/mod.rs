//! What the tests of this crate share: a real registry, images made on the
//! spot, and proxies that misbehave.

#![allow(
    dead_code,
    clippy::unwrap_used,
    unreachable_pub,
    missing_debug_implementations
)]

pub mod fake;
pub mod fixture;
pub mod proxy;
pub mod registry;
pub mod token;

use std::{path::Path, time::Duration};

use davit_images::{
    Images, ImagesConfig, Progress, Result,
    image::{Image, PullProgress, PullRequest, PushProgress, PushRequest, RegistryAuth},
};
use davit_store::{Options, Store};
use futures::StreamExt;
use tempfile::TempDir;

pub const NS: &str = "default";

/// Images in a directory of their own.
pub struct Home {
    pub images: Images,
    pub store: Store,
    pub dir: TempDir,
}

impl Home {
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// Images whose configuration was changed.
    pub async fn with(change: impl FnOnce(&mut ImagesConfig)) -> Self {
        let dir = TempDir::with_prefix("davit-images-").unwrap();
        let mut config = ImagesConfig::new(dir.path().join("root"), dir.path().join("state"));
        change(&mut config);
        let store = Store::open(dir.path().join("store"), Options::default())
            .unwrap()
            .store;
        let images = Images::open(config, store.clone()).await.unwrap();
        Self { images, store, dir }
    }

    pub async fn pull(&self, reference: &str) -> Result<Image> {
        self.pull_with(PullRequest {
            reference: reference.into(),
            ..Default::default()
        })
        .await
    }

    pub async fn pull_with(&self, request: PullRequest) -> Result<Image> {
        let messages = all(self.images.pull(NS, request)).await?;
        let last: PullProgress = messages.into_iter().last().unwrap();
        Ok(last.image.expect("the last message has the image"))
    }

    pub async fn push(&self, reference: &str) -> Result<String> {
        let request = PushRequest {
            reference: reference.into(),
            ..Default::default()
        };
        Ok(self
            .push_with(request)
            .await?
            .last()
            .unwrap()
            .digest
            .clone())
    }

    pub async fn push_with(&self, request: PushRequest) -> Result<Vec<PushProgress>> {
        all(self.images.push(NS, request)).await
    }

    /// Actions of image events so far.
    pub async fn events(&self) -> Vec<String> {
        let mut stream = self
            .store
            .events()
            .subscribe(davit_store::From::Start)
            .unwrap();
        let mut actions = Vec::new();
        while let Ok(Some(item)) =
            tokio::time::timeout(Duration::from_millis(100), stream.next()).await
        {
            if let davit_store::Item::Event(event) = item
                && event.kind == "image"
            {
                actions.push(format!("{} {}", event.action, event.id));
            }
        }
        actions
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.store.close();
    }
}

pub fn auth(user: &str, password: &str) -> RegistryAuth {
    RegistryAuth {
        username: user.into(),
        password: password.into(),
        ..Default::default()
    }
}

/// All messages of long work, or its error.
pub async fn all<T>(mut progress: Progress<T>) -> Result<Vec<T>> {
    let mut messages = Vec::new();
    while let Some(message) = progress.next().await {
        messages.push(message?);
    }
    Ok(messages)
}

/// Runs a program that must succeed; gives its output.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program)
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
