//! Commands about several objects go on after a fault, as kubectl's do, and tell of all at the end.

use anyhow::{Error, Result};

use crate::terminal;

/// What has gone wrong so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<Error>);

impl Faults {
    /// What went well; what did not is told later.
    pub fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// The last fault, those before it having been told.
    ///
    /// # Errors
    /// If there was one.
    pub fn end(mut self) -> Result<()> {
        let Some(last) = self.0.pop() else {
            return Ok(());
        };
        for fault in &self.0 {
            eprintln!("error: {}", terminal::sentence(fault));
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn what_went_well_is_kept_and_faults_are_told_at_the_end() {
        let mut faults = Faults::default();
        assert_eq!(faults.note(Ok(1)), Some(1));
        assert_eq!(faults.note::<i32>(Err(anyhow!("a"))), None);
        assert_eq!(faults.note::<i32>(Err(anyhow!("b"))), None);
        assert_eq!(faults.end().unwrap_err().to_string(), "b");
        assert!(Faults::default().end().is_ok());
    }
}
