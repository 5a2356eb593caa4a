//! Where figures come from: `metrics.k8s.io`, `custom.metrics.k8s.io`, `external.metrics.k8s.io`.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Client;
use peapod_api::quantity::Quantity;
use peapod_api::selector::Selector;
use serde::Deserialize;

use super::replicas::{Sample, Samples, amount};

const RESOURCE: &str = "/apis/metrics.k8s.io/v1beta1";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
/// The time that a figure is of where nothing is said.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

/// What a pod uses, of metrics.k8s.io.
#[derive(Deserialize)]
struct PodUse {
    metadata: Name,
    timestamp: Timestamp,
    window: Option<String>,
    containers: Vec<ContainerUse>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct ContainerUse {
    name: String,
    usage: std::collections::BTreeMap<String, Text>,
}

/// A figure of custom.metrics.k8s.io.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Custom {
    described_object: Name,
    timestamp: Timestamp,
    window_seconds: Option<i64>,
    value: Text,
}

/// A figure of external.metrics.k8s.io.
#[derive(Deserialize)]
struct External {
    value: Text,
}

/// The figures that a cluster has, asked for in a namespace.
pub struct Sources<'a> {
    /// The API.
    pub client: &'a Client,
    /// The namespace.
    pub namespace: &'a str,
}

impl Sources<'_> {
    /// What pods use of a resource; of one container, if it is named.
    pub async fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        selector: &str,
    ) -> Result<Samples, String> {
        let path = format!("{RESOURCE}/namespaces/{}/pods", self.namespace);
        let uses: List<PodUse> = self.get(path, &[("labelSelector", selector)]).await?;
        if uses.items.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let sample = |pod: PodUse| {
            let mut value = None;
            for used in &pod.containers {
                if container.is_none_or(|only| used.name == only) {
                    let used = used.usage.get(resource).and_then(amount)?;
                    value = Some(value.unwrap_or(0i64).saturating_add(used));
                }
            }
            let window = pod.window.and_then(|text| text.parse().ok());
            let sample = Sample {
                value: value?,
                at: pod.timestamp,
                window: window.unwrap_or(WINDOW),
            };
            Some((pod.metadata.name, sample))
        };
        Ok(uses.items.into_iter().filter_map(sample).collect())
    }

    /// A metric of pods.
    pub async fn pods(&self, metric: &str, of: &str, selector: &str) -> Result<Samples, String> {
        let path = format!(
            "{CUSTOM}/namespaces/{}/pods/*/{}",
            self.namespace,
            escaped(metric)
        );
        let query = [("labelSelector", selector), ("metricLabelSelector", of)];
        let values: List<Custom> = self.get(path, &query).await?;
        let sample = |one: Custom| {
            let window = one.window_seconds.map_or(WINDOW, SignedDuration::from_secs);
            let sample = Sample {
                value: amount(&one.value)?,
                at: one.timestamp,
                window,
            };
            Some((one.described_object.name, sample))
        };
        Ok(values.items.into_iter().filter_map(sample).collect())
    }

    /// A metric of one object, of a `resource` as `ingresses.networking.k8s.io`, in thousandths.
    pub async fn object(
        &self,
        resource: &str,
        name: &str,
        metric: &str,
        of: &str,
    ) -> Result<i64, String> {
        let (namespace, metric) = (self.namespace, escaped(metric));
        let path = match resource {
            "namespaces" => format!("{CUSTOM}/namespaces/{name}/metrics/{metric}"),
            _ => format!("{CUSTOM}/namespaces/{namespace}/{resource}/{name}/{metric}"),
        };
        let values: List<Custom> = self.get(path, &[("metricLabelSelector", of)]).await?;
        let value = values.items.first().and_then(|one| amount(&one.value));
        value.ok_or_else(|| "no metrics returned from custom metrics API".to_owned())
    }

    /// The sum of a metric from outside, in thousandths.
    pub async fn external(&self, metric: &str, of: &str) -> Result<i64, String> {
        let path = format!(
            "{EXTERNAL}/namespaces/{}/{}",
            self.namespace,
            escaped(metric)
        );
        let values: List<External> = self.get(path, &[("labelSelector", of)]).await?;
        let values: Vec<i64> = values
            .items
            .iter()
            .filter_map(|one| amount(&one.value))
            .collect();
        match values.is_empty() {
            true => Err("no metrics returned from external metrics API".to_owned()),
            false => Ok(values.into_iter().fold(0, i64::saturating_add)),
        }
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        mut path: String,
        query: &[(&str, &str)],
    ) -> Result<T, String> {
        let mut mark = '?';
        for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(path, "{mark}{name}={}", escaped(value));
            mark = '&';
        }
        let request = http::Request::get(&path).body(Vec::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await;
        answer.map_err(|error| format!("unable to get metrics from {path}: {error}"))
    }
}

fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A metric's own selector as text; empty for none.
pub fn selector_text(selector: Option<&LabelSelector>) -> Result<String, String> {
    let Some(selector) = selector else {
        return Ok(String::new());
    };
    let selector = Selector::from_label_selector(selector).map_err(|error| error.to_string())?;
    Ok(selector.to_string())
}

/// Thousandths as the API writes quantities.
pub fn text(milli: i64) -> Text {
    Quantity::from_milli(milli).to_text()
}
