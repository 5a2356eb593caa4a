//! What a name may be. Each check returns `Ok` or kube-apiserver's sentence for the fault.

use thiserror::Error;

/// Longest RFC 1123 label, and longest label value.
pub const LABEL_MAX: usize = 63;
/// Longest RFC 1123 subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const CONFIG_KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// Why a name is refused, in kube-apiserver's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NameError(pub String);

fn refuse<T>(rule: &str) -> Result<T, NameError> {
    Err(NameError(rule.to_owned()))
}

fn at_most(name: &str, max: usize) -> Result<(), NameError> {
    if name.len() > max {
        return Err(NameError(format!("must be no more than {max} characters")));
    }
    Ok(())
}

fn lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Not empty, `end` bytes at both ends, `end` or `inner` bytes between.
fn shaped(name: &str, end: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = name.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    end(first) && end(last) && bytes.iter().all(|&b| end(b) || inner.contains(&b))
}

/// An RFC 1123 label: namespaces, containers, ports of endpoints.
pub fn dns_label(name: &str) -> Result<(), NameError> {
    at_most(name, LABEL_MAX)?;
    if !shaped(name, lower_alnum, b"-") {
        return refuse(LABEL_RULE);
    }
    Ok(())
}

/// An RFC 1035 label: services.
pub fn dns_1035_label(name: &str) -> Result<(), NameError> {
    at_most(name, LABEL_MAX)?;
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !starts || !shaped(name, lower_alnum, b"-") {
        return refuse(LABEL_1035_RULE);
    }
    Ok(())
}

/// An RFC 1123 subdomain: most objects.
pub fn dns_subdomain(name: &str) -> Result<(), NameError> {
    at_most(name, SUBDOMAIN_MAX)?;
    if !name.split('.').all(|part| shaped(part, lower_alnum, b"-")) {
        return refuse(SUBDOMAIN_RULE);
    }
    Ok(())
}

/// A name that is safe as one segment of a URL path: what RBAC's kinds allow.
pub fn path_segment(name: &str) -> Result<(), NameError> {
    if name == "." || name == ".." {
        return Err(NameError(format!("may not be '{name}'")));
    }
    for part in ["/", "%"] {
        if name.contains(part) {
            return Err(NameError(format!("may not contain '{part}'")));
        }
    }
    Ok(())
}

/// A qualified name, `[prefix/]name`: the keys of labels, annotations and resources.
pub fn qualified_name(name: &str) -> Result<(), NameError> {
    let part = match name.split_once('/') {
        None => name,
        Some(("", _)) => return refuse("prefix part must be non-empty"),
        Some((prefix, part)) => {
            dns_subdomain(prefix).map_err(|e| NameError(format!("prefix part {e}")))?;
            part
        }
    };
    if part.is_empty() {
        return refuse("name part must be non-empty");
    }
    at_most(part, LABEL_MAX).map_err(|e| NameError(format!("name part {e}")))?;
    if !shaped(part, |b| b.is_ascii_alphanumeric(), b"-_.") {
        return refuse(QUALIFIED_RULE);
    }
    Ok(())
}

/// A label's value; empty is allowed.
pub fn label_value(value: &str) -> Result<(), NameError> {
    at_most(value, LABEL_MAX)?;
    if !value.is_empty() && !shaped(value, |b| b.is_ascii_alphanumeric(), b"-_.") {
        return refuse(VALUE_RULE);
    }
    Ok(())
}

/// A key of a ConfigMap or a Secret.
pub fn config_key(key: &str) -> Result<(), NameError> {
    at_most(key, SUBDOMAIN_MAX)?;
    if !key.is_empty()
        && !key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        return refuse(CONFIG_KEY_RULE);
    }
    match key {
        "" => refuse(CONFIG_KEY_RULE),
        "." => refuse("must not be '.'"),
        ".." => refuse("must not be '..'"),
        _ if key.starts_with("..") => refuse("must not start with '..'"),
        _ => Ok(()),
    }
}

/// An IANA service name: the name of a container's port.
pub fn port_name(name: &str) -> Result<(), NameError> {
    at_most(name, 15)?;
    if !shaped(name, lower_alnum, b"-") {
        return refuse("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if name.contains("--") {
        return refuse("must not contain consecutive hyphens");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        return refuse("must contain at least one letter (a-z)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        for good in ["a", "a-b", "1a", &"x".repeat(63)] {
            assert_eq!(dns_label(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", &"x".repeat(64)] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
        assert!(dns_subdomain("a.b-c.1").is_ok());
        assert!(dns_subdomain("a..b").is_err());
        assert!(dns_1035_label("1a").is_err());
        assert!(qualified_name("net.peapod.dev/rack").is_ok());
        assert!(qualified_name("/rack").is_err());
        assert!(qualified_name("UPPER/x").is_err());
        assert!(label_value("").is_ok());
        assert!(label_value("a b").is_err());
        assert!(config_key("a_b.C").is_ok());
        assert!(config_key("..a").is_err());
        assert!(config_key("a/b").is_err());
        assert!(port_name("http-2").is_ok());
        assert!(port_name("80").is_err());
    }
}
