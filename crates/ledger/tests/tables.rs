//! The ledger in text tables: one operation a line, the expected outcome behind `=>`.
//!
//! ```text
//! at 2026-01-31T23:59:50            the ledger's time from here on; `+10s`, `-5s`, `+2m`, `+3h`, `+1d`: relative
//! id r9 -61s                        an id whose time is off; others get the present time when first used
//! policy hourly=250/Hour mine=10/Day@acme          `v=1` first: only if that is the version in force
//! reserve acme r1 hourly/alice=20..100 ttl=30s     at least 20, at most 100; `=100`: all or nothing
//! settle acme r1 90                 extend acme r1 30s     release acme r1     expire acme r1 r2
//! adjust acme a1 hourly/alice topup=50              or reset, override=50, clear
//! put-key acme k1 alice expires=+30d model=gpt-4o by=root              revoke-key k1 by=root       keys
//! stage u1 0 doc=abc hourly=250/Hour                policy upload=u1 doc=def by=alice why=test daily=1/Day
//! alerts 0                          those after seq 0     ack 3     audit 0     history     document 2
//! report openai/gpt-4o g1 ok=5 fail=2 tail=1 ms=900/3 limited=30s probe=7:passed why=429        `limited=0s`: not said
//! claim openai/gpt-4o g1 7 lease=10s                  drain openai by=root     undrain openai by=root     circuits
//! account acme hourly/alice         shows spent+reserved/limit over <overdraft>, and closed windows, newest first
//! ```
//!
//! Balances read `spent+reserved/limit`. After every line all invariants are checked.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail here")]

#[path = "tables/circuits.rs"]
mod circuits;
#[path = "tables/words.rs"]
mod words;

use std::collections::BTreeMap;

use quorate_ledger::{BudgetRule, Command, Ledger, Outcome, ReservationId, TimestampMs, invariant};
use words::*;

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
            ("estimated", [tenant, account]) => {
                let (budget, subject) = account.split_once('/').expect("budget/subject");
                let view = self.ledger.account(self.now, tenant, budget, subject);
                Some(view.map_or("none".into(), |view| show_estimated(&view)))
            }
            ("window", [kind]) => Some(window(kind, self.now)),
            ("alerts", [after]) => {
                let alerts: Vec<_> = self.ledger.alerts_after(after.parse().unwrap()).collect();
                Some(joined(alerts.iter().map(show_alert)))
            }
            ("audit", [after]) => {
                Some(joined(self.ledger.audit(after.parse().unwrap()).iter().map(show_audit)))
            }
            ("history", []) => Some(joined(self.ledger.policy_history().iter().map(show_version))),
            ("document", [version]) => {
                let found = self.ledger.policy_document(version.parse().unwrap());
                let names = |rules: &[BudgetRule]| joined(rules.iter().map(|rule| rule.name.clone()));
                Some(found.map_or("none".into(), |(text, rules)| format!("{text}: {}", names(&rules))))
            }
            ("circuits", []) => Some(joined(self.ledger.providers().map(|view| circuits::show(&view)))),
            ("keys", []) => Some(show_keys(self.ledger.keys(), self.ledger.keys_revision())),
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
            ("policy", rules) => Command::PutPolicy {
                expected_version: option(rules, "v=").map(|version| version.parse().unwrap()),
                rules: rules_of(rules),
                document: document(rules),
                staged: option(rules, "upload=u").map(|upload| upload.parse().unwrap()),
                by: by(rules),
                comment: option(rules, "why=").unwrap_or_default(),
            },
            ("stage", [upload, part, rest @ ..]) => Command::StagePolicy {
                upload: upload.trim_start_matches('u').parse().unwrap(),
                part: part.parse().unwrap(),
                rules: rules_of(rest),
                document: document(rest),
            },
            ("put-key", [tenant, id, options @ ..]) => {
                Command::PutKey { key: key(tenant, id, options, self.now), by: by(options) }
            }
            ("revoke-key", [id, rest @ ..]) => Command::RevokeKey { id: (*id).into(), by: by(rest) },
            ("ack", [up_to]) => Command::AckAlerts { up_to: up_to.parse().unwrap() },
            ("reserve", rest) => self.reserve(rest),
            ("settle", [tenant, id, actual @ ..]) => {
                let (estimated, actual) = match actual {
                    [actual @ .., "estimated"] => (true, actual),
                    actual => (false, actual),
                };
                let actual = actual.iter().map(|text| tokens(text)).collect();
                Command::Settle { tenant: (*tenant).into(), id: self.id(id), actual, estimated }
            }
            ("extend", [tenant, id, ttl]) => {
                Command::Extend { tenant: (*tenant).into(), id: self.id(id), ttl_ms: span_ms(ttl) }
            }
            ("release", [tenant, id]) => Command::Release { tenant: (*tenant).into(), id: self.id(id) },
            ("expire", [tenant, ids @ ..]) => {
                Command::Expire { tenant: (*tenant).into(), ids: ids.iter().map(|id| self.id(id)).collect() }
            }
            ("adjust", [tenant, id, account, change, rest @ ..]) => {
                let (budget, subject) = account.split_once('/').expect("budget/subject");
                Command::AdjustAccount {
                    tenant: (*tenant).into(),
                    id: self.id(id),
                    budget: budget.into(),
                    subject: subject.into(),
                    adjustment: adjustment(change),
                    by: by(rest),
                }
            }
            ("report", [circuit, reporter, rest @ ..]) => {
                Command::ReportProvider(circuits::report(circuit, reporter, rest))
            }
            ("claim", [circuit, holder, probe, lease]) => circuits::claim(circuit, holder, probe, lease),
            ("drain" | "undrain", [backend, rest @ ..]) => {
                Command::DrainProvider { backend: (*backend).into(), drained: verb == "drain", by: by(rest) }
            }
            _ => panic!("{verb} with {rest:?} is no operation"),
        }
    }

    fn reserve(&mut self, rest: &[&str]) -> Command {
        let [tenant, id, rest @ ..] = rest else { panic!("reserve TENANT ID …") };
        let ttl = rest.iter().find_map(|word| word.strip_prefix("ttl="));
        let wait = rest.contains(&"wait");
        let is_charge = |word: &&&str| !word.starts_with("ttl=") && **word != "wait";
        let charges = rest.iter().filter(is_charge).map(|text| charge(text)).collect();
        let ttl_ms = ttl.map_or(30_000, span_ms);
        Command::Reserve { tenant: (*tenant).into(), id: self.id(id), charges, ttl_ms, wait }
    }
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("; ")
}

/// What has no `/` is an option.
fn rules_of(words: &[&str]) -> Vec<BudgetRule> {
    words.iter().filter(|word| word.contains('/')).map(|text| rule(text)).collect()
}

/// `doc=text`, `doc=70000x`: so many x.
fn document(words: &[&str]) -> String {
    let text = option(words, "doc=").unwrap_or_default();
    match text.strip_suffix('x').and_then(|count| count.parse().ok()) {
        Some(count) => "x".repeat(count),
        None => text,
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
        assert_eq!(got.as_deref().map(str::trim), expected, "{name}:{}: {operation}", index + 1);
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
