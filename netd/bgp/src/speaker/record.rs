//! What a speaker was told, written down, so that what it did can be had again elsewhere: a
//! [`Beginning`], then a [`Recorded`] for each input.
//!
//! Where and how it is written is the owner's business. Since a speaker reads no clock and no
//! chance but its seed, the same inputs at the same times lead to the same outputs.

use serde::{Deserialize, Serialize};

use super::{Input, Speaker};
use crate::{Config, Time};

/// How a recorded speaker was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beginning {
    /// Its configuration.
    pub config: Config,
    /// Its seed.
    pub seed: u64,
    /// When it was made.
    pub at: Time,
}

/// One input of a recorded speaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// When it came.
    pub at: Time,
    /// What it was.
    pub input: Input,
}

// === impl Beginning ===

impl Beginning {
    /// The speaker, as it was when nothing had happened to it.
    pub fn speaker(&self) -> Speaker {
        Speaker::new(self.config.clone(), self.seed, self.at)
    }
}
