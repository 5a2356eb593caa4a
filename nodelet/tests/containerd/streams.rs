//! Commands in containers, and streams to and from their processes.

use std::io::Cursor;
use std::time::Duration;

use peapod_nodelet::runtime::{EXEC_OUTPUT_MAX, Error, ExecSpec, Runtime, Streams, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::support::{LIMIT, Node};

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

async fn read(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_has_its_streams_and_its_exit_code() {
    let node = Node::start().await;
    node.pod("web").await;
    let id = node
        .run(&node.container("web", "app", "exec sleep 1000"))
        .await;
    let (stdout, out) = duplex(1 << 20);
    let (stderr, err) = duplex(1 << 20);
    let input: Vec<u8> = b"line\n".repeat(50_000);
    let streams = Streams {
        stdin: Some(Box::new(Cursor::new(input.clone()))),
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        resize: None,
    };
    let spec = ExecSpec {
        command: shell("cat; echo wrong >&2; exit 3"),
        tty: false,
    };
    let ((code, out), err) = tokio::join!(
        async { tokio::join!(node.runtime().exec(&id, &spec, streams), read(out)) },
        read(err)
    );
    assert_eq!(code.unwrap(), 3);
    assert_eq!(out.len(), input.len());
    assert_eq!(err, "wrong\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_with_a_terminal_is_resized_and_typed_at() {
    let node = Node::start().await;
    node.pod("web").await;
    let id = node
        .run(&node.container("web", "app", "exec sleep 1000"))
        .await;
    let (stdout, mut out) = duplex(1 << 16);
    let (mut keyboard, stdin) = duplex(1 << 16);
    let (sizes, resize) = mpsc::channel(1);
    let streams = Streams {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: None,
        resize: Some(resize),
    };
    let spec = ExecSpec {
        command: shell("read line; echo got $line; stty size; exit 4"),
        tty: true,
    };
    let typing = async {
        sizes
            .send(TerminalSize {
                width: 100,
                height: 40,
            })
            .await
            .unwrap();
        // A second size is taken only after the first has been set.
        sizes
            .send(TerminalSize {
                width: 100,
                height: 40,
            })
            .await
            .unwrap();
        sizes
            .send(TerminalSize {
                width: 100,
                height: 40,
            })
            .await
            .unwrap();
        keyboard.write_all(b"hello\n").await.unwrap();
        let mut text = String::new();
        out.read_to_string(&mut text).await.unwrap();
        text
    };
    let (code, text) = tokio::join!(node.runtime().exec(&id, &spec, streams), typing);
    assert_eq!(code.unwrap(), 4);
    assert!(text.contains("got hello\r\n40 100\r\n"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_bounded_in_time_and_output() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let spec = node.container("web", "app", "exec sleep 1000");
    let id = node.run(&spec).await;
    let run = |script: &str, limit| {
        let (command, node, id) = (shell(script), &node, &id);
        async move { node.runtime().exec_sync(id, &command, limit).await }
    };
    let output = run("echo yes; exit 1", LIMIT).await.unwrap();
    assert_eq!((output.code, output.stdout.as_slice()), (1, &b"yes\n"[..]));
    let output = run("seq 1 100000", LIMIT).await.unwrap();
    assert_eq!((output.code, output.stdout.len()), (0, EXEC_OUTPUT_MAX));
    // A child that keeps the streams does not keep the command.
    assert_eq!(run("sleep 1000 & exit 2", LIMIT).await.unwrap().code, 2);
    let error = run("sleep 1000", Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    let error = run("", LIMIT).await.err();
    assert!(error.is_none(), "an empty script succeeds: {error:?}");
    let error = node
        .runtime()
        .exec_sync(&id, &["/no/such".into()], LIMIT)
        .await
        .unwrap_err();
    assert!(
        error.to_string().to_lowercase().contains("no such file"),
        "{error}"
    );

    node.runtime().signal_container(&id, 9).await.unwrap();
    node.exit(&id).await;
    let error = node
        .runtime()
        .exec_sync(&id, &shell("true"), LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotRunning { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_attaches_to_the_first_process() {
    let node = Node::start().await;
    node.pod("web").await;
    let mut spec = node.container(
        "web",
        "app",
        "while read line; do echo got $line; done; exit 6",
    );
    spec.stdin = true;
    spec.stdin_once = true;
    let id = node.run(&spec).await;
    let (stdout, mut out) = duplex(1 << 16);
    let (mut keyboard, stdin) = duplex(1 << 16);
    let streams = Streams {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        ..Streams::default()
    };
    let typing = async {
        keyboard.write_all(b"one\n").await.unwrap();
        let mut got = [0; 8];
        out.read_exact(&mut got).await.unwrap();
        drop(keyboard);
        String::from_utf8_lossy(&got).into_owned()
    };
    let (code, got) = tokio::join!(node.runtime().attach(&id, streams), typing);
    assert_eq!(got, "got one\n");
    assert_eq!(code.unwrap(), Some(6));
    assert_eq!(node.log(&spec), "got one\n");
}
