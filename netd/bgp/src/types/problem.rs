//! What was wrong in an UPDATE, and what that means for its routes (RFC 7606 §2).

use std::fmt;

use super::{AttributeCode, Family};

/// What a malformed attribute leads to, from mild to severe. The strongest alternative, to reset
/// the session, is not among them: then the decoder returns the NOTIFICATION to send instead of
/// an UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The attribute was dropped, the routes stand.
    AttributeDiscard,
    /// The routes of the message were taken as withdrawn.
    TreatAsWithdraw,
    /// The receiver must drop all routes of this family and ignore it until the session ends
    /// (RFC 4760 §7): what the message said of it could not be read.
    DisableFamily(Family),
}

/// One thing that was wrong in an UPDATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The attribute.
    pub attribute: AttributeCode,
    /// What was done about it.
    pub action: Action,
    /// What was wrong with it.
    pub what: &'static str,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::AttributeDiscard => f.write_str("attribute discarded"),
            Action::TreatAsWithdraw => f.write_str("routes treated as withdrawn"),
            Action::DisableFamily(family) => write!(f, "{family} disabled"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.attribute, self.what, self.action)
    }
}
