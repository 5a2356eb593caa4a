//! Reading logs: across rotations, followed, joined from parts, with garbage in them.

use jiff::Timestamp;

use super::super::file::{Limits, LogFile};
use super::super::format;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn line(second: i64, stream: &str, tag: char, content: &str) -> String {
    format!("{:.9} {stream} {tag} {content}\n", at(second))
}

/// Appends "line N".
fn add(log: &mut LogFile, n: i64) {
    let text = line(n, "stdout", 'F', &format!("line {n}"));
    log.append(text.as_bytes()).unwrap();
    log.rotate_if_full(at(n)).unwrap();
}

/// A log of lines "line 0" to "line 9", a second apart, in files of about three lines.
fn ten_lines(path: &Path) -> LogFile {
    let one = line(0, "stdout", 'F', "line 0").len() as u64;
    let mut log = LogFile::open(
        path,
        Limits {
            file_bytes: 3 * one,
            files: 10,
        },
    )
    .unwrap();
    for n in 0..10 {
        add(&mut log, n);
    }
    log
}

async fn read(path: &Path, options: Options) -> String {
    let mut reader = Reader::open(path, &options, CancellationToken::new())
        .await
        .unwrap();
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    String::from_utf8(all).unwrap()
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

#[tokio::test]
async fn what_is_asked_for_is_read_across_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    ten_lines(&path);
    let all = Options::default();
    assert_eq!(read(&path, all.clone()).await, lines(0..10));
    for tail in 0..12 {
        let first = 10_u32.saturating_sub(tail);
        let options = Options {
            tail: Some(tail.into()),
            ..all.clone()
        };
        assert_eq!(read(&path, options).await, lines(first..10), "tail {tail}");
    }
    let options = Options {
        since: Some(at(7)),
        ..all.clone()
    };
    assert_eq!(read(&path, options).await, lines(7..10));
    let options = Options {
        limit_bytes: Some(9),
        ..all.clone()
    };
    assert_eq!(read(&path, options).await, "line 0\nli");
    let options = Options {
        limit_bytes: Some(0),
        ..all.clone()
    };
    assert_eq!(read(&path, options).await, "");
    let options = Options {
        timestamps: true,
        tail: Some(1),
        ..all
    };
    assert_eq!(read(&path, options).await, format!("{:.9} line 9\n", at(9)));
}

#[tokio::test]
async fn partial_lines_are_joined_and_garbage_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let text = [
        line(0, "stdout", 'P', "one "),
        line(0, "stdout", 'F', "line"),
        "garbage\n".to_owned(),
        format!("{}\n", "x".repeat(FILE_LINE_MAX + 1)),
        line(1, "stderr", 'F', "error"),
        line(2, "stdout", 'P', "no end"),
    ];
    fs::write(&path, text.concat()).unwrap();
    let all = Options {
        timestamps: true,
        ..Options::default()
    };
    let expected = format!(
        "{:.9} one line\n{:.9} error\n{:.9} no end",
        at(0),
        at(1),
        at(2)
    );
    assert_eq!(read(&path, all).await, expected);
    let stderr = Some(format::Stream::Stderr);
    let options = Options {
        stream: stderr,
        ..Options::default()
    };
    assert_eq!(read(&path, options).await, "error\n");
}

#[tokio::test]
async fn a_followed_log_goes_on_across_rotations_until_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let mut log = ten_lines(&path);
    let complete = CancellationToken::new();
    let options = Options {
        follow: true,
        tail: Some(2),
        ..Options::default()
    };
    let mut reader = Reader::open(&path, &options, complete.clone())
        .await
        .unwrap();
    let mut said = String::new();
    let mut next = 10;
    while said != lines(8..30) {
        // Each piece is written only after the one before was read.
        let piece = reader.next().await.unwrap().unwrap();
        said.push_str(std::str::from_utf8(&piece).unwrap());
        if said == lines(8..next) && next < 30 {
            for n in next..next + 4 {
                add(&mut log, n.into());
            }
            next += 4;
        }
    }
    complete.cancel();
    assert_eq!(reader.next().await.unwrap(), None);
}
