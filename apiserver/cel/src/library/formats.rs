//! Named formats: `format.dns1123Label().validate("x")`.

use super::call::Outcome;
use crate::parse::FORMATS;
use crate::value::Value;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

pub(super) fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    if let Some(format) = name.strip_prefix("format.")
        && args.is_empty()
    {
        return Some(Ok(named(format).map(Value::Format)?));
    }
    Some(Ok(match (name, args) {
        ("format.named", [Value::String(name)]) => match named(name) {
            Some(format) => Value::some(Value::Format(format)),
            None => Value::Optional(None),
        },
        ("validate", [Value::Format(format), Value::String(text)]) => {
            let faults = faults(format, text);
            match faults.is_empty() {
                true => Value::Optional(None),
                false => Value::some(Value::list(faults.into_iter().map(Value::text).collect())),
            }
        }
        _ => return None,
    }))
}

fn named(name: &str) -> Option<&'static str> {
    FORMATS.iter().find(|format| **format == name).copied()
}

fn faults(format: &str, text: &str) -> Vec<String> {
    // A prefix may end in a dash that a generated suffix follows.
    let (format, text) = match format.strip_suffix("Prefix") {
        Some(format) => (format, text.strip_suffix('-').unwrap_or(text)),
        None => (format, text),
    };
    let mut faults = Vec::new();
    let mut demand = |good: bool, why: &str| {
        if !good {
            faults.push(why.to_owned());
        }
    };
    match format {
        "dns1123Label" => {
            demand(text.len() <= 63, "must be no more than 63 characters");
            demand(is_label(text), LABEL);
        }
        "dns1123Subdomain" => {
            demand(text.len() <= 253, "must be no more than 253 characters");
            demand(text.split('.').all(is_label), SUBDOMAIN);
        }
        "dns1035Label" => {
            demand(text.len() <= 63, "must be no more than 63 characters");
            demand(
                is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase()),
                LABEL_1035,
            );
        }
        "qualifiedName" => {
            let (prefix, name) = text
                .split_once('/')
                .map_or((None, text), |(prefix, name)| (Some(prefix), name));
            if let Some(prefix) = prefix {
                demand(!prefix.is_empty(), "prefix part must be non-empty");
                demand(prefix.split('.').all(is_label), SUBDOMAIN);
            }
            demand(!name.is_empty(), "name part must be non-empty");
            demand(
                name.len() <= 63,
                "name part must be no more than 63 characters",
            );
            demand(is_name(name), NAME);
        }
        "labelValue" => {
            demand(text.len() <= 63, "must be no more than 63 characters");
            demand(
                text.is_empty() || is_name(text),
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            );
        }
        "uri" => demand(
            url::Url::parse(text).is_ok() || text.starts_with('/'),
            "invalid URI",
        ),
        "uuid" => demand(is_uuid(text), "does not match the UUID format"),
        "byte" => {
            use base64::Engine;
            demand(
                base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .is_ok(),
                "invalid base64",
            );
        }
        "date" => demand(
            text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
            "invalid date",
        ),
        "datetime" => demand(text.parse::<jiff::Timestamp>().is_ok(), "invalid datetime"),
        _ => {}
    }
    faults
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.bytes().all(inner) && text.starts_with(ends) && text.ends_with(ends)
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}
