//! The key of an account, in one shared text.

use std::borrow::Borrow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Stands between budget and subject. Neither may contain it, and it is below all that they contain: so the texts order
/// as the pairs (budget, subject) do.
const SEPARATOR: char = '\0';

/// (budget, subject). A reservation's lines share the text of their account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct AccountKey(Arc<str>);

impl AccountKey {
    /// What to look an account up with.
    pub fn text(budget: &str, subject: &str) -> String {
        let mut text = String::with_capacity(budget.len() + 1 + subject.len());
        text.push_str(budget);
        text.push(SEPARATOR);
        text.push_str(subject);
        text
    }

    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    pub fn budget(&self) -> &str {
        self.parts().0
    }

    pub fn subject(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(SEPARATOR).unwrap_or((&self.0, ""))
    }
}

impl Borrow<str> for AccountKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}
