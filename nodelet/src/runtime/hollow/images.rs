//! Images in memory.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;

use super::Hollow;
use crate::runtime::{
    Error, FsMount, Image, ImageUsage, Images, Progress, ProgressEvent, PullRequest, Result,
    hex_sha256,
};

#[async_trait]
impl Images for Hollow {
    async fn get(&self, reference: &str) -> Result<Option<Image>> {
        let state = self.state.lock();
        let by_id = || state.images.values().find(|image| image.id == reference);
        Ok(state.images.get(reference).or_else(by_id).cloned())
    }

    async fn list(&self) -> Result<Vec<Image>> {
        Ok(self.state.lock().images.values().cloned().collect())
    }

    async fn pull(&self, request: &PullRequest, progress: &dyn Progress) -> Result<Image> {
        let mut state = self.state.lock();
        if let Some(error) = state.failing_pulls.get(&request.reference) {
            return Err(error.clone().into());
        }
        let digest = format!("sha256:{}", hex_sha256(&[&request.reference]));
        let image = state
            .images
            .entry(request.reference.clone())
            .or_insert_with(|| Image {
                id: digest.clone(),
                digest: digest.clone(),
                references: vec![request.reference.clone()],
                ..Image::default()
            });
        progress.update(ProgressEvent::Resolved {
            digest,
            layers: 0,
            total_bytes: 0,
        });
        Ok(image.clone())
    }

    async fn load(&self, archive: &Path, _progress: &dyn Progress) -> Result<Vec<Image>> {
        Err(Error::Invalid(format!(
            "a hollow node has no images to load {} into",
            archive.display()
        )))
    }

    async fn remove(&self, reference: &str) -> Result<()> {
        self.state
            .lock()
            .images
            .retain(|name, image| name != reference && image.id != reference);
        Ok(())
    }

    async fn open_view(&self, _id: &str, _pod_uid: &str, _volume: &str) -> Result<Vec<FsMount>> {
        Ok(Vec::new())
    }

    async fn close_views(&self, _pod_uid: &str) -> Result<()> {
        Ok(())
    }

    async fn prune(&self, keep: &[String]) -> Result<Vec<Image>> {
        let mut state = self.state.lock();
        let used: Vec<String> = state
            .containers
            .values()
            .map(|c| c.image_id.clone())
            .collect();
        let (kept, gone) = std::mem::take(&mut state.images)
            .into_iter()
            .partition(|(name, image)| keep.contains(name) || used.contains(&image.id));
        state.images = kept;
        Ok(BTreeMap::into_values(gone).collect())
    }

    async fn usage(&self) -> Result<ImageUsage> {
        Ok(ImageUsage::default())
    }
}
