//! `exec` and `attach` over SPDY/3.1, as kubectl spoke it before 1.31: a stream for each of the
//! process's, one for the terminal's sizes, and one that says how it ended.
//!
//! The protocols differ in that last one: `v4.channel.k8s.io` has a Status in it, the older ones
//! a sentence when something went wrong. Sizes exist since v3.

use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{CONNECTION, HeaderName, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use hyper_util::rt::TokioIo;
use peapod_spdy::session::{Receiver, Sender};
use peapod_spdy::{Session, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::exec::{RESIZES_MAX, STDIN_BUFFER, Wanted, terminal_size};
use super::{Refusal, channels};
use crate::runtime::{self, Streams, TerminalSize};

const SPDY: &str = "SPDY/3.1";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// How long a client may take to open its streams, and to close when all is said.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of output that wait for the client, and are sent at once.
const BUFFER: usize = 32 * 1024;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V1,
    V2,
    V3,
    V4,
}

const VERSIONS: [(Version, &str); 4] = [
    (Version::V4, "v4.channel.k8s.io"),
    (Version::V3, "v3.channel.k8s.io"),
    (Version::V2, "v2.channel.k8s.io"),
    (Version::V1, "channel.k8s.io"),
];

/// The streams that a client opened.
#[derive(Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

// === impl Version ===

impl Version {
    /// The first of a client's protocols that is known; the oldest when it names none.
    fn of(headers: &HeaderMap) -> Option<(Self, &'static str)> {
        let given = headers.get_all(PROTOCOL).iter();
        let texts: Vec<&str> = given.filter_map(|value| value.to_str().ok()).collect();
        if texts.is_empty() {
            return Some((Self::V1, "channel.k8s.io"));
        }
        let names = texts.iter().flat_map(|text| text.split(',')).map(str::trim);
        names
            .filter_map(|name| VERSIONS.iter().find(|(_, known)| *known == name))
            .copied()
            .next()
    }

    /// What the error stream says of an outcome; nothing where it has nothing to say.
    fn told(self, outcome: &runtime::Result<Option<i32>>) -> String {
        match (self, outcome) {
            (Self::V4, Ok(code)) => channels::exit_status(code.unwrap_or(0)).to_string(),
            (Self::V4, Err(error)) => channels::error_status(&error.to_string()).to_string(),
            (_, Ok(None | Some(0))) => String::new(),
            (_, Ok(Some(code))) => {
                format!("command terminated with non-zero exit code: exit status {code}")
            }
            (_, Err(error)) => format!("error executing command in container: {error}"),
        }
    }
}

// === impl Opened ===

impl Opened {
    /// Whether all streams are there that a client opens for what it wants.
    fn is_whole(&self, wanted: Wanted, version: Version) -> bool {
        let resize = wanted.tty && version >= Version::V3;
        self.error.is_some()
            && self.stdin.is_some() == wanted.stdin
            && self.stdout.is_some() == wanted.stdout
            && self.stderr.is_some() == wanted.stderr
            && (self.resize.is_some() || !resize)
    }

    /// Takes streams until all are there; `None` when the client goes or opens others.
    async fn all(session: &mut Session, wanted: Wanted, version: Version) -> Option<Self> {
        let mut opened = Self::default();
        while !opened.is_whole(wanted, version) {
            let stream = session.accept().await?;
            let place = match stream.header("streamtype") {
                Some("error") => &mut opened.error,
                Some("stdin") if wanted.stdin => &mut opened.stdin,
                Some("stdout") if wanted.stdout => &mut opened.stdout,
                Some("stderr") if wanted.stderr => &mut opened.stderr,
                Some("resize") => &mut opened.resize,
                other => {
                    tracing::debug!(?other, "a client opened a stream that is not wanted");
                    return None;
                }
            };
            *place = Some(stream);
        }
        Some(opened)
    }
}

/// Whether a client asks for SPDY.
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    let asked = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    asked.is_some_and(|asked| asked.eq_ignore_ascii_case(SPDY))
}

/// Takes the connection over and connects it with a process.
pub fn upgrade<F, R>(mut request: Request, wanted: Wanted, process: F) -> Result<Response, Refusal>
where
    F: FnOnce(Streams) -> R + Send + 'static,
    R: Future<Output = runtime::Result<Option<i32>>> + Send + 'static,
{
    let Some((version, name)) = Version::of(request.headers()) else {
        let why = "unable to upgrade: none of the client's stream protocols is known";
        let known = VERSIONS.map(|(_, known)| (ACCEPTED, known));
        let headers = axum::response::AppendHeaders(known);
        return Ok((StatusCode::FORBIDDEN, headers, why).into_response());
    };
    let upgrading = hyper::upgrade::on(&mut request);
    // Ends with the connection that it took over.
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => {
                let (read, write) = tokio::io::split(TokioIo::new(upgraded));
                converse(Session::accepting(read, write), wanted, version, process).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade to SPDY failed"),
        }
    });
    let headers = [(CONNECTION, "Upgrade"), (UPGRADE, SPDY), (PROTOCOL, name)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Connects streams with a process until either side is done.
async fn converse<F, R>(mut session: Session, wanted: Wanted, version: Version, process: F)
where
    F: FnOnce(Streams) -> R,
    R: Future<Output = runtime::Result<Option<i32>>>,
{
    let opening = Opened::all(&mut session, wanted, version);
    let Ok(Some(opened)) = tokio::time::timeout(LIMIT, opening).await else {
        return;
    };
    let Some((_, error)) = opened.error.map(Stream::split) else {
        return;
    };
    let (mut streams, stdin, stdout, stderr) = (
        Streams::default(),
        opened.stdin.map(Stream::split),
        opened.stdout.map(Stream::split),
        opened.stderr.map(Stream::split),
    );
    let feeding = stdin.map(|(input, _)| {
        let (ours, theirs) = tokio::io::duplex(STDIN_BUFFER);
        streams.stdin = Some(Box::new(theirs));
        feed(input, ours)
    });
    let printing = stdout.map(|(_, output)| {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        streams.stdout = Some(Box::new(theirs));
        print(ours, output)
    });
    let complaining = stderr.map(|(_, output)| {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        streams.stderr = Some(Box::new(theirs));
        print(ours, output)
    });
    let resizing = opened.resize.map(|stream| {
        let (sizes, theirs) = mpsc::channel(RESIZES_MAX);
        streams.resize = Some(theirs);
        resize(stream.split().0, sizes)
    });
    let process = async {
        let outcome = process(streams).await;
        let text = version.told(&outcome);
        if !text.is_empty() {
            // A client that is gone has no more questions.
            let _ = error.send(Bytes::from(text)).await;
        }
        let _ = error.finish().await;
    };
    let run = async {
        tokio::join!(process, maybe(printing), maybe(complaining));
    };
    let input = async {
        tokio::join!(maybe(feeding), maybe(resizing));
        std::future::pending::<()>().await;
    };
    // A client that goes takes its process along; an ended process is reported first.
    tokio::select! {
        () = run => {}
        () = input => {}
        () = gone(&mut session) => return,
    }
    // It closes when it has read everything.
    let _ = tokio::time::timeout(LIMIT, gone(&mut session)).await;
}

async fn maybe(work: Option<impl Future<Output = ()>>) {
    if let Some(work) = work {
        work.await;
    }
}

/// Waits until the client has closed the connection.
async fn gone(session: &mut Session) {
    while session.accept().await.is_some() {}
}

async fn feed(mut input: Receiver, mut stdin: DuplexStream) {
    while let Some(bytes) = input.recv().await {
        // A process that reads no more misses nothing.
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn print(mut output: DuplexStream, stream: Sender) {
    let mut buffer = BytesMut::with_capacity(BUFFER);
    while output
        .read_buf(&mut buffer)
        .await
        .is_ok_and(|count| count > 0)
    {
        if stream.send(buffer.split().freeze()).await.is_err() {
            return;
        }
        buffer.reserve(BUFFER);
    }
    let _ = stream.finish().await;
}

/// Sizes come as JSON objects, one after the other, perhaps cut anywhere.
async fn resize(mut input: Receiver, sizes: mpsc::Sender<TerminalSize>) {
    let mut rest = BytesMut::new();
    while let Some(bytes) = input.recv().await {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'}') {
            if let Some(size) = terminal_size(&rest.split_to(end + 1)) {
                // Of many in a row the next one will do.
                let _ = sizes.try_send(size);
            }
        }
        // No size is that long.
        if rest.len() > BUFFER {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_first_known_protocol_is_spoken() {
        let of = |given: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for text in given {
                headers.append(PROTOCOL, text.parse().unwrap());
            }
            Version::of(&headers).map(|(version, _)| version)
        };
        assert_eq!(of(&[]), Some(Version::V1));
        assert_eq!(
            of(&["v4.channel.k8s.io", "v3.channel.k8s.io"]),
            Some(Version::V4)
        );
        assert_eq!(
            of(&["v5.channel.k8s.io, v3.channel.k8s.io"]),
            Some(Version::V3)
        );
        assert_eq!(of(&["channel.k8s.io"]), Some(Version::V1));
        assert_eq!(of(&["v9.channel.k8s.io"]), None);
    }

    #[test]
    fn outcomes_are_told_as_the_protocol_does() {
        assert_eq!(Version::V2.told(&Ok(Some(0))), "");
        assert_eq!(Version::V2.told(&Ok(None)), "");
        assert!(Version::V3.told(&Ok(Some(3))).ends_with("exit status 3"));
        assert!(Version::V4.told(&Ok(Some(0))).contains("Success"));
        assert!(Version::V4.told(&Ok(Some(3))).contains("NonZeroExitCode"));
    }

    #[tokio::test]
    async fn sizes_may_be_cut_anywhere() {
        let (client, server) = tokio::io::duplex(1024);
        let (read, write) = tokio::io::split(server);
        let mut session = Session::accepting(read, write);
        let mut encoder = peapod_spdy::Encoder::default();
        let mut bytes = BytesMut::new();
        let headers = vec![("streamtype".to_owned(), "resize".to_owned())];
        let open = peapod_spdy::Frame::SynStream {
            id: 1,
            headers,
            fin: false,
        };
        encoder.encode(&open, &mut bytes).unwrap();
        for piece in [
            "{\"Width\":80,\"Hei",
            "ght\":24}\n{\"Width\":100,\"Height\":30}\n",
        ] {
            let data = Bytes::from(piece);
            let frame = peapod_spdy::Frame::Data {
                id: 1,
                data,
                fin: false,
            };
            encoder.encode(&frame, &mut bytes).unwrap();
        }
        let mut client = client;
        client.write_all(&bytes).await.unwrap();
        let stream = session.accept().await.unwrap();
        let (sizes, mut seen) = mpsc::channel(RESIZES_MAX);
        let reading = resize(stream.split().0, sizes);
        let watching = async {
            for (width, height) in [(80, 24), (100, 30)] {
                assert_eq!(seen.recv().await, Some(TerminalSize { width, height }));
            }
            drop(client);
        };
        tokio::join!(reading, watching);
    }
}
