//! Links in what is proxied to: a page that says `/next` means its own server, which a browser
//! reaches under the proxy's path only. So links in HTML and in `Location` get that path in
//! front, as kube-apiserver's proxy does.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::request::Parts;
use http::{Response, StatusCode};
use lol_html::send::{HtmlRewriter, Settings};
use lol_html::{MemorySettings, element};

use crate::body::Body;

/// Most memory for what a page leaves open (a long tag), in bytes; the answer ends there.
const OPEN_MAX: usize = 1 << 20;

/// Attributes whose value is one URL, by element (HTML, "Attributes" of the index).
const ATTRIBUTES: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where the links of one answer lead, and by which way the client came.
#[derive(Clone, Debug)]
pub struct Links {
    /// The client's path up to and with `/proxy`.
    prefix: String,
    /// The authority that the client asked.
    front: String,
    /// The authority that answers.
    back: String,
}

// === impl Links ===

impl Links {
    /// For an answer to this request of the server at `back` (address and port).
    pub fn of(parts: &Parts, prefix: &str, back: String) -> Self {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        Self {
            prefix: prefix.to_owned(),
            front: authority.or(host).unwrap_or_default().to_owned(),
            back,
        }
    }

    /// What a link becomes; nothing if it stays: it is relative, of another host, or leads through
    /// the proxy already.
    fn rewritten(&self, link: &str) -> Option<String> {
        let (origin, host, path) = split(link);
        let known = host.is_empty() || host == self.front || host == self.back;
        if !known || !path.starts_with('/') || path.starts_with(&self.prefix) {
            return None;
        }
        let origin = if host == self.front { origin } else { "" };
        Some(format!("{origin}{}{path}", self.prefix))
    }

    /// The answer with its links rewritten.
    pub fn apply(self, response: Response<Body>) -> Response<Body> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return response;
        }
        let (mut head, body) = response.into_parts();
        let location = head
            .headers
            .get(LOCATION)
            .and_then(|text| text.to_str().ok());
        if let Some(location) = location {
            let location = self.rewritten(location).and_then(|text| text.parse().ok());
            if let Some(location) = location {
                head.headers.insert(LOCATION, location);
            }
            return Response::from_parts(head, body);
        }
        let kind = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|text| text.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
        let html = kind.is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        let plain = !head.headers.contains_key(CONTENT_ENCODING);
        let body = match body {
            Body::Stream(pieces) if html && plain => {
                head.headers.remove(CONTENT_LENGTH);
                Body::stream(self.rewrite_all(pieces))
            }
            other => other,
        };
        Response::from_parts(head, body)
    }

    /// A page's pieces, rewritten as they come.
    fn rewrite_all(self, pieces: BoxStream<'static, Bytes>) -> impl Stream<Item = Bytes> + Send {
        let page = Page::new(self);
        let state = Some((pieces, page));
        futures::stream::unfold(state, |state| async {
            let (mut pieces, mut page) = state?;
            match pieces.next().await {
                Some(piece) => {
                    let done = page.write(&piece)?;
                    Some((done, Some((pieces, page))))
                }
                None => Some((page.end()?, None)),
            }
        })
        .filter(|piece| std::future::ready(!piece.is_empty()))
    }
}

/// Origin, authority and the rest of a link.
fn split(link: &str) -> (&str, &str, &str) {
    let after = match link.split_once("//") {
        Some((scheme, after)) if scheme.is_empty() || is_scheme(scheme) => after,
        _ => return ("", "", link),
    };
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let start = link.len() - after.len() + end;
    (&link[..start], &after[..end], &link[start..])
}

fn is_scheme(text: &str) -> bool {
    let name = text.strip_suffix(':').unwrap_or_default();
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Where a rewriter puts what is finished.
type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// A page that is being rewritten.
struct Page {
    rewriter: HtmlRewriter<'static, Sink>,
    done: Arc<Mutex<Vec<u8>>>,
}

// === impl Page ===

impl Page {
    fn new(links: Links) -> Self {
        let done = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&done);
        let element = element!("*", move |element| {
            let tag = element.tag_name();
            let found = ATTRIBUTES.iter().find(|(name, _)| *name == tag);
            for name in found.map_or(&[][..], |(_, names)| names) {
                let link = element.get_attribute(name);
                if let Some(link) = link.and_then(|link| links.rewritten(&link)) {
                    element.set_attribute(name, &link)?;
                }
            }
            Ok(())
        });
        let memory = MemorySettings::new().with_max_allowed_memory_usage(OPEN_MAX);
        let settings = Settings::new_send()
            .append_element_content_handler(element)
            .with_memory_settings(memory);
        let write: Sink = Box::new(move |bytes: &[u8]| {
            let mut done = sink.lock().unwrap_or_else(PoisonError::into_inner);
            done.extend_from_slice(bytes);
        });
        Self {
            rewriter: HtmlRewriter::new(settings, write),
            done,
        }
    }

    /// What of the page is finished after another piece of it.
    fn write(&mut self, piece: &[u8]) -> Option<Bytes> {
        if let Err(fault) = self.rewriter.write(piece) {
            tracing::warn!(%fault, "a proxied page ends early: its links cannot be rewritten");
            return None;
        }
        Some(take(&self.done))
    }

    /// The rest.
    fn end(self) -> Option<Bytes> {
        if let Err(fault) = self.rewriter.end() {
            tracing::warn!(%fault, "a proxied page ends early: its links cannot be rewritten");
            return None;
        }
        Some(take(&self.done))
    }
}

fn take(done: &Mutex<Vec<u8>>) -> Bytes {
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    Bytes::from(std::mem::take(&mut *done))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links {
            prefix: "/api/v1/namespaces/a/pods/b/proxy".into(),
            front: "api:6443".into(),
            back: "10.0.0.1:80".into(),
        }
    }

    #[test]
    fn which_links_change() {
        let prefix = links().prefix;
        for (link, expected) in [
            ("/x?q=1#f", format!("{prefix}/x?q=1#f")),
            ("/", format!("{prefix}/")),
            ("http://10.0.0.1:80/x", format!("{prefix}/x")),
            ("//10.0.0.1:80/x", format!("{prefix}/x")),
            ("https://api:6443/x", format!("https://api:6443{prefix}/x")),
        ] {
            assert_eq!(links().rewritten(link), Some(expected), "{link}");
        }
        let already = format!("{prefix}/x");
        for link in ["x", "#x", "http://other/x", "mailto:a@b//c", "", &already] {
            assert_eq!(links().rewritten(link), None, "{link}");
        }
    }

    #[tokio::test]
    async fn pages_keep_everything_else() {
        let page = "<!-- <a href=\"/no\"> --><p class=/x>\u{e9}<A HREF='/yes'>&amp;</a><script>\"<a href='/no'>\"</script>";
        let wanted = page.replace(
            "HREF='/yes'",
            "HREF=\"/api/v1/namespaces/a/pods/b/proxy/yes\"",
        );
        // Cut anywhere, a letter included, it is the same page.
        for at in 0..page.len() {
            let (one, two) = page.as_bytes().split_at(at);
            let pieces = [one, two].map(Bytes::copy_from_slice);
            let pieces = futures::stream::iter(pieces).boxed();
            let found: Vec<Bytes> = links().rewrite_all(pieces).collect().await;
            let found = String::from_utf8(found.concat()).unwrap();
            assert_eq!(found.to_lowercase(), wanted.to_lowercase(), "cut at {at}");
        }
    }
}
