//! Warnings of a request: anything on its way may say something to the client, which reads it in
//! `Warning` headers.

use std::cell::RefCell;
use std::future::Future;

/// The most warnings of a request, and the longest, in bytes.
const COUNT_MAX: usize = 32;
const LENGTH_MAX: usize = 1024;

tokio::task_local! {
    static WARNINGS: RefCell<Vec<String>>;
}

/// Runs a request and collects its warnings.
pub async fn collect<F: Future>(request: F) -> (F::Output, Vec<String>) {
    WARNINGS
        .scope(RefCell::default(), async {
            let output = request.await;
            (output, WARNINGS.with(RefCell::take))
        })
        .await
}

/// Warns the client, once for each text. Outside of a request there is nobody to warn.
pub fn add(mut text: String) {
    let end = (0..=LENGTH_MAX.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    let added = WARNINGS.try_with(|all| {
        let mut all = all.borrow_mut();
        if all.len() < COUNT_MAX && !all.contains(&text) {
            all.push(text);
        }
    });
    if added.is_err() {
        tracing::debug!("a warning outside of a request");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn warnings_are_those_of_the_request() {
        add("lost".into());
        let (_, told) = collect(async {
            add("one".into());
            add("one".into());
            add("é".repeat(1000));
        })
        .await;
        assert_eq!(told.len(), 2);
        assert_eq!(told[1].len(), LENGTH_MAX);
    }
}
