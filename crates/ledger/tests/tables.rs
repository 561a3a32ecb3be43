//! The ledger in text tables: one operation a line, the expected outcome behind `=>`.
//!
//! ```text
//! at 2026-01-31T23:59:50            the ledger's time from here on; `+10s`, `-5s`, `+2m`, `+3h`, `+1d`: relative
//! id r9 -61s                        an id whose time is off; others get the present time when first used
//! policy hourly=250/Hour mine=10/Day@acme          `v=1` first: only if that is the version in force
//! reserve acme r1 hourly/alice=20..100 ttl=30s     at least 20, at most 100; `=100`: all or nothing
//! settle acme r1 90                 extend acme r1 30s     release acme r1     expire acme r1 r2
//! adjust acme a1 hourly/alice topup=50              or reset, override=50, clear
//! account acme hourly/alice         shows spent+reserved/limit over <overdraft>, and closed windows, newest first
//! ```
//!
//! Balances read `spent+reserved/limit`. After every line all invariants are checked.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail here")]

#[path = "tables/words.rs"]
mod words;

use std::collections::BTreeMap;

use quorate_ledger::{Command, Ledger, Outcome, ReservationId, TimestampMs, invariant};
use words::{
    adjustment, charge, instant, rule, show, show_account, show_denial, span_ms, state, tokens, window,
};

#[derive(Default)]
struct Table {
    ledger: Ledger,
    now: TimestampMs,
    ids: BTreeMap<String, ReservationId>,
}

impl Table {
    fn id(&mut self, name: &str) -> ReservationId {
        let now = self.now;
        self.new_id(name, now)
    }

    fn new_id(&mut self, name: &str, at: TimestampMs) -> ReservationId {
        let number = self.ids.len() as u128;
        let value = (u128::from(at.0) << 80) | (7 << 76) | (0b10 << 62) | number;
        *self.ids.entry(name.into()).or_insert_with(|| ReservationId::from_u128(value).unwrap())
    }

    /// `None` where the line says something to the table, not to the ledger.
    fn line(&mut self, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        let verb = words.next().expect("a verb");
        let rest: Vec<&str> = words.collect();
        match (verb, rest.as_slice()) {
            ("at", [when]) => {
                self.now = instant(self.now, when);
                None
            }
            ("id", [name, offset]) => {
                let at = instant(self.now, offset);
                self.new_id(name, at);
                None
            }
            ("account", [tenant, account]) => {
                let (budget, subject) = account.split_once('/').expect("budget/subject");
                let view = self.ledger.account(self.now, tenant, budget, subject);
                Some(view.map_or("none".into(), |view| show_account(&view)))
            }
            ("window", [kind]) => Some(window(kind, self.now)),
            ("would-deny", rest) => {
                let command = self.reserve(rest);
                Some(
                    self.ledger
                        .would_deny(self.now, &command)
                        .map_or("none".into(), |denial| show_denial(&denial)),
                )
            }
            (verb, rest) => {
                let command = self.command(verb, rest);
                let outcome = self.ledger.apply(self.now, &command);
                Some(self.show(&outcome))
            }
        }
    }

    fn show(&self, outcome: &Outcome) -> String {
        let text = show(outcome);
        self.ids.iter().fold(text, |text, (name, id)| text.replace(&id.to_string(), name))
    }

    fn command(&mut self, verb: &str, rest: &[&str]) -> Command {
        match (verb, rest) {
            ("policy", rules) => {
                let expected = rules.first().and_then(|first| first.strip_prefix("v="));
                let expected_version = expected.map(|version| version.parse().unwrap());
                let rules =
                    rules.iter().skip(usize::from(expected.is_some())).map(|text| rule(text)).collect();
                Command::PutPolicy {
                    expected_version,
                    rules,
                    document: String::new(),
                    staged: None,
                    by: String::new(),
                    comment: String::new(),
                }
            }
            ("reserve", rest) => self.reserve(rest),
            ("settle", [tenant, id, actual @ ..]) => {
                let actual = actual.iter().map(|text| tokens(text)).collect();
                Command::Settle { tenant: (*tenant).into(), id: self.id(id), actual }
            }
            ("extend", [tenant, id, ttl]) => {
                Command::Extend { tenant: (*tenant).into(), id: self.id(id), ttl_ms: span_ms(ttl) }
            }
            ("release", [tenant, id]) => Command::Release { tenant: (*tenant).into(), id: self.id(id) },
            ("expire", [tenant, ids @ ..]) => {
                Command::Expire { tenant: (*tenant).into(), ids: ids.iter().map(|id| self.id(id)).collect() }
            }
            ("adjust", [tenant, id, account, change]) => {
                let (budget, subject) = account.split_once('/').expect("budget/subject");
                Command::AdjustAccount {
                    tenant: (*tenant).into(),
                    id: self.id(id),
                    budget: budget.into(),
                    subject: subject.into(),
                    adjustment: adjustment(change),
                    by: String::new(),
                }
            }
            ("report", [backend, is, retry_after, reason]) => {
                Command::ReportProvider(quorate_ledger::ProviderReport {
                    backend: (*backend).into(),
                    state: state(is),
                    reason: (*reason).into(),
                    retry_after_ms: span_ms(retry_after),
                    reporter: "gateway-1".into(),
                })
            }
            _ => panic!("{verb} with {rest:?} is no operation"),
        }
    }

    fn reserve(&mut self, rest: &[&str]) -> Command {
        let [tenant, id, rest @ ..] = rest else { panic!("reserve TENANT ID …") };
        let ttl = rest.iter().find_map(|word| word.strip_prefix("ttl="));
        let charges = rest.iter().filter(|word| !word.starts_with("ttl=")).map(|text| charge(text)).collect();
        let ttl_ms = ttl.map_or(30_000, span_ms);
        Command::Reserve { tenant: (*tenant).into(), id: self.id(id), charges, ttl_ms, wait: false }
    }
}

fn run(name: &str, text: &str) {
    let (mut table, mut operations) = (Table::default(), 0);
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (operation, expected) = match line.split_once("=>") {
            Some((operation, expected)) => (operation.trim(), Some(expected.trim())),
            None => (line, None),
        };
        let got = table.line(operation);
        assert_eq!(got.as_deref(), expected, "{name}:{}: {operation}", index + 1);
        assert_eq!(invariant::check(&table.ledger), [], "{name}:{}: {operation}", index + 1);
        operations += usize::from(got.is_some());
    }
    assert!(operations > 0, "{name} says nothing");
}

#[test]
fn every_table_holds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables");
    let mut tables: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    tables.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    tables.sort();
    assert!(tables.len() >= 5, "the tables are missing: {tables:?}");
    for path in tables {
        run(&path.file_name().unwrap().to_string_lossy(), &std::fs::read_to_string(&path).unwrap());
    }
}
