//! The file that audit records go to: one JSON object a line, appended by one thread, rotated by
//! size.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How many records may wait to be written.
const WAITING_MAX: usize = 10_000;

/// Where records go.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// At which size in bytes it is rotated; 0 for never.
    pub max_bytes: u64,
    /// How many rotated files are kept, as `audit.log.1` (the youngest), `audit.log.2`, ...
    pub max_backups: usize,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the audit log {path}: {source}")]
pub struct LogError {
    path: PathBuf,
    source: std::io::Error,
}

/// The log.
pub struct Log {
    records: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    lost: Counter,
    writer: Mutex<Option<JoinHandle<()>>>,
}

// === impl LogConfig ===

impl LogConfig {
    /// A file with upstream's defaults: rotated at 100 MiB; ten old ones stay.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_bytes: 100 << 20,
            max_backups: 10,
        }
    }
}

// === impl Log ===

impl Log {
    /// Opens the file, and starts the thread that writes. `lost` counts the records that are lost.
    pub fn open(config: &LogConfig, lost: Counter) -> Result<Self, LogError> {
        let mut output = Output::open(config.clone()).map_err(|source| LogError {
            path: config.path.clone(),
            source,
        })?;
        let (records, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING_MAX);
        let counter = lost.clone();
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(record) = waiting.blocking_recv() {
                let flush = waiting.is_empty();
                if let Err(error) = output.write(&record, flush) {
                    counter.inc();
                    tracing::error!(%error, path = %output.config.path.display(), "an audit record is lost");
                }
            }
        });
        Ok(Self {
            records: Mutex::new(Some(records)),
            lost,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Hands over a record. When too many wait it is lost, and counted.
    pub fn write(&self, record: Vec<u8>) {
        let records = self.records.lock();
        let sent = records.as_ref().map(|records| records.try_send(record));
        if !matches!(sent, Some(Ok(()))) {
            self.lost.inc();
        }
    }

    /// Waits until what was handed over is written; later records are lost.
    pub async fn close(&self) {
        self.records.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // Only a panic could be told here, and it has been.
            let _ = writer.await;
        }
    }
}

/// The open file.
struct Output {
    config: LogConfig,
    file: BufWriter<Box<dyn Write + Send>>,
    size: u64,
}

impl Output {
    fn open(config: LogConfig) -> std::io::Result<Self> {
        let (file, size): (Box<dyn Write + Send>, u64) = match config.path.as_os_str() == "-" {
            true => (Box::new(std::io::stdout()), 0),
            false => {
                let file = append(&config.path)?;
                let size = file.metadata()?.len();
                (Box::new(file), size)
            }
        };
        Ok(Self {
            config,
            file: BufWriter::new(file),
            size,
        })
    }

    fn write(&mut self, record: &[u8], flush: bool) -> std::io::Result<()> {
        let max = self.config.max_bytes;
        let grown = self.size + record.len() as u64;
        if max > 0 && self.size > 0 && grown > max && self.config.path.as_os_str() != "-" {
            self.rotate()?;
        }
        self.file.write_all(record)?;
        self.size += record.len() as u64;
        match flush {
            true => self.file.flush(),
            false => Ok(()),
        }
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        self.file.flush()?;
        let path = self.config.path.clone();
        let name = |number: usize| numbered(&path, number);
        for number in (1..self.config.max_backups).rev() {
            move_if_there(&name(number), &name(number + 1))?;
        }
        match self.config.max_backups {
            0 => std::fs::remove_file(&path)?,
            _ => std::fs::rename(&path, name(1))?,
        }
        self.file = BufWriter::new(Box::new(append(&path)?));
        self.size = 0;
        Ok(())
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(path)
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn move_if_there(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::rename(from, to) {
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> usize {
        std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
    }

    #[tokio::test]
    async fn is_rotated_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let config = LogConfig {
            max_bytes: 100,
            max_backups: 2,
            ..LogConfig::new(&path)
        };
        let lost = Counter::default();
        let log = Log::open(&config, lost.clone()).unwrap();
        for _ in 0..45 {
            log.write(b"123456789\n".to_vec());
        }
        log.close().await;
        assert_eq!(lines(&path), 5);
        assert_eq!(
            (lines(&numbered(&path, 1)), lines(&numbered(&path, 2))),
            (10, 10)
        );
        assert!(!numbered(&path, 3).exists());
        assert_eq!(lost.get(), 0);
        log.write(b"late\n".to_vec());
        assert_eq!(lost.get(), 1);
        let log = Log::open(&config, lost).unwrap();
        log.write(b"again\n".to_vec());
        log.close().await;
        assert_eq!(lines(&path), 6, "a restart goes on in the same file");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_told() {
        let config = LogConfig::new("/proc/nothing/audit.log");
        let told = Log::open(&config, Counter::default())
            .err()
            .unwrap()
            .to_string();
        assert!(told.contains("/proc/nothing/audit.log"), "{told}");
    }
}
