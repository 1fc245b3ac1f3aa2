//! What a registry says about an image, without pulling it.

use davit_store::{
    Error, Result,
    descriptor::{Descriptor, Platform},
};

use super::{
    RegistryAuth, RemoteManifest,
    facts::{ConfigFile, MAX_DOCUMENT, is_attestation, parse_index},
};
use crate::{Digest, Images, Reference, media, reference::DEFAULT_DOMAIN};

impl Images {
    /// Asks the registry about an image without pulling it. `NotFound` when it
    /// has none, `Unauthenticated` when it wants other credentials.
    pub async fn remote_manifest(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<RemoteManifest> {
        let reference = Reference::parse(reference)?.or_latest();
        let repository = self.registry().repository(&reference, auth.as_ref())?;
        let fetched = repository.manifest(reference.target()).await?;
        let platforms = if media::is_index(&fetched.media_type) {
            let entries = parse_index(fetched.digest.as_str(), &fetched.bytes)?;
            let entries = entries.into_iter().filter(|entry| !is_attestation(entry));
            entries.filter_map(|entry| entry.platform).collect()
        } else {
            // What is no image (a chart, a signature) has no platform.
            match super::facts::parse_manifest(fetched.digest.as_str(), &fetched.bytes) {
                Err(_) => Vec::new(),
                Ok(parts) => {
                    let config = Digest::parse(&parts.config.digest)?;
                    let size = u64::try_from(parts.config.size).unwrap_or(0);
                    let file = repository.small_blob(&config, size, MAX_DOCUMENT).await?;
                    vec![platform_of(&ConfigFile::parse(&file)?)]
                }
            }
        };
        Ok(RemoteManifest {
            descriptor: Descriptor {
                media_type: fetched.media_type,
                digest: fetched.digest.to_string(),
                size: i64::try_from(fetched.bytes.len()).unwrap_or(i64::MAX),
                ..Descriptor::default()
            },
            manifest_json: fetched.bytes,
            platforms,
        })
    }

    /// Tries credentials at a registry ("" is docker.io).
    /// `Unauthenticated` when it does not take them.
    pub async fn login(&self, server: &str, auth: RegistryAuth) -> Result<()> {
        let server = server.split_once("://").map_or(server, |(_, rest)| rest);
        let domain = match server.split('/').next().unwrap_or_default() {
            "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_DOMAIN,
            domain => domain,
        };
        let name = Reference::parse(&format!("{domain}/davit/login"))
            .map_err(|_| Error::invalid(format!("{server:?} is no registry")))?;
        self.registry()
            .repository(&name, Some(&auth))?
            .login()
            .await
    }
}

fn platform_of(file: &ConfigFile) -> Platform {
    Platform {
        os: file.os.clone(),
        architecture: file.architecture.clone(),
        variant: file.variant.clone(),
        os_version: file.os_version.clone(),
    }
}
