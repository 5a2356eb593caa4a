//! Making a store in etcd of an [export](crate::export): the restoration of a backup.
//!
//! Entries get new revisions, which etcd gives. So that revisions do not go back for clients, all of
//! them are moved ahead: beyond the export's, and `bump` more for what was written after it and is lost.

use std::path::Path;
use std::time::SystemTime;

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use thiserror::Error;

use super::layout::{self, Names, RESTORING, VERSION};
use super::members::{Failure, Members};
use super::{EtcdConfig, EtcdError};
use crate::codec::millis;
use crate::engine::Record;
use crate::export::{ExportError, Head, Reader};
use crate::revision::Revision;
use crate::txn::Draft;

/// How many entries one transaction puts, and how many bytes: within etcd's bounds.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 1 << 20;

/// Why a backup cannot be restored into etcd.
#[derive(Debug, Error)]
pub enum RestoreEtcdError {
    /// The backup cannot be read, or is damaged.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// There are objects already.
    #[error(
        "there is something under {0} in etcd, and a backup is restored where nothing is; \
         delete it (`etcdctl del --prefix {0}/`), or restore under another prefix"
    )]
    NotEmpty(String),
    /// etcd cannot be reached, or refuses.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// Makes a store of the export at `file`, and returns the revision that it goes on from. While it
/// does, and when it fails, no server opens the store.
///
/// # Errors
/// [`RestoreEtcdError`] says why it could not, and the remedy.
pub(super) async fn run(
    config: EtcdConfig,
    file: &Path,
    bump: u64,
) -> Result<Revision, RestoreEtcdError> {
    // All of it is proved before anything is written.
    let path = file.to_owned();
    let proved = tokio::task::spawn_blocking(move || crate::export::verify(&path)).await;
    let head = proved.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let endpoints = config.endpoints.join(",");
    let members = Members::new(&config).await;
    let members = members.map_err(|error| EtcdError::Config {
        endpoints: endpoints.clone(),
        why: error.to_string(),
    })?;
    let to = Place {
        names: Names::new(&config.prefix),
        members,
        endpoints,
        prefix: config.prefix,
    };
    to.begin().await?;
    let mut reader = Reader::open(file)?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    // Pages of a file that was just read, and small: this does not block for long.
    while let Some(record) = reader.next()? {
        bytes += record.value.len();
        batch.push(to.put(&record));
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            to.write(std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    to.write(batch).await?;
    to.end(head, bump).await
}

struct Place {
    members: Members,
    names: Names,
    endpoints: String,
    prefix: String,
}

// === impl Place ===

impl Place {
    /// Claims the place, if nothing is there.
    async fn begin(&self) -> Result<(), RestoreEtcdError> {
        let (first, end) = self.names.all();
        let options = GetOptions::new().with_range(end).with_limit(1);
        let there = self.members.get(&first, options.with_keys_only()).await;
        let there = there.map_err(|failure| self.failed(&failure))?;
        let absent = Compare::version(self.names.version(), CompareOp::Equal, 0);
        let claim = TxnOp::put(self.names.version(), RESTORING, None);
        let claimed = match there.kvs().is_empty() {
            true => {
                let txn = Txn::new().when([absent]).and_then([claim]);
                let answer = self.members.txn(txn).await;
                answer.map_err(|failure| self.failed(&failure))?.succeeded()
            }
            false => false,
        };
        match claimed {
            true => Ok(()),
            false => Err(RestoreEtcdError::NotEmpty(self.prefix.clone())),
        }
    }

    fn put(&self, record: &Record) -> TxnOp {
        let draft = draft(record);
        TxnOp::put(self.names.entry(&record.key), layout::encode(&draft), None)
    }

    async fn write(&self, puts: Vec<TxnOp>) -> Result<(), RestoreEtcdError> {
        let txn = Txn::new().and_then(puts);
        let answer = self.members.txn(txn).await;
        answer.map_err(|failure| self.failed(&failure))?;
        Ok(())
    }

    /// Makes a store of what was put.
    async fn end(&self, head: Head, bump: u64) -> Result<Revision, RestoreEtcdError> {
        let version = self.names.version();
        let found = self.members.get(&version, GetOptions::new()).await;
        let found = found.map_err(|failure| self.failed(&failure))?;
        let newest = found.header().map_or(0, |header| header.revision());
        let newest = u64::try_from(newest).unwrap_or(0);
        let wanted = head.revision.0.saturating_add(bump);
        // In the etcd that the backup was made of, etcd is ahead itself.
        let ahead = wanted.saturating_sub(newest);
        let floor = newest + 1 + ahead;
        self.write(vec![
            TxnOp::put(self.names.version(), VERSION.to_string(), None),
            TxnOp::put(self.names.offset(), ahead.to_string(), None),
            TxnOp::put(self.names.compacted(), floor.to_string(), None),
            TxnOp::put(
                self.names.head(),
                millis(SystemTime::now()).to_string(),
                None,
            ),
        ])
        .await?;
        Ok(Revision(floor))
    }

    fn failed(&self, failure: &Failure) -> EtcdError {
        EtcdError::Unreachable {
            endpoints: self.endpoints.clone(),
            why: failure.to_string(),
        }
    }
}

/// The draft that a record was finished from: its value without its revision.
fn draft(record: &Record) -> Draft {
    let Some(at) = record.revision_at else {
        return Draft::plain(record.value.clone());
    };
    let start = (at as usize).min(record.value.len());
    let (before, rest) = record.value.split_at(start);
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let known = record.modified.to_string().len();
    Draft::new([before, &rest[digits.min(known)..]].concat(), at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn a_record_gives_the_draft_that_it_was_made_of() {
        let drafts = [
            Draft::new("rv=", 3),
            Draft::new("rv=7", 3),
            Draft::new("{\"rv\":\"\",\"x\":1}", 7),
            Draft::plain("42"),
        ];
        for made_of in drafts {
            let record = Record {
                key: Key::new("/core/pods/a/x").unwrap(),
                value: made_of.finish(Revision(123)),
                revision_at: made_of.revision_at(),
                created: Revision(1),
                modified: Revision(123),
            };
            let again = draft(&record);
            assert_eq!(again.finish(Revision(9)), made_of.finish(Revision(9)));
        }
    }
}
