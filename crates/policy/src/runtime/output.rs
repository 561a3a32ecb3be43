//! How much output a request is admitted with: what it names, or what its budgets give to those that name nothing.

use super::{Budget, BudgetMatch, WhenShort};

/// The output tokens of all answers together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputBounds {
    pub most: u64,
    /// For each budget, the fewest that are accepted there; `most`: all or nothing.
    pub least: Vec<u64>,
    /// What the client named itself, for one answer.
    named: Option<u64>,
    /// Somebody holds a bound on it: the backend must be told.
    bounded: bool,
    answers: u64,
}

/// The request names more than a budget allows to any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputTooLarge {
    pub budget: String,
    pub named: u64,
    pub max: u64,
}

impl OutputBounds {
    /// For requests that have no output.
    pub fn none(matches: &[BudgetMatch]) -> Self {
        Self::whole(0, None, false, (1, matches.len()))
    }

    /// For requests whose output has a bound, and no limit that a backend could be told.
    pub fn fixed(most: u64, matches: &[BudgetMatch]) -> Self {
        Self::whole(most, None, false, (1, matches.len()))
    }

    /// `named`: the limit of one answer that the request names. It gets that whole, or less where all budgets that are
    /// short say `Clamp`; one that names none gets what is left of the smallest default, which is at most `default_max`.
    ///
    /// # Errors
    /// It names more than the `output.max` of a budget that does not clamp.
    pub fn of(
        named: Option<u64>,
        default_max: u64,
        answers: u64,
        matches: &[BudgetMatch],
    ) -> Result<Self, OutputTooLarge> {
        let answers = answers.max(1);
        // Those that only watch change nothing about a request, nor do those that count no output: only what they name
        // as its largest holds.
        let binding = || matches.iter().map(|found| &*found.budget).filter(|budget| budget.binds());
        let counting = || binding().filter(|budget| budget.cost.counts_output());
        let largest = binding().filter_map(|budget| budget.output_max).min().unwrap_or(u64::MAX);
        let shape = (answers, matches.len());
        let mut output = if let Some(named) = named {
            let allows = |budget: &&Budget| {
                budget.when_short == WhenShort::Clamp || budget.output_max.is_none_or(|max| named <= max)
            };
            if let Some(budget) = binding().find(|budget| !allows(budget)) {
                let max = budget.output_max.unwrap_or(0);
                return Err(OutputTooLarge { budget: budget.rule.name.clone(), named, max });
            }
            Self::whole(named.min(largest), Some(named), true, shape)
        } else {
            let smallest = counting().map(|budget| budget.output_default).min();
            let counted = || matches.iter().map(|found| found.budget.output_default).min();
            let most = smallest.or_else(counted).unwrap_or(0).min(largest).max(1);
            let bounded = smallest.is_some() || largest < u64::MAX;
            Self::whole(most.min(default_max), None, bounded, shape)
        };
        let one = output.most / answers;
        let floor = |budget: &Budget| budget.output_floor.clamp(1, one.max(1)).min(one);
        // The largest floor of all, where it is not above that.
        let floor_of_all = counting().map(floor).max().unwrap_or(one);
        for (least, found) in output.least.iter_mut().zip(matches) {
            let budget = &found.budget;
            if budget.binds() && named.is_none() {
                *least = floor_of_all.saturating_mul(answers);
            } else if budget.binds() && budget.when_short == WhenShort::Clamp {
                *least = floor(budget).saturating_mul(answers);
            }
        }
        Ok(output)
    }

    fn whole(most: u64, named: Option<u64>, bounded: bool, (answers, budgets): (u64, usize)) -> Self {
        let most = most.saturating_mul(answers);
        Self { most, least: vec![most; budgets], named, bounded, answers }
    }

    /// Whether a backend keeps to `most`: the request names it, or the backend is told, or has no output.
    pub fn is_bounded(&self) -> bool {
        self.bounded || self.most == 0
    }

    /// The limit of one answer to send upstream, for `granted` tokens of all answers. `None`: the request names it.
    pub fn limit(&self, granted: u64) -> Option<u64> {
        let limit = granted / self.answers;
        match self.named {
            Some(named) => (limit < named).then_some(limit),
            None => self.bounded.then_some(limit),
        }
    }
}
