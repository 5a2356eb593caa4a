//! What each metric of an autoscaler asks for: its figures fetched, its replicas counted.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, ContainerResourceMetricStatus, ExternalMetricSource,
    ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource, PodsMetricStatus,
    ResourceMetricSource, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::decide::{Fault, Proposal, Scale};
use super::replicas::{Count, Group, amount};
use super::sources::{Sources, selector_text, text};
use super::target;

/// One autoscaler's question.
pub struct Ask<'a> {
    /// Where figures come from.
    pub sources: Sources<'a>,
    /// The target's pods.
    pub group: Group<'a>,
    /// The target's replicas.
    pub scale: Scale,
    /// What selects the pods.
    pub selector: &'a str,
}

/// The replicas that a metric asks for, what it is, and what of it stands in the status.
type Answer = Result<(Count, String, MetricStatus), String>;

impl Ask<'_> {
    /// What a metric asks for.
    pub async fn metric(&self, spec: &MetricSpec) -> Result<Proposal, Fault> {
        let (reason, what, answer) = if let Some(source) = &spec.resource {
            let what = format!("{} resource metric value", source.name);
            (
                "FailedGetResourceMetric",
                what,
                self.of_resource(source).await,
            )
        } else if let Some(source) = &spec.container_resource {
            let what = format!("{} container metric value", source.name);
            let answer = self.of_container(source).await;
            ("FailedGetContainerResourceMetric", what, answer)
        } else if let Some(source) = &spec.pods {
            let what = "pods metric value".to_owned();
            ("FailedGetPodsMetric", what, self.of_pods(source).await)
        } else if let Some(source) = &spec.object {
            let what = "object metric value".to_owned();
            ("FailedGetObjectMetric", what, self.of_object(source).await)
        } else if let Some(source) = &spec.external {
            let what = "external metric value".to_owned();
            (
                "FailedGetExternalMetric",
                what,
                self.of_external(source).await,
            )
        } else {
            let fault = format!("unknown metric source type {:?}", spec.type_);
            ("InvalidMetricSourceType", "metric".to_owned(), Err(fault))
        };
        match answer {
            Ok((count, metric, status)) => Ok(Proposal {
                replicas: count.replicas,
                metric,
                status,
            }),
            Err(error) => Err(Fault {
                reason,
                message: format!("failed to get {what}: {error}"),
            }),
        }
    }

    async fn of_resource(&self, source: &ResourceMetricSource) -> Answer {
        let (count, metric) = self.resource(&source.name, None, &source.target).await?;
        let status = ResourceMetricStatus {
            name: source.name.clone(),
            current: current(&count),
        };
        let status = MetricStatus {
            resource: Some(status),
            ..of("Resource")
        };
        Ok((count, metric, status))
    }

    async fn of_container(&self, source: &ContainerResourceMetricSource) -> Answer {
        let container = Some(source.container.as_str());
        let (count, metric) = self
            .resource(&source.name, container, &source.target)
            .await?;
        let status = ContainerResourceMetricStatus {
            name: source.name.clone(),
            container: source.container.clone(),
            current: current(&count),
        };
        let status = MetricStatus {
            container_resource: Some(status),
            ..of("ContainerResource")
        };
        Ok((count, metric, status))
    }

    async fn of_pods(&self, source: &PodsMetricSource) -> Answer {
        let count = self.pods(&source.metric, &source.target).await?;
        let status = PodsMetricStatus {
            metric: source.metric.clone(),
            current: current(&count),
        };
        let status = MetricStatus {
            pods: Some(status),
            ..of("Pods")
        };
        Ok((count, format!("pods metric {}", source.metric.name), status))
    }

    async fn of_object(&self, source: &ObjectMetricSource) -> Answer {
        let (count, current) = self.object(source).await?;
        let metric = format!(
            "{} metric {}",
            source.described_object.kind, source.metric.name
        );
        let status = ObjectMetricStatus {
            metric: source.metric.clone(),
            described_object: source.described_object.clone(),
            current,
        };
        let status = MetricStatus {
            object: Some(status),
            ..of("Object")
        };
        Ok((count, metric, status))
    }

    async fn of_external(&self, source: &ExternalMetricSource) -> Answer {
        let (count, current) = self.external(&source.metric, &source.target).await?;
        let status = ExternalMetricStatus {
            metric: source.metric.clone(),
            current,
        };
        let status = MetricStatus {
            external: Some(status),
            ..of("External")
        };
        Ok((
            count,
            format!("external metric {}", source.metric.name),
            status,
        ))
    }

    async fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<(Count, String), String> {
        let group = Group {
            resource: Some(resource),
            container,
            ..self.group
        };
        let samples = self
            .sources
            .resource(resource, container, self.selector)
            .await?;
        let kind = if container.is_some() {
            "container resource"
        } else {
            "resource"
        };
        if let Some(average) = &target.average_value {
            let count = group.by_average(wanted(Some(average))?, &samples)?;
            return Ok((count, format!("{resource} {kind}")));
        }
        let percent = target.average_utilization.filter(|percent| *percent > 0);
        let percent = percent.ok_or("neither a target utilization nor a target value was set")?;
        let count = group.by_utilization(percent, &samples)?;
        Ok((
            count,
            format!("{resource} {kind} utilization (percentage of request)"),
        ))
    }

    async fn pods(
        &self,
        metric: &MetricIdentifier,
        target: &MetricTarget,
    ) -> Result<Count, String> {
        let of = selector_text(metric.selector.as_ref())?;
        let samples = self.sources.pods(&metric.name, &of, self.selector).await?;
        self.group
            .by_average(wanted(target.average_value.as_ref())?, &samples)
    }

    async fn object(
        &self,
        source: &ObjectMetricSource,
    ) -> Result<(Count, MetricValueStatus), String> {
        let object = &source.described_object;
        let version = object.api_version.as_deref().unwrap_or("v1");
        let found = target::resource(self.sources.client, version, &object.kind).await?;
        let resource = match found.group.is_empty() {
            true => found.plural,
            false => format!("{}.{}", found.plural, found.group),
        };
        let of = selector_text(source.metric.selector.as_ref())?;
        let usage = self
            .sources
            .object(&resource, &object.name, &source.metric.name, &of)
            .await?;
        self.shared(usage, &source.target)
    }

    async fn external(
        &self,
        metric: &MetricIdentifier,
        target: &MetricTarget,
    ) -> Result<(Count, MetricValueStatus), String> {
        let of = selector_text(metric.selector.as_ref())?;
        let usage = self.sources.external(&metric.name, &of).await?;
        self.shared(usage, target)
    }

    /// One amount for all pods, whole or divided among them.
    fn shared(
        &self,
        usage: i64,
        target: &MetricTarget,
    ) -> Result<(Count, MetricValueStatus), String> {
        if let Some(average) = &target.average_value {
            let count = self
                .group
                .by_share(usage, wanted(Some(average))?, self.scale.there);
            let current = current(&count);
            return Ok((count, current));
        }
        let replicas = self.group.by_value(usage, wanted(target.value.as_ref())?);
        let current = MetricValueStatus {
            value: Some(text(usage)),
            ..Default::default()
        };
        Ok((
            Count {
                replicas,
                average: usage,
                utilization: None,
            },
            current,
        ))
    }
}

/// A target in thousandths.
fn wanted(quantity: Option<&Text>) -> Result<i64, String> {
    let amount = quantity.and_then(amount).filter(|amount| *amount > 0);
    amount.ok_or_else(|| "the target value must be more than zero".to_owned())
}

fn current(count: &Count) -> MetricValueStatus {
    MetricValueStatus {
        average_value: Some(text(count.average)),
        average_utilization: count.utilization,
        value: None,
    }
}

fn of(kind: &str) -> MetricStatus {
    MetricStatus {
        type_: kind.to_owned(),
        ..Default::default()
    }
}
