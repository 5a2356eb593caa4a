//! `peapod snapshot`: backups of everything that the API holds, and a cluster made of one again.
//!
//! A backup is of objects only. The cluster's keys (`pki` in the data directory, or `--pki-dir`) are kept
//! apart by whoever runs it: with others, nodes and service accounts would be nobody.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use futures::AsyncReadExt;
use jiff::Timestamp;
use peapod_apiserver::snapshot;
use tokio::io::AsyncWriteExt;

use crate::client::{Global, Session};
use crate::instance::Layout;
use crate::instance::layout;
use crate::instance::state::InstanceLock;
use crate::instance::store_flags::StoreFlags;

/// How far revisions jump at a restoration, as etcd's own documentation advises: more than what can
/// have been written after a backup and be lost.
const BUMP: u64 = 1_000_000_000;
/// How much is received at once.
const PIECE_BYTES: usize = 256 << 10;

/// What is done about backups.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save everything that the API holds, as it is now, to a file; the cluster goes on
    Save {
        /// The file
        file: PathBuf,
    },
    /// Make an empty store of a backup; start the cluster on it afterwards
    Restore(Box<RestoreArgs>),
    /// Read all of a backup and say whether it is whole
    Verify {
        /// The file
        file: PathBuf,
    },
}

/// The arguments of `peapod snapshot restore`.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// The data directory of the cluster to be; its store must be empty
    #[arg(long, value_name = "DIR", default_value = layout::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// How far revisions go on above the backup's: above any that was given after it
    #[arg(long, value_name = "N", default_value_t = BUMP, value_parser = clap::value_parser!(u64).range(..=BUMP * BUMP))]
    bump_revision: u64,
    #[command(flatten)]
    store: StoreFlags,
}

/// Runs `peapod snapshot`.
pub fn run(command: &SnapshotCommand, global: &Global) -> Result<()> {
    let runtime = crate::cli::single_threaded()?;
    match command {
        SnapshotCommand::Save { file } => runtime.block_on(save(file, global)),
        SnapshotCommand::Restore(args) => runtime.block_on(restore(args)),
        SnapshotCommand::Verify { file } => {
            println!("{}", describe(file)?);
            Ok(())
        }
    }
}

async fn save(file: &Path, global: &Global) -> Result<()> {
    let session = Session::open(global).await?;
    let partial = file.with_extension("partial");
    let saved = async {
        receive(&session, &partial).await?;
        // What broke off on the way does not verify.
        let said = describe(&partial)?;
        std::fs::rename(&partial, file)?;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
        std::fs::File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok::<_, anyhow::Error>(said)
    };
    let saved = saved.await;
    if saved.is_err() {
        // It is of no use, and may be large.
        let _ = std::fs::remove_file(&partial);
    }
    let said = saved.with_context(|| format!("cannot save a backup to {}", file.display()))?;
    println!("{}: {said}", file.display());
    Ok(())
}

async fn receive(session: &Session, to: &Path) -> Result<()> {
    let request = http::Request::get(snapshot::PATH).body(Vec::new())?;
    let response = session.client().request_stream(request).await;
    let mut body = std::pin::pin!(response.map_err(crate::client::server_error)?);
    let mut piece = vec![0; PIECE_BYTES];
    let mut options = tokio::fs::OpenOptions::new();
    // It has every secret of the cluster.
    let mut out = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(to)
        .await?;
    loop {
        match body.read(&mut piece).await? {
            0 => return Ok(out.sync_all().await?),
            read => out.write_all(&piece[..read]).await?,
        }
    }
}

async fn restore(args: &RestoreArgs) -> Result<()> {
    let layout = Layout::new(&args.data_dir)?;
    std::fs::create_dir_all(layout.root())
        .with_context(|| format!("cannot create {}", layout.root().display()))?;
    let Some(_lock) = InstanceLock::take(&layout)? else {
        bail!(
            "peapod runs from {}; stop it first",
            layout.root().display()
        );
    };
    let said = describe(&args.file)?;
    let mut config = peapod_apiserver::Config::new(layout.root());
    args.store.apply(&mut config)?;
    let revision = snapshot::restore(&config, &args.file, args.bump_revision).await?;
    println!("restored {said}; revisions go on from {revision}");
    Ok(())
}

/// What a backup that verifies is, in words.
fn describe(file: &Path) -> Result<String> {
    let head = snapshot::verify(file)?;
    let made = Timestamp::try_from(head.time).unwrap_or(Timestamp::UNIX_EPOCH);
    let made = made.round(jiff::Unit::Second).unwrap_or(made);
    Ok(format!(
        "{} objects and claims at revision {}, of {made}",
        head.entries, head.revision
    ))
}
