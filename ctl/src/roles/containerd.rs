//! The containerd that a node of this machine uses: the one asked for, the machine's, or a private one,
//! for which this program decompresses layers.

use std::path::{Path, PathBuf};

use peapod_nodelet::runtime::Result;
use peapod_nodelet::runtime::containerd::launch::{self, Choice};

/// The socket of the containerd that was `asked` for (`--containerd`), or of the one that is there; in
/// `dir` a private one is started when there is none.
///
/// # Errors
/// None answers at the socket that was asked for, or the private one does not start: with its last words.
pub async fn find_or_start(asked: Option<&Path>, dir: &Path) -> Result<PathBuf> {
    let choice = asked.map_or(Choice::Auto, |socket| Choice::Socket(socket.to_owned()));
    launch::find_or_start(&choice, dir, inflater().as_deref()).await
}

/// Starts the private containerd of `dir` if it has ended.
///
/// # Errors
/// As [`find_or_start`].
pub async fn start_private(dir: &Path) -> Result<PathBuf> {
    launch::find_or_start(&Choice::Private, dir, inflater().as_deref()).await
}

/// This program. Without it containerd decompresses by itself.
fn inflater() -> Option<PathBuf> {
    std::env::current_exe().ok()
}
