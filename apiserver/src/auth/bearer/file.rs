//! Static tokens: a file of lines `token,user,uid,"group1,group2"`, read once at the start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::auth::user::User;

/// Most bytes of a file.
const FILE_MAX: u64 = 16 << 20;

/// The tokens, by their hash: how long a look-up takes says nothing about them.
#[derive(Clone, Debug, Default)]
pub struct StaticTokens(HashMap<[u8; 32], User>);

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the token file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is malformed.
    #[error("line {line} of the token file {path}: {why}; expected token,user,uid,\"group,...\"")]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
}

// === impl StaticTokens ===

impl StaticTokens {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let fault = |source| FileError::Read {
            path: path.to_owned(),
            source,
        };
        let len = std::fs::metadata(path).map_err(fault)?.len();
        if len > FILE_MAX {
            return Err(fault(std::io::Error::other("it is larger than 16 MiB")));
        }
        let text = std::fs::read_to_string(path).map_err(fault)?;
        Self::parse(&text).map_err(|(line, why)| FileError::Line {
            path: path.to_owned(),
            line,
            why,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut tokens = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let cells = cells(line).ok_or((at + 1, "a quote is not closed"))?;
            let [token, user, uid, rest @ ..] = cells.as_slice() else {
                return Err((at + 1, "there are fewer than three columns"));
            };
            if token.is_empty() || user.is_empty() {
                return Err((at + 1, "token and user must not be empty"));
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let groups = groups
                .split(',')
                .map(str::trim)
                .filter(|one| !one.is_empty());
            let user = User::with(user, uid, groups, Vec::new());
            tokens.insert(hash(token), user);
        }
        Ok(Self(tokens))
    }

    /// Whom a token speaks for.
    pub fn find(&self, token: &str) -> Option<User> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&hash(token)).cloned()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The cells of a line; a cell in quotes may hold commas, and quotes doubled.
fn cells(line: &str) -> Option<Vec<String>> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cells.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cells.last_mut()?.push(other),
        }
    }
    (!quoted).then_some(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "# people\nsecret-1,jane,7,\"admins,team \"\"a\"\"\"\n\nsecret-2,robot,\n";
        let tokens = StaticTokens::parse(text).unwrap();
        let jane = tokens.find("secret-1").unwrap();
        assert_eq!((jane.name(), jane.uid()), ("jane", "7"));
        assert_eq!(
            jane.groups(),
            ["admins", "team \"a\"", "system:authenticated"]
        );
        assert_eq!(tokens.find("secret-2").unwrap().name(), "robot");
        assert_eq!(tokens.find("secret"), None);
        for (text, line) in [("a,b", 1), ("\n,b,c", 2), ("x,y,z\na,\"b,c", 2)] {
            assert_eq!(StaticTokens::parse(text).unwrap_err().0, line, "{text:?}");
        }
    }
}
