//! How objects are named on the command line: `pods`, `pods x y`, `pod/x svc/y`, `pods,services`.

use anyhow::{Result, bail};

use super::resources::Resource;
use super::session::Session;

/// A resource, and the objects of it that are meant; no name means all of them.
pub struct Target<'a> {
    /// The resource.
    pub resource: &'a Resource,
    /// The object's name.
    pub name: Option<String>,
}

/// Reads the positional words of a command.
pub async fn targets<'a>(session: &'a Session, words: &[String]) -> Result<Vec<Target<'a>>> {
    let Some(first) = words.first() else {
        bail!("say which: TYPE [NAME...] or TYPE/NAME");
    };
    if words.iter().any(|word| word.contains('/')) {
        return slashed(session, words).await;
    }
    let mut found = Vec::new();
    for kind in first.split(',') {
        let category = session.resources().await?.category(kind);
        let resources = match category.is_empty() {
            true => vec![session.resource(kind).await?],
            false => category,
        };
        for resource in resources {
            match &words[1..] {
                [] => found.push(Target {
                    resource,
                    name: None,
                }),
                names => found.extend(names.iter().map(|name| Target {
                    resource,
                    name: Some(name.clone()),
                })),
            }
        }
    }
    Ok(found)
}

async fn slashed<'a>(session: &'a Session, words: &[String]) -> Result<Vec<Target<'a>>> {
    let mut found = Vec::new();
    for word in words {
        let Some((kind, name)) = word.split_once('/') else {
            bail!(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form: {word}"
            );
        };
        super::session::not_empty("a name", name)?;
        let resource = session.resource(kind).await?;
        found.push(Target {
            resource,
            name: Some(name.to_owned()),
        });
    }
    Ok(found)
}

/// The one object that a command is about.
pub async fn one<'a>(session: &'a Session, words: &[String]) -> Result<(&'a Resource, String)> {
    let mut found = targets(session, words).await?;
    match (found.pop(), found.is_empty()) {
        (
            Some(Target {
                resource,
                name: Some(name),
            }),
            true,
        ) => Ok((resource, name)),
        _ => bail!("name exactly one object: TYPE/NAME"),
    }
}

/// Encodes a query string.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    text.push(byte as char);
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn queries() {
        assert_eq!(super::query(&[("a", ""), ("b", "x=y,z")]), "?b=x%3Dy%2Cz");
    }
}
