//! Processes that ended by themselves, and panics in their logs. None of that may happen, unless a fault said so.

use std::collections::{BTreeMap, BTreeSet};

use super::Deployment;
use super::process::Process;

/// Lines of a log that are shown.
const LAST_LINES: usize = 8;
const PANIC: &str = "panicked at";

#[derive(Debug, Default)]
pub struct Ends {
    found: BTreeSet<String>,
    /// Panics that a fault accounts for, by the name of the log.
    forgiven: BTreeMap<String, usize>,
}

impl Deployment {
    /// What ended by itself and should not have, and every panic, with the last lines of the log. Empty is well.
    pub fn unexpected_ends(&self) -> Vec<String> {
        self.note_ends();
        let mut ends = self.ends.lock();
        let logs = std::fs::read_dir(&self.options.folder).into_iter().flatten().flatten();
        for log in logs.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "log"))
        {
            let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
            let forgiven = ends.forgiven.get(&name).copied().unwrap_or(0);
            let panics = panics(&text).into_iter().skip(forgiven);
            ends.found.extend(panics.map(|panic| format!("{name} panicked: {panic}")));
        }
        ends.found.iter().cloned().collect()
    }

    /// Takes up which processes have ended since.
    pub(super) fn note_ends(&self) {
        let mut ends = self.ends.lock();
        for node in self.nodes.lock().iter_mut() {
            let Some((how, output)) = take_if_ended(&mut node.process) else { continue };
            let expected = node.may_end.is_some_and(|words| words.iter().any(|word| output.contains(word)));
            if expected {
                tracing::info!(node = node.place.id, how, "ended, as was to be expected");
                // What panics on its way out, of which it says in its last words why.
                ends.forgive(&format!("node-{}", node.place.id), &output);
            } else {
                ends.found.insert(told(&format!("node {}", node.place.id), &how, &output));
            }
        }
        for (number, gateway) in self.gateways.lock().iter_mut().enumerate() {
            if let Some((how, output)) = take_if_ended(&mut gateway.process) {
                ends.found.insert(told(&format!("gateway {}", number + 1), &how, &output));
            }
        }
        for (address, process) in self.providers.lock().iter_mut() {
            if let Some((how, output)) = take_if_ended(process) {
                ends.found.insert(told(&format!("provider {address}"), &how, &output));
            }
        }
    }

    /// For a process that is not watched any more: its panics are found by its log.
    pub(super) fn note_panics_of(&self, process: &Process) {
        for panic in panics(&process.output()) {
            self.ends.lock().found.insert(format!("{} panicked: {panic}", process.name()));
        }
    }
}

impl Ends {
    fn forgive(&mut self, log: &str, output: &str) {
        *self.forgiven.entry(log.to_owned()).or_default() += panics(output).len();
    }
}

fn take_if_ended(process: &mut Option<Process>) -> Option<(String, String)> {
    let how = process.as_mut()?.ended()?.to_string();
    let output = process.take()?.output();
    Some((how, output))
}

fn told(who: &str, how: &str, output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
    format!("{who} ended by itself ({how}):\n  {last}")
}

/// Each panic: its line and the next, which has the message.
fn panics(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let places = lines.iter().enumerate().filter(|(_, line)| line.contains(PANIC));
    places.map(|(place, line)| [*line, lines.get(place + 1).unwrap_or(&"")].join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_message() {
        let text = "one\nthread 'main' panicked at src/a.rs:1:2:\nit broke\nnote: run with\n";
        assert_eq!(panics(text), ["thread 'main' panicked at src/a.rs:1:2: it broke"]);
        assert_eq!(panics("all is well"), Vec::<String>::new());
    }

    #[test]
    fn an_end_is_told_with_the_last_lines() {
        let output: String = (0..20).map(|line| format!("line {line}\n")).collect();
        let told = told("node 1", "exit status: 1", &output);
        assert!(told.starts_with("node 1 ended by itself (exit status: 1):\n  line 12\n"), "{told}");
        assert!(told.ends_with("line 19"), "{told}");
    }
}
