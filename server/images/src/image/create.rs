//! New images: on top of another (`commit`, a step of a build), or out of a
//! root file system tar (`import`).

use bytes::Bytes;
use davit_store::{
    Result,
    descriptor::{Descriptor, Platform},
    image_config::ImageConfig,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    CreateFromTarOptions, Image, NewImage, Resolved, changes,
    facts::parse_manifest,
    names::{PARENT_LABEL, Pointing, event},
};
use crate::{
    Digest, Images, Reference,
    content::{Expected, Labels, Opened},
    diff::NewLayer,
    labels,
    lease::{Operation, Resource},
    media,
    platform::{self, Wanted},
    unpack::inflate::Inflate,
};

impl Images {
    /// Makes an image out of a config and, it may be, a new layer on top of
    /// another image's. Call it under the operation that made the layer.
    pub async fn create_image(&self, op: &Operation, new: NewImage) -> Result<Image> {
        let action = if new.name.is_empty() { "create" } else { "tag" };
        self.create_with_event(op, new, action).await
    }

    /// Makes an image of one layer out of a root file system tar (plain, gzip
    /// or zstd). Refused as a layer would be that tries to leave its root.
    pub async fn create_from_tar(
        &self,
        namespace: &str,
        options: CreateFromTarOptions,
        data: impl AsyncRead + Send + 'static,
    ) -> Result<Image> {
        let name = record_name(&options.name)?;
        let mut config = ImageConfig::default();
        changes::apply(&mut config, &options.changes)?;
        let op = self.leases().operation(namespace);
        let layer = self.layer_from(&op, data).await?;
        let comment = match options.message.as_str() {
            "" => "Imported from -".to_owned(),
            message => message.to_owned(),
        };
        let new = NewImage {
            name,
            layer: Some(layer),
            config: Some(config),
            comment,
            platform: options.platform,
            ..NewImage::default()
        };
        self.create_with_event(&op, new, "import").await
    }

    async fn create_with_event(
        &self,
        op: &Operation,
        new: NewImage,
        action: &str,
    ) -> Result<Image> {
        let namespace = op.namespace();
        let name = record_name(&new.name)?;
        let parent = match new.parent.as_str() {
            "" => None,
            parent => Some(
                self.resolve(namespace, parent, new.platform.as_ref())
                    .await?,
            ),
        };
        let config_json = config_of(&new, parent.as_ref())?;
        let (config, config_bytes) = stored(media::OCI_CONFIG, &config_json)?;
        let layers = layers_of(&new, parent.as_ref());
        let manifest_json = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": wire(&config),
            "layers": layers.iter().map(wire).collect::<Vec<_>>(),
        });
        let (manifest, manifest_bytes) = stored(media::OCI_MANIFEST, &manifest_json)?;
        for layer in &layers {
            op.hold(Resource::Blob(Digest::parse(&layer.digest)?));
        }
        self.content()
            .put(op, config_bytes, None, Labels::new())
            .await?;
        // What it says must hold before anything refers to it.
        parse_manifest(&manifest.digest, &manifest_bytes)?;
        let refers = labels::of_manifest(&config, &layers);
        self.content().put(op, manifest_bytes, None, refers).await?;
        let facts = self.manifest_facts(namespace, &manifest).await?;
        let resolved = Resolved {
            name: String::new(),
            target: manifest.clone(),
            manifest: manifest.clone(),
            config_descriptor: config.clone(),
            image_id: config.digest.clone(),
            config_json: Bytes::new(),
            config: facts.run.clone(),
            platform: facts.platform(),
            layers,
            diff_ids: facts.diff_ids.clone(),
            chain_id: facts.chain_id().to_owned(),
        };
        self.unpack(op, &resolved).await?;
        let familiar = super::names::familiar(&name);
        let told = if name.is_empty() { "" } else { &familiar };
        let mut record_labels = Labels::new();
        if let Some(parent) = &parent {
            record_labels.insert(PARENT_LABEL.to_owned(), parent.image_id.clone());
        }
        self.point(Pointing {
            namespace,
            name: &name,
            target: &manifest,
            image_id: &config.digest,
            labels: record_labels,
            event: event(namespace, action, &config.digest, told),
        })
        .await?;
        let found = self.find(namespace, &config.digest).await?;
        self.image_of(namespace, &found, &Wanted::new(None)).await
    }

    /// Stores a root file system tar as a layer, as it came.
    async fn layer_from(&self, op: &Operation, data: impl AsyncRead) -> Result<NewLayer> {
        let reference = format!("import-{}", uuid::Uuid::new_v4());
        let mut writer = match self
            .content()
            .writer(op, &reference, Expected::default())
            .await?
        {
            Opened::Writer(writer) => writer,
            Opened::Exists(_) => {
                return Err(davit_store::Error::internal(
                    "an import was there before it began",
                ));
            }
        };
        let mut data = std::pin::pin!(data);
        loop {
            let mut block = bytes::BytesMut::with_capacity(1 << 20);
            while block.len() < block.capacity() {
                let read = data.read_buf(&mut block).await;
                let read = read.map_err(|error| {
                    davit_store::Error::io("the tar to import can't be read", error)
                })?;
                if read == 0 {
                    break;
                }
            }
            if block.is_empty() {
                break;
            }
            writer.write(block.freeze()).await?;
        }
        let blob = writer.commit(Labels::new()).await?;
        let (file, _) = self.content().open(op.namespace(), &blob.digest)?;
        let (diff_id, media_type) = crate::content::blocking(move || uncompressed(file)).await?;
        let changes =
            Labels::from([("containerd.io/uncompressed".to_owned(), diff_id.to_string())]);
        let blob = self
            .content()
            .label(op.namespace(), &blob.digest, &changes)?;
        Ok(NewLayer {
            blob,
            media_type,
            diff_id,
        })
    }
}

/// Digest of a layer's tar, and the layer's media type by its compression.
fn uncompressed(file: std::fs::File) -> Result<(Digest, String)> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| {
        davit_store::Error::invalid("the tar to import can't be read").with_source(error)
    };
    let source = std::io::BufReader::with_capacity(256 << 10, file);
    let mut inflate = Inflate::new(source).map_err(failed)?;
    let suffix = match &inflate {
        Inflate::Plain(_) => "",
        Inflate::Gzip(_) => "+gzip",
        Inflate::Zstd(_) => "+zstd",
    };
    let media_type = format!("{}{suffix}", media::OCI_LAYER);
    let mut hasher = crate::digest::Hasher::new(crate::digest::Algorithm::Sha256);
    let mut block = vec![0; 256 << 10];
    loop {
        match inflate.read(&mut block).map_err(failed)? {
            0 => return Ok((hasher.finish(), media_type)),
            read => hasher.update(&block[..read]),
        }
    }
}

/// The full name to record; empty for none.
fn record_name(name: &str) -> Result<String> {
    if name.is_empty() {
        return Ok(String::new());
    }
    let reference = Reference::parse(name)?;
    if reference.digest().is_some() {
        return Err(davit_store::Error::invalid(
            "refusing to create a tag with a digest reference",
        ));
    }
    Ok(reference.or_latest().to_string())
}

/// The config blob: the parent's, with what is new.
fn config_of(new: &NewImage, parent: Option<&Resolved>) -> Result<Value> {
    let mut run = match (&new.config, parent) {
        (Some(config), _) => config.clone(),
        (None, Some(parent)) => parent.config.clone(),
        (None, None) => ImageConfig::default(),
    };
    changes::apply(&mut run, &new.changes)?;
    let old: Value = match parent {
        Some(parent) => serde_json::from_slice(&parent.config_json).unwrap_or_default(),
        None => Value::Null,
    };
    let platform = match parent {
        Some(parent) => parent.platform.clone(),
        None => image_platform(new.platform.as_ref()),
    };
    let now = Timestamp::now().to_string();
    let mut diff_ids: Vec<String> = parent
        .iter()
        .flat_map(|parent| &parent.diff_ids)
        .map(ToString::to_string)
        .collect();
    diff_ids.extend(new.layer.iter().map(|layer| layer.diff_id.to_string()));
    let mut history = old
        .get("history")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let author = match new.author.as_str() {
        "" => old
            .get("author")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        author => author.to_owned(),
    };
    history.push(step_of(new, &now));
    let mut config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "created": now,
        "config": run.to_config_object(),
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    let mut set = |key: &str, value: &str| {
        if !value.is_empty() {
            config[key] = json!(value);
        }
    };
    set("variant", &platform.variant);
    set("os.version", &platform.os_version);
    set("author", &author);
    set("container", &new.container);
    set("comment", &new.comment);
    Ok(config)
}

fn step_of(new: &NewImage, now: &str) -> Value {
    let mut step = json!({ "created": now });
    let mut set = |key: &str, value: &str| {
        if !value.is_empty() {
            step[key] = json!(value);
        }
    };
    set("created_by", &new.created_by);
    set("comment", &new.comment);
    set("author", &new.author);
    if new.layer.is_none() {
        step["empty_layer"] = json!(true);
    }
    step
}

fn image_platform(platform: Option<&Platform>) -> Platform {
    match platform {
        // A named platform says what it is; the host's level of the
        // architecture says nothing about files that we did not make.
        Some(_) => Wanted::new(platform).platform().clone(),
        None => Platform {
            variant: String::new(),
            ..platform::host()
        },
    }
}

/// The parent's layers by their OCI names, and the new one.
fn layers_of(new: &NewImage, parent: Option<&Resolved>) -> Vec<Descriptor> {
    let old = parent
        .iter()
        .flat_map(|parent| &parent.layers)
        .map(|layer| Descriptor {
            media_type: oci_layer_type(&layer.media_type),
            annotations: Default::default(),
            ..layer.clone()
        });
    let top = new.layer.iter().map(|layer| Descriptor {
        media_type: layer.media_type.clone(),
        digest: layer.blob.digest.to_string(),
        size: i64::try_from(layer.blob.size).unwrap_or(i64::MAX),
        ..Descriptor::default()
    });
    old.chain(top).collect()
}

/// The OCI name of docker's layer types.
fn oci_layer_type(media_type: &str) -> String {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => media::OCI_LAYER.to_owned(),
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => format!("{}+gzip", media::OCI_LAYER),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{}+zstd", media::OCI_LAYER),
        other => other.to_owned(),
    }
}

/// A document's bytes and what describes them.
pub(crate) fn stored(media_type: &str, document: &Value) -> Result<(Descriptor, Bytes)> {
    let bytes = serde_json::to_vec(document).map_err(|error| {
        davit_store::Error::internal("a document can't be written").with_source(error)
    })?;
    let descriptor = Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(&bytes).to_string(),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        ..Descriptor::default()
    };
    Ok((descriptor, bytes.into()))
}

/// A descriptor as it stands in JSON.
pub(crate) fn wire(descriptor: &Descriptor) -> Value {
    json!({
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    })
}
