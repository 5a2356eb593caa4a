//! In which format metrics are shown: OpenMetrics to who takes it, the older text format of
//! Prometheus to everybody else, as kube-apiserver has it.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use http::HeaderMap;
use http::header::ACCEPT;

const OPEN_METRICS: &str = "application/openmetrics-text";

/// Metrics in the format that a client takes, with its media type.
pub fn negotiated(headers: &HeaderMap, open_metrics: String) -> (&'static str, String) {
    let accepted = headers.get_all(ACCEPT).iter();
    let mut accepted = accepted.filter_map(|line| line.to_str().ok());
    match accepted.any(|line| line.contains(OPEN_METRICS)) {
        true => (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            open_metrics,
        ),
        false => (
            "text/plain; version=0.0.4; charset=utf-8",
            plain(&open_metrics),
        ),
    }
}

/// OpenMetrics in the older format: there a counter is described by the name of its samples,
/// which end in `_total`, and units and the end of the text are not told.
fn plain(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = Some(said.split_once(' ').unwrap_or((said, "")));
        } else if let Some(said) = line.strip_prefix("# TYPE ") {
            let (name, kind) = said.split_once(' ').unwrap_or((said, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "unknown" => ("", "untyped"),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                out += &format!("# HELP {name}{suffix} {text}\n");
            }
            out += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if line.starts_with('#') {
            continue;
        } else {
            // An exemplar follows the sample behind a `#`; label values may have one, too.
            let sample = line.rsplit_once(" # {").map_or(line, |(sample, _)| sample);
            out += sample;
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP requests How many.
# TYPE requests counter
requests_total{path=\"/a #b\"} 3
# HELP seconds How long.
# TYPE seconds histogram
# UNIT seconds seconds
seconds_sum 1.5
seconds_bucket{le=\"+Inf\"} 2 # {trace=\"x\"} 0.5
# EOF
";

    #[test]
    fn the_older_format_is_what_its_readers_know() {
        let expected = "\
# HELP requests_total How many.
# TYPE requests_total counter
requests_total{path=\"/a #b\"} 3
# HELP seconds How long.
# TYPE seconds histogram
seconds_sum 1.5
seconds_bucket{le=\"+Inf\"} 2
";
        assert_eq!(plain(TEXT), expected);
    }

    #[test]
    fn a_client_gets_what_it_takes() {
        let shown = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            negotiated(&headers, TEXT.to_owned()).0
        };
        let scrape = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert!(shown(scrape).starts_with(OPEN_METRICS));
        assert!(shown("*/*").starts_with("text/plain"));
    }
}
