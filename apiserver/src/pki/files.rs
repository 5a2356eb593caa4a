//! The files of keys and certificates, readable by their owner only.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Credential, PkiError};

/// What went wrong with a file: `read`, `write` or `lock`.
pub(super) fn file(what: &'static str, path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

/// A file that is no key or certificate.
pub(super) fn content(path: &Path, why: impl std::fmt::Display) -> PkiError {
    PkiError::Content {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// The text of a file, if there is one.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(file("read", path, fault)),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let draft = path.with_extension("new");
    let written = (|| {
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&draft, path)
    })();
    written.map_err(|fault| file("write", path, fault))
}

/// A certificate and its key, if both are there.
pub(super) fn load(dir: &Path, name: &str) -> Result<Option<Credential>, PkiError> {
    let certificate = read(&dir.join(format!("{name}.crt")))?;
    let key = read(&dir.join(format!("{name}.key")))?;
    Ok(certificate
        .zip(key)
        .map(|(certificate, key)| Credential { certificate, key }))
}

/// Keeps a certificate and its key.
pub(super) fn store(dir: &Path, name: &str, made: Credential) -> Result<Credential, PkiError> {
    write(&dir.join(format!("{name}.key")), &made.key)?;
    write(&dir.join(format!("{name}.crt")), &made.certificate)?;
    Ok(made)
}
