//! containerd's image records, and who uses images.

use std::collections::BTreeSet;

use containerd_client::services::v1::snapshots::ListSnapshotsRequest;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, Image as Record, ListContainersRequest,
    ListImagesRequest, UpdateImageRequest,
};

use super::manifest::Descriptor;
use super::{ContainerdImages, SNAPSHOT_IMAGE, unpack};
use crate::runtime::Result;
use crate::runtime::containerd::client::SNAPSHOTTER;

impl ContainerdImages {
    /// The IDs of the images that containers are made of: by containerd's containers, and by the file
    /// systems of those that it does not know of.
    pub(super) async fn used(&self) -> Result<BTreeSet<String>> {
        let request = ListContainersRequest {
            filters: Vec::new(),
        };
        let mut service = self.client.containers();
        let listed = self
            .client
            .call("listing containers", service.list(request))
            .await?;
        let mut used: BTreeSet<String> = listed.containers.into_iter().map(|c| c.image).collect();
        let what = "listing snapshots";
        let request = ListSnapshotsRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            filters: Vec::new(),
        };
        let mut service = self.client.snapshots();
        let mut stream = self.client.call(what, service.list(request)).await?;
        while let Some(part) = stream
            .message()
            .await
            .map_err(|s| self.client.error(what, &s))?
        {
            let labels = part.info.into_iter().map(|info| info.labels);
            used.extend(labels.filter_map(|mut labels| labels.remove(SNAPSHOT_IMAGE)));
        }
        Ok(used)
    }

    /// All records.
    pub(super) async fn records(&self) -> Result<Vec<Record>> {
        let request = ListImagesRequest {
            filters: Vec::new(),
        };
        Ok(self
            .client
            .call("listing images", self.client.images().list(request))
            .await?
            .images)
    }

    /// Makes the record, or points an existing one to the new image.
    pub(super) async fn set_record(&self, name: &str, target: &Descriptor) -> Result<()> {
        let record = Record {
            name: name.to_owned(),
            target: Some(unpack::containerd_descriptor(target)),
            ..Record::default()
        };
        let what = format!("recording image {name}");
        let request = CreateImageRequest {
            image: Some(record.clone()),
            source_date_epoch: None,
        };
        let mut images = self.client.images();
        if self
            .client
            .call_create(&what, images.create(request))
            .await?
            .is_none()
        {
            let request = UpdateImageRequest {
                image: Some(record),
                ..UpdateImageRequest::default()
            };
            self.client.call(&what, images.update(request)).await?;
        }
        Ok(())
    }

    /// Removes one; with `sync` what hung on it is gone when this returns.
    pub(super) async fn delete_record(&self, name: &str, sync: bool) -> Result<()> {
        let request = DeleteImageRequest {
            name: name.to_owned(),
            sync,
            ..DeleteImageRequest::default()
        };
        let what = format!("removing image {name}");
        self.client
            .call_gone_ok(&what, self.client.images().delete(request))
            .await
    }
}
