//! Collects what is wrong with a set of manifests, and what is allowed but probably not meant.

use std::cell::{Cell, RefCell};

use crate::manifests::error::{PolicyError, presentable};
use crate::manifests::yaml::Place;
use crate::nearest::nearest;

/// Of one source: further mistakes and warnings are not even looked into.
const KEPT_MAX: usize = 1_000;

/// Whether an unknown field is a mistake or a warning. Everything else that is wrong is always a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Strict,
    Lenient,
}

/// Of one source. Shared by all that read a part of it, hence the cells.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    source: &'a str,
    mode: Mode,
    errors: RefCell<Vec<PolicyError>>,
    warnings: RefCell<Vec<String>>,
    /// Of the object that is being read: what warnings call it.
    object: RefCell<String>,
    mistakes: Cell<usize>,
}

impl<'a> Report<'a> {
    pub fn new(source: &'a str, mode: Mode) -> Self {
        Self {
            source,
            mode,
            errors: RefCell::default(),
            warnings: RefCell::default(),
            object: RefCell::default(),
            mistakes: Cell::new(0),
        }
    }

    pub fn source(&self) -> &'a str {
        self.source
    }

    /// Warnings from here on are about this object.
    pub fn about(&self, object: &str) {
        *self.object.borrow_mut() = presentable(object);
    }

    pub fn error(&self, at: Place, path: &str, message: &str) {
        self.push(PolicyError::new(self.source, at.line, at.column, path, message));
    }

    pub fn unknown(&self, at: Place, path: &str, message: &str, name: &str, known: &[&str]) {
        let error = PolicyError::new(self.source, at.line, at.column, path, message);
        self.push(error.meant(nearest(name, known.iter().copied())));
    }

    pub fn unknown_field(&self, at: Place, path: &str, name: &str, known: &[&str]) {
        if self.is_full() {
            return;
        }
        let mut message = format!("unknown field `{name}`");
        let meant = nearest(name, known.iter().copied());
        if meant.is_none() && !known.is_empty() && known.len() <= 12 {
            message.push_str(&format!("; known are {}", known.join(", ")));
        }
        let error = PolicyError::new(self.source, at.line, at.column, path, &message).meant(meant);
        match self.mode {
            Mode::Strict => self.push(error),
            Mode::Lenient => self.say(format!("{error}: ignored")),
        }
    }

    pub fn warn(&self, message: &str) {
        let object = self.object.borrow();
        let message = presentable(message);
        self.say(if object.is_empty() { message } else { format!("{object}: {message}") });
    }

    /// How many mistakes so far, to see whether one more was found meanwhile.
    pub fn mistakes(&self) -> usize {
        self.mistakes.get()
    }

    fn is_full(&self) -> bool {
        self.mistakes.get().max(self.warnings.borrow().len()) >= KEPT_MAX
    }

    fn push(&self, error: PolicyError) {
        self.mistakes.set(self.mistakes.get() + 1);
        if self.mistakes.get() <= KEPT_MAX {
            self.errors.borrow_mut().push(error);
        }
    }

    fn say(&self, warning: String) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < KEPT_MAX {
            warnings.push(warning);
        }
    }

    /// Mistakes and warnings, in the order in which they were found.
    pub fn into_parts(self) -> (Vec<PolicyError>, Vec<String>) {
        (self.errors.into_inner(), self.warnings.into_inner())
    }
}
