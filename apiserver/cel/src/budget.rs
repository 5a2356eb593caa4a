//! What evaluations may cost: a bound on all of them together and on each.

/// What is left to spend, in cel-go's units of cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    left: u64,
    each: u64,
}

/// There is nothing left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spent {
    /// For this expression.
    #[error("operation cancelled: actual cost limit exceeded")]
    Expression,
    /// For all together.
    #[error(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )]
    All,
}

/// The meter of one evaluation.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    budget: &'a mut Budget,
    spent: u64,
}

// === impl Budget ===

impl Budget {
    /// At most `all` for all evaluations, and at most `each` for one.
    pub fn new(all: u64, each: u64) -> Self {
        Self { left: all, each }
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn meter(&mut self) -> Meter<'_> {
        Meter {
            budget: self,
            spent: 0,
        }
    }
}

// === impl Meter ===

impl Meter<'_> {
    /// Spends.
    pub fn pay(&mut self, cost: u64) -> Result<(), Spent> {
        self.spent = self.spent.saturating_add(cost);
        if cost > self.budget.left {
            self.budget.left = 0;
            return Err(Spent::All);
        }
        self.budget.left -= cost;
        match self.spent > self.budget.each {
            true => Err(Spent::Expression),
            false => Ok(()),
        }
    }
}
