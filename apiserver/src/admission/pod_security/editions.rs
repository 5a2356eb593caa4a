//! Which standard is meant, and which edition of it, as labels and configurations name them. Pure.

use std::fmt;

/// A standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standard {
    /// Anything goes.
    Privileged,
    /// No known way to more privileges.
    Baseline,
    /// What is good practice.
    Restricted,
}

// === impl Standard ===

impl Standard {
    /// Reads what labels have.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Privileged, Self::Baseline, Self::Restricted];
        all.into_iter().find(|one| one.name() == text)
    }

    /// As labels have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// Which edition of the standards is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// The newest.
    Latest,
    /// That of Kubernetes 1.N.
    Minor(u32),
}

// === impl Edition ===

impl Edition {
    /// Reads `latest` or `v1.30`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor == "0" || !minor.starts_with('0');
        let digits = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
        let minor = minor.parse().ok().filter(|_| plain && digits)?;
        Some(Self::Minor(minor))
    }

    /// Whether it is of version 1.`minor` or later.
    pub fn since(self, minor: u32) -> bool {
        match self {
            Self::Latest => true,
            Self::Minor(own) => own >= minor,
        }
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editions_are_read() {
        for (text, edition) in [
            ("latest", Some(Edition::Latest)),
            ("v1.0", Some(Edition::Minor(0))),
            ("v1.30", Some(Edition::Minor(30))),
            ("v1.030", None),
            ("v1.+3", None),
            ("v2.0", None),
            ("1.30", None),
            ("", None),
        ] {
            assert_eq!(Edition::parse(text), edition, "{text}");
        }
    }
}
