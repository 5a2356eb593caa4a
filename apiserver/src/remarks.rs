//! What anything on a request's way says beside its answer: warnings, which the client reads in
//! `Warning` headers, and annotations of the request's audit event.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;

/// The most warnings of a request, and the longest, in bytes.
const WARNINGS_MAX: usize = 32;
const WARNING_MAX: usize = 1024;
/// The most annotations of a request, and the longest value, in bytes.
const ANNOTATIONS_MAX: usize = 64;
const ANNOTATION_MAX: usize = 10 * 1024;

tokio::task_local! {
    static REMARKS: RefCell<Remarks>;
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Sentences for the client, in the order in which they were said.
    pub warnings: Vec<String>,
    /// Annotations of the audit event.
    pub annotations: BTreeMap<String, String>,
}

/// Runs a request and collects what is said on its way.
pub async fn collect<F: Future>(request: F) -> (F::Output, Remarks) {
    REMARKS
        .scope(RefCell::default(), async {
            let output = request.await;
            (output, REMARKS.with(RefCell::take))
        })
        .await
}

/// Warns the client, once for each text. Outside of a request there is nobody to warn.
pub fn warn(text: String) {
    let text = cut(text, WARNING_MAX);
    let said = REMARKS.try_with(|remarks| {
        let all = &mut remarks.borrow_mut().warnings;
        if all.len() < WARNINGS_MAX && !all.contains(&text) {
            all.push(text);
        }
    });
    if said.is_err() {
        tracing::debug!("a warning outside of a request");
    }
}

/// Annotates the request's audit event. What was said first under a key stands.
pub fn annotate(key: impl Into<String>, value: impl Into<String>) {
    let said = REMARKS.try_with(|remarks| {
        let all = &mut remarks.borrow_mut().annotations;
        if all.len() < ANNOTATIONS_MAX {
            let value = || cut(value.into(), ANNOTATION_MAX);
            all.entry(key.into()).or_insert_with(value);
        }
    });
    if said.is_err() {
        tracing::debug!("an annotation outside of a request");
    }
}

fn cut(mut text: String, length: usize) -> String {
    let mut ends = (0..=length.min(text.len())).rev();
    let end = ends.find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn remarks_are_those_of_the_request() {
        warn("lost".into());
        annotate("lost", "");
        let (_, said) = collect(async {
            warn("one".into());
            warn("one".into());
            warn("é".repeat(1000));
            annotate("a/b", "first");
            annotate("a/b", "second");
        })
        .await;
        assert_eq!(said.warnings.len(), 2);
        assert_eq!(said.warnings[1].len(), WARNING_MAX);
        let first = BTreeMap::from([("a/b".to_owned(), "first".to_owned())]);
        assert_eq!(said.annotations, first);
    }

    #[tokio::test]
    async fn remarks_are_bounded() {
        let (_, said) = collect(async {
            for number in 0..1000 {
                warn(number.to_string());
                annotate(number.to_string(), "x".repeat(100_000));
            }
        })
        .await;
        assert_eq!(said.warnings.len(), WARNINGS_MAX);
        assert_eq!(said.annotations.len(), ANNOTATIONS_MAX);
        assert!(
            said.annotations
                .values()
                .all(|value| value.len() == ANNOTATION_MAX)
        );
    }
}
