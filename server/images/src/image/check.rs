//! Whether records, blobs and names agree, for `davitd check`.

use davit_store::{
    Kind, Result,
    table::{ImageRecord, Namespaces},
};

use super::names::familiar;
use crate::{Digest, Images, content::blocking, digest::Hasher};

impl Images {
    /// Compares records with blobs and names on disk: one sentence for each
    /// thing that is wrong. With `repair` damaged blobs are forgotten, so that
    /// a pull brings them again, and the files of names are written anew.
    pub async fn check(&self, repair: bool) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for (namespace, _) in self.store().scan::<Namespaces>(())? {
            self.check_blobs(&namespace, repair, &mut problems).await?;
            for record in self.records(&namespace)? {
                if let Err(error) = self.check_image(&namespace, &record).await {
                    problems.push(format!(
                        "image {} in namespace {namespace} is not whole ({}): pull it again",
                        familiar(&record.name),
                        error.chain()
                    ));
                }
            }
            if repair {
                self.save_names(&namespace).await?;
            }
        }
        Ok(problems)
    }

    async fn check_blobs(
        &self,
        namespace: &str,
        repair: bool,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        for blob in self.content().list(namespace)? {
            let opened = self.content().open(namespace, &blob.digest);
            let wrong = match opened {
                Ok((file, _)) => !has_digest(file, blob.digest.clone()).await?,
                Err(error) if error.kind() == Kind::DataLoss => true,
                Err(error) => return Err(error),
            };
            if wrong {
                problems.push(format!("blob {} in namespace {namespace} is damaged", blob.digest));
                if repair {
                    self.content().remove(namespace, &blob.digest).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether at least one platform of an image is all here.
    async fn check_image(&self, namespace: &str, record: &ImageRecord) -> Result<()> {
        let wanted = crate::platform::Wanted::new(None);
        let facts = self.facts(namespace, &record.target, &wanted).await?;
        self.content().info(namespace, &Digest::parse(&facts.config.digest)?)?;
        for layer in &facts.layers {
            self.content().info(namespace, &Digest::parse(&layer.digest)?)?;
        }
        Ok(())
    }
}

async fn has_digest(mut file: std::fs::File, digest: Digest) -> Result<bool> {
    use std::io::Read as _;
    blocking(move || {
        let mut hasher = Hasher::new(digest.algorithm());
        let mut block = vec![0; 1 << 20];
        loop {
            match file.read(&mut block) {
                Ok(0) => return Ok(hasher.finish() == digest),
                Ok(read) => hasher.update(&block[..read]),
                // A disk that can't be read has lost the blob.
                Err(_) => return Ok(false),
            }
        }
    })
    .await
}
