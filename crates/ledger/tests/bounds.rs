//! What operators and alerts add is bounded, and every bit of it is in the digest and in a snapshot.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use quorate_ledger::{
    ALERTS_MAX, AUDIT_MAX, Adjustment, Amount, AuditAction, BudgetRule, CIRCUITS_MAX, Charge, Command,
    KeyRecord, Ledger, Outcome, ProviderReport, ProviderSignal, ReservationId, TimestampMs, Unit, Window,
    invariant,
};

const NOW: TimestampMs = TimestampMs(1_790_000_000_000);

fn tokens(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

fn id(number: u64) -> ReservationId {
    let value = (u128::from(NOW.0) << 80) | (7 << 76) | (0b10 << 62) | u128::from(number);
    ReservationId::from_u128(value).unwrap()
}

fn put(document: String, staged: Option<u128>) -> Command {
    let rule = BudgetRule {
        alerts: vec![1],
        carry_over: Some(tokens(10)),
        ..BudgetRule::new("hourly", Unit::Tokens, tokens(100), Window::Hour)
    };
    let (by, comment) = (String::new(), String::new());
    Command::PutPolicy { expected_version: None, rules: vec![rule], document, staged, by, comment }
}

fn reserve(number: u64) -> Command {
    let (amount, at_least) = (tokens(1), tokens(1));
    let charges = vec![Charge { budget: "hourly".into(), subject: format!("s{number}"), amount, at_least }];
    Command::Reserve { tenant: "acme".into(), id: id(number), charges, ttl_ms: 30_000, wait: false }
}

fn settle(number: u64) -> Command {
    Command::Settle { tenant: "acme".into(), id: id(number), actual: vec![tokens(1)], estimated: false }
}

fn adjust(number: u64) -> Command {
    Command::AdjustAccount {
        tenant: "acme".into(),
        id: id(1_000_000 + number),
        budget: "hourly".into(),
        subject: "s1".into(),
        adjustment: Adjustment::TopUp(tokens(1)),
        by: "root".into(),
    }
}

fn key(id: &str) -> KeyRecord {
    KeyRecord {
        id: id.into(),
        hash: [1; 32],
        tenant: "acme".into(),
        user: "alice".into(),
        team: String::new(),
        models: Vec::new(),
        created_at: TimestampMs(0),
        expires_at: None,
        revoked_at: None,
        by: String::new(),
        comment: String::new(),
    }
}

fn report(model: &str, limited: bool) -> Command {
    Command::ReportProvider(ProviderReport {
        backend: "openai".into(),
        model: model.into(),
        reporter: "g1".into(),
        successes: 1,
        signal: limited.then_some(ProviderSignal::Limited { retry_after_ms: 300_000 }),
        ..ProviderReport::default()
    })
}

fn models(ledger: &Ledger) -> Vec<String> {
    ledger.providers().map(|view| view.model).collect()
}

#[test]
fn circuits_that_worked_and_are_idle_make_room_those_in_trouble_stay() {
    let mut ledger = Ledger::default();
    ledger.apply(NOW, &report("limited", true));
    for number in 0..CIRCUITS_MAX {
        let at = NOW.saturating_add(number as u64);
        let outcome = ledger.apply(at, &report(&format!("m{number:05}"), false));
        assert!(matches!(outcome, Outcome::ProviderReported { .. }));
    }
    // Full: the one that was idle for longest went.
    assert_eq!(ledger.providers().count(), CIRCUITS_MAX);
    assert!(
        !models(&ledger).contains(&"m00000".to_owned()) && models(&ledger).contains(&"limited".to_owned())
    );
    // After a while idle ones go before there is need, some at a time.
    ledger.apply(NOW.saturating_add(700_000), &report("new", false));
    assert_eq!(ledger.providers().count(), CIRCUITS_MAX - 63);
    assert!(models(&ledger).contains(&"limited".to_owned()));
    // Its rest was over long ago, and nobody has asked for it.
    for number in 0..CIRCUITS_MAX {
        ledger.apply(NOW.saturating_add(900_000), &report(&format!("n{number:05}"), false));
    }
    assert!(!models(&ledger).contains(&"limited".to_owned()));
    assert_eq!(invariant::check(&ledger), []);
    // All of them in trouble: nothing goes, and what is new is refused.
    let mut ledger = Ledger::default();
    for number in 0..CIRCUITS_MAX {
        ledger.apply(NOW, &report(&format!("m{number:05}"), true));
    }
    assert!(matches!(ledger.apply(NOW, &report("new", true)), Outcome::Refused(_)));
    assert_eq!(ledger.providers().count(), CIRCUITS_MAX);
}

#[test]
fn the_oldest_alerts_are_dropped_and_counted() {
    let mut ledger = Ledger::default();
    ledger.apply(NOW, &put(String::new(), None));
    for number in 0..ALERTS_MAX as u64 + 5 {
        ledger.apply(NOW, &reserve(number));
        ledger.apply(NOW, &settle(number));
    }
    let seqs: Vec<u64> = ledger.alerts_after(0).map(|alert| alert.seq).collect();
    assert_eq!((seqs.len(), seqs[0]), (ALERTS_MAX, 6));
    assert_eq!(ledger.alerts_dropped(), 5);
    ledger.apply(NOW, &Command::AckAlerts { up_to: 10_000 });
    assert_eq!(
        ledger.alerts_after(0).map(|alert| alert.seq).collect::<Vec<_>>(),
        [10_001, 10_002, 10_003, 10_004, 10_005]
    );
    assert_eq!(invariant::check(&ledger), []);
}

#[test]
fn the_audit_log_keeps_the_last_changes() {
    let mut ledger = Ledger::default();
    ledger.apply(NOW, &put(String::new(), None));
    for number in 0..AUDIT_MAX as u64 + 10 {
        assert!(matches!(ledger.apply(NOW, &adjust(number)), Outcome::Adjusted(_)));
    }
    let audit = ledger.audit(0);
    assert_eq!((audit.len(), audit[0].seq, audit[AUDIT_MAX - 1].seq), (AUDIT_MAX, 12, 1_011));
    assert_eq!(invariant::check(&ledger), []);
}

#[test]
fn the_history_keeps_fifty_versions_and_sixteen_mebibytes() {
    let mut ledger = Ledger::default();
    for number in 0..60 {
        ledger.apply(NOW, &put(format!("version {number}"), None));
    }
    let versions: Vec<u64> = ledger.policy_history().iter().map(|version| version.version).collect();
    assert_eq!((versions.len(), versions[0], versions[49]), (50, 60, 11));
    // Four mebibytes each, in parts.
    for upload in 0..6_u128 {
        for part in 0..63 {
            let document = format!("{upload}").repeat(65_536);
            let stage = Command::StagePolicy { upload, part, rules: Vec::new(), document };
            assert_eq!(ledger.apply(NOW, &stage), Outcome::PolicyStaged);
        }
        let document = "z".repeat(65_536);
        let version = 61 + u64::try_from(upload).unwrap();
        let outcome = ledger.apply(NOW, &put(document, Some(upload)));
        assert_eq!(outcome, Outcome::PolicyPut { version, changed: true });
    }
    let versions: Vec<u64> = ledger.policy_history().iter().map(|version| version.version).collect();
    assert_eq!(versions, [66, 65, 64, 63]);
    assert_eq!(ledger.policy_document(66).unwrap().0.len(), 4 << 20);
    assert_eq!(ledger.policy_document(62), None);
    // One byte more than a whole policy may have.
    for part in 0..64 {
        let stage = Command::StagePolicy { upload: 9, part, rules: Vec::new(), document: "y".repeat(65_536) };
        assert_eq!(ledger.apply(NOW, &stage), Outcome::PolicyStaged);
    }
    assert!(matches!(ledger.apply(NOW, &put("!".into(), Some(9))), Outcome::Refused(_)));
    assert_eq!(ledger.policy_version(), 66);
}

#[test]
fn a_snapshot_has_all_of_it_and_the_digest_sees_every_change() {
    let mut ledger = Ledger::default();
    let stage = |part| Command::StagePolicy { upload: 7, part, rules: Vec::new(), document: "x".into() };
    let commands = [
        put("one".into(), None),
        stage(0),
        stage(1),
        put("two".into(), Some(7)),
        stage(0),
        Command::PutKey { key: key("k1"), by: "root".into() },
        Command::RevokeKey { id: "k1".into(), by: "root".into() },
        reserve(1),
        settle(1),
        adjust(1),
        Command::AckAlerts { up_to: 1 },
        report("gpt-4o", false),
        report("gpt-4o", true),
        Command::DrainProvider { backend: "openai".into(), drained: true, by: "root".into() },
        Command::RecordChange {
            action: AuditAction::AddNode,
            subject: "node 4".into(),
            detail: "10.0.0.4:7701".into(),
            by: "root".into(),
        },
    ];
    for command in commands {
        let before = ledger.digest();
        let outcome = ledger.apply(NOW, &command);
        assert!(!matches!(outcome, Outcome::Refused(_) | Outcome::Denied(_)), "{outcome:?}");
        assert_ne!(ledger.digest(), before, "{command:?}");
        let text = serde_json::to_string(&ledger).unwrap();
        let back: Ledger = serde_json::from_str(&text).unwrap();
        assert_eq!(back, ledger);
        assert_eq!(back.digest(), ledger.digest());
    }
    assert_eq!((ledger.keys().count(), ledger.keys_revision()), (1, 2));
    assert_eq!(ledger.audit(0).len(), 7);
}
