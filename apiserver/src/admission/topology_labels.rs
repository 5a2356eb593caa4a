//! `PodTopologyLabels`: a pod has the zone and the region of its node as labels, so that the
//! downward API can tell it of them. They come with the node: when the pod is bound, or when it is
//! created with a node's name.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#podtopologylabels>

use async_trait::async_trait;
use peapod_api::labels::{REGION, ZONE};
use serde_json::Value;

use super::{Attributes, Plugin, find};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

pub struct PodTopologyLabels;

#[async_trait]
impl Plugin for PodTopologyLabels {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, pod: &mut Value) -> Result<()> {
        if write.creates("", "pods") {
            let node = value::text(pod, "spec.nodeName").to_owned();
            label(api, pod, &node);
        }
        Ok(())
    }
}

/// Gives a pod the labels of a node, if there is one of that name.
pub fn label(api: &Api, pod: &mut Value, node: &str) {
    let node = match node {
        "" => None,
        name => find(api, "", "nodes", "", name),
    };
    if let Some(node) = node {
        copy(pod, &node);
    }
}

fn copy(pod: &mut Value, node: &Value) {
    let known = value::map(node, "metadata.labels");
    for name in [ZONE, REGION] {
        if let Some(place) = known.and_then(|known| known.get(name)) {
            value::entry(pod, "metadata.labels")[name] = place.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_gets_the_place_of_its_node() {
        let node = json!({"metadata": {"labels": {ZONE: "z", "other": "x"}}});
        let mut pod = json!({"metadata": {"labels": {"app": "a", ZONE: "elsewhere"}}});
        copy(&mut pod, &node);
        assert_eq!(pod["metadata"]["labels"], json!({"app": "a", ZONE: "z"}));
        let mut bare = json!({"metadata": {}});
        copy(&mut bare, &node);
        assert_eq!(bare["metadata"]["labels"], json!({ZONE: "z"}));
        copy(&mut bare, &json!({"metadata": {}}));
        assert_eq!(bare["metadata"]["labels"], json!({ZONE: "z"}));
    }
}
