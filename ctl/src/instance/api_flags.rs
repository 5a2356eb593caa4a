//! The flags of `up` that are the API server's own, under kube-apiserver's names.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use peapod_apiserver::Config;
use peapod_apiserver::audit::AuditConfig;
use peapod_apiserver::audit::log::LogConfig;

use super::store_flags::StoreFlags;

/// Who may come in, and what is recorded of it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "API server")]
pub struct ApiFlags {
    /// Issuers of OIDC tokens, and where nobody needs to be anybody (an AuthenticationConfiguration)
    #[arg(long, value_name = "FILE", value_parser = file)]
    pub authentication_config: Option<PathBuf>,
    /// Static tokens: lines of token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE", value_parser = file)]
    pub token_auth_file: Option<PathBuf>,
    /// Take requests that prove nothing, as system:anonymous
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub anonymous_auth: bool,
    /// What PodSecurity demands where namespaces say nothing, and of whom nothing (an
    /// AdmissionConfiguration)
    #[arg(long, value_name = "FILE", value_parser = file)]
    pub admission_control_config_file: Option<PathBuf>,
    /// What is recorded in the audit log (an audit.k8s.io/v1 Policy)
    #[arg(long, value_name = "FILE", value_parser = file, requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where the audit log goes; - is standard output
    #[arg(long, value_name = "FILE", value_parser = file, requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// Size in megabytes at which the audit log is rotated
    #[arg(long, value_name = "MB", default_value_t = 100)]
    pub audit_log_maxsize: u64,
    /// How many rotated audit logs are kept
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub audit_log_maxbackup: usize,
    /// How long events are kept after they were last written, in seconds; 0: for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub event_ttl: u64,
    /// The cluster's keys, the same for every server of it (ca.crt, ca.key, sa.key; made if there
    /// are none) [default: pki in the data directory]
    #[arg(long, value_name = "DIR", value_parser = file)]
    pub pki_dir: Option<PathBuf>,
    #[command(flatten)]
    pub store: StoreFlags,
}

impl ApiFlags {
    /// Puts them into the API server's configuration.
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        self.store.apply(config)?;
        config.shared_pki = self.pki_dir.clone();
        config.event_ttl = Duration::from_secs(self.event_ttl);
        config.authentication_file = self.authentication_config.clone();
        config.admission_file = self.admission_control_config_file.clone();
        config.token_file = self.token_auth_file.clone();
        config.anonymous = self.anonymous_auth;
        let files = self
            .audit_policy_file
            .clone()
            .zip(self.audit_log_path.clone());
        config.audit = files.map(|(policy, path)| AuditConfig {
            policy,
            log: LogConfig {
                path,
                max_bytes: self.audit_log_maxsize << 20,
                max_backups: self.audit_log_maxbackup,
            },
        });
        Ok(())
    }
}

/// A path that means the same for the instance, which runs elsewhere.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() || text == "-" {
        true => Ok(path),
        false => Err("it must be an absolute path".to_owned()),
    }
}
