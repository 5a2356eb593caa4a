//! The settings of a node agent that Kubernetes has names for: the part of upstream's
//! `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`) that is honoured here. What is not
//! known is refused, not ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::cpus::set::CpuSet;
use crate::eviction::Thresholds;
use crate::shutdown::plan::{self, Period};

/// `evictionPressureTransitionPeriod`, where it is not said.
pub const PRESSURE_TRANSITION: std::time::Duration = std::time::Duration::from_secs(300);

/// `KubeletConfiguration`, each field as upstream has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeletConfiguration {
    /// `kubelet.config.k8s.io/v1beta1`
    api_version: String,
    /// `KubeletConfiguration`
    kind: String,
    /// Directory of manifests of pods that run here without the API, or one such file.
    pub static_pod_path: Option<PathBuf>,
    /// Patterns of sysctls that pods may set beside the safe ones: names, or prefixes with `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Used part of the disk, in percent, from which on images that nobody uses are removed.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: Percent,
    /// Used part of the disk, in percent, down to which they are.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: Percent,
    /// How long an image stays at least after it was last used (Go's notation).
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: Duration,
    /// Whether containers may have CPUs for themselves.
    pub cpu_manager_policy: CpuManagerPolicy,
    /// CPUs that no container has for itself, and that are not given to pods.
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: CpuSet,
    /// How long an image stays at most while nobody uses it; 0 for ever.
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: Duration,
    /// Most processes and threads of a pod; a quarter of the machine's when it is not positive.
    pub pod_pids_limit: i64,
    /// What must be left of the node, by signal, before pods go at once; upstream's defaults without it.
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// The same, but pods go only if it is so for a while.
    pub eviction_soft: BTreeMap<String, String>,
    /// For how long, by signal.
    pub eviction_soft_grace_period: BTreeMap<String, Duration>,
    /// How long a condition of pressure stays after it was last so; as upstream, 0 is as if it was not said.
    pub eviction_pressure_transition_period: Duration,
    /// The longest time that pods have to end in that go for a soft threshold, seconds; their
    /// own if it is negative.
    pub eviction_max_pod_grace_period: i32,
    /// What must be left beyond a threshold, once it was reached, before it counts as over.
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    /// Whether signals that `evictionHard` does not name have their defaults.
    pub merge_default_eviction_settings: bool,
    /// How long a machine that goes down waits for its pods; 0 not at all.
    pub shutdown_grace_period: Duration,
    /// The last part of it, in which critical pods end.
    pub shutdown_grace_period_critical_pods: Duration,
    /// In the place of both: the time of each priority.
    pub shutdown_grace_period_by_pod_priority: Vec<Period>,
}

/// `cpuManagerPolicy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuManagerPolicy {
    /// All share all.
    #[default]
    None,
    /// Containers of Guaranteed pods that ask for whole CPUs have them for themselves.
    Static,
}

/// 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub struct Percent(pub u8);

/// A length of time as Go writes it: `1h30m`, `90s`, `0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Duration(pub std::time::Duration);

// === impl KubeletConfiguration ===

impl Default for KubeletConfiguration {
    fn default() -> Self {
        Self {
            api_version: "kubelet.config.k8s.io/v1beta1".to_owned(),
            kind: "KubeletConfiguration".to_owned(),
            static_pod_path: None,
            allowed_unsafe_sysctls: Vec::new(),
            image_gc_high_threshold_percent: Percent(85),
            image_gc_low_threshold_percent: Percent(80),
            image_minimum_gc_age: Duration(std::time::Duration::from_secs(120)),
            cpu_manager_policy: CpuManagerPolicy::default(),
            reserved_system_cpus: CpuSet::default(),
            image_maximum_gc_age: Duration::default(),
            pod_pids_limit: -1,
            eviction_hard: None,
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_pressure_transition_period: Duration(PRESSURE_TRANSITION),
            eviction_max_pod_grace_period: 0,
            eviction_minimum_reclaim: BTreeMap::new(),
            merge_default_eviction_settings: false,
            shutdown_grace_period: Duration::default(),
            shutdown_grace_period_critical_pods: Duration::default(),
            shutdown_grace_period_by_pod_priority: Vec::new(),
        }
    }
}

impl KubeletConfiguration {
    /// What contradicts itself.
    pub fn check(&self) -> Result<(), String> {
        if self.kind != "KubeletConfiguration" {
            return Err(format!(
                "it is a {:?}, not a KubeletConfiguration",
                self.kind
            ));
        }
        if self.api_version != "kubelet.config.k8s.io/v1beta1" {
            let version = &self.api_version;
            return Err(format!(
                "its apiVersion is {version:?}, not kubelet.config.k8s.io/v1beta1"
            ));
        }
        let (high, low) = (
            self.image_gc_high_threshold_percent.0,
            self.image_gc_low_threshold_percent.0,
        );
        if low >= high {
            return Err(format!(
                "imageGCLowThresholdPercent {low} must be less than imageGCHighThresholdPercent {high}"
            ));
        }
        let static_policy = self.cpu_manager_policy == CpuManagerPolicy::Static;
        if static_policy && self.reserved_system_cpus.0.is_empty() {
            return Err(
                "cpuManagerPolicy static needs reservedSystemCPUs: somebody has to run what \
                        has no CPUs of its own"
                    .to_owned(),
            );
        }
        let longest = self.image_maximum_gc_age.0;
        if !longest.is_zero() && longest <= self.image_minimum_gc_age.0 {
            return Err("imageMaximumGCAge must be longer than imageMinimumGCAge".to_owned());
        }
        Thresholds::of(self)?;
        let (whole, critical) = self.shutdown_seconds();
        if critical > whole {
            return Err(
                "shutdownGracePeriodCriticalPods must not be longer than shutdownGracePeriod"
                    .to_owned(),
            );
        }
        if whole > 0 && !self.shutdown_grace_period_by_pod_priority.is_empty() {
            return Err(
                "shutdownGracePeriod and shutdownGracePeriodByPodPriority cannot both be set"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Most processes and threads of a pod, on a machine that can have so many.
    pub fn pids_of_pod(&self, pids_max: u64) -> i64 {
        match self.pod_pids_limit {
            ..=0 => i64::try_from(pids_max / 4).unwrap_or(i64::MAX).max(1),
            limit => limit,
        }
    }

    /// What must be left of the node; [`KubeletConfiguration::check`] has seen it.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds::of(self).unwrap_or_default()
    }

    /// The time that pods have to end in when the machine goes down; none if it does not wait.
    pub fn shutdown_periods(&self) -> Vec<Period> {
        let (whole, critical) = self.shutdown_seconds();
        match self.shutdown_grace_period_by_pod_priority.is_empty() {
            true => plan::periods(whole, critical),
            false => self.shutdown_grace_period_by_pod_priority.clone(),
        }
    }

    fn shutdown_seconds(&self) -> (u64, u64) {
        (
            self.shutdown_grace_period.0.as_secs(),
            self.shutdown_grace_period_critical_pods.0.as_secs(),
        )
    }
}

impl TryFrom<u8> for Percent {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            0..=100 => Ok(Self(number)),
            _ => Err(format!("{number} is no percentage")),
        }
    }
}

impl TryFrom<String> for Duration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no length of time such as 2m or 1h30m");
        if text == "0" {
            return Ok(Self::default());
        }
        let mut total = std::time::Duration::ZERO;
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
            let units = &rest[digits..];
            let end = units.find(|c: char| c.is_ascii_digit());
            let (unit, after) = units.split_at(end.unwrap_or(units.len()));
            let unit = match unit {
                "h" => std::time::Duration::from_secs(3600),
                "m" => std::time::Duration::from_secs(60),
                "s" => std::time::Duration::from_secs(1),
                "ms" => std::time::Duration::from_millis(1),
                _ => return Err(wrong()),
            };
            total += unit.checked_mul(number).ok_or_else(wrong)?;
            rest = after;
        }
        match text.is_empty() {
            true => Err(wrong()),
            false => Ok(Self(total)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KubeletConfiguration, String> {
        let parsed: KubeletConfiguration =
            serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        parsed.check().map(|()| parsed)
    }

    #[test]
    fn upstreams_names_and_defaults() {
        let text = "
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /etc/kubernetes/manifests
allowedUnsafeSysctls: ['kernel.msg*', net.core.somaxconn]
imageGCHighThresholdPercent: 70
imageGCLowThresholdPercent: 60
imageMinimumGCAge: 1h30m
";
        let parsed = parse(text).unwrap();
        assert_eq!(
            parsed.static_pod_path,
            Some("/etc/kubernetes/manifests".into())
        );
        assert_eq!(parsed.image_minimum_gc_age.0.as_secs(), 5400);
        assert_eq!(parsed.image_gc_high_threshold_percent, Percent(70));
        assert_eq!(parse("{}").unwrap(), KubeletConfiguration::default());
        assert_eq!(parsed.pids_of_pod(32_768), 8192);
        assert_eq!(parse("podPidsLimit: 100").unwrap().pids_of_pod(32_768), 100);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("imageGCHighThresholdPercent: 101", "101 is no percentage"),
            ("imageGCHighThresholdPercent: 10", "must be less than"),
            ("imageMinimumGCAge: soon", "is no length of time"),
            ("imageMaximumGCAge: 1m", "must be longer"),
            ("cpuManagerPolicy: static", "needs reservedSystemCPUs"),
            ("reservedSystemCPUs: first", "no set of CPUs"),
            ("evictionHard: {x: '1'}", "no eviction signal"),
            ("kind: Pod", "not a KubeletConfiguration"),
            ("memorySwap: {}", "memorySwap"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
