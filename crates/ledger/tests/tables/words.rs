//! The words of the tables: read into the ledger's types, and outcomes written back.

use quorate_ledger::{
    AccountView, Adjustment, Alert, Amount, AuditRecord, Balance, BudgetRule, Charge, Denial, Enforcement,
    KeyRecord, Outcome, PolicyVersion, TimestampMs, Unit, Window, WindowSpan, ZoneOffset,
};

use crate::circuits;

const WINDOWS: [Window; 8] = [
    Window::Second,
    Window::Minute,
    Window::Hour,
    Window::Day,
    Window::Week,
    Window::Month,
    Window::Year,
    Window::Lifetime,
];

pub fn tokens(text: &str) -> Amount {
    if text == "max" { Amount::MAX } else { Amount::from_units(text.parse().unwrap()).unwrap() }
}

/// `90s`, `2m`, `3h`, `1d`, `5ms`
pub fn span_ms(text: &str) -> u64 {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let (number, unit) =
        units.iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, ms))).expect("a unit");
    number.parse::<u64>().expect("a number") * unit
}

pub fn instant(now: TimestampMs, text: &str) -> TimestampMs {
    if let Some(span) = text.strip_prefix('+') {
        return TimestampMs(now.0 + span_ms(span));
    }
    if let Some(span) = text.strip_prefix('-') {
        return TimestampMs(now.0 - span_ms(span));
    }
    let fields: Vec<u64> = text.split(['-', 'T', ':']).map(|field| field.parse().unwrap()).collect();
    let [year, month, day, hour, minute, second] = fields[..] else { panic!("{text}: 2026-01-31T23:59:50") };
    // Day by day, year by year: slow, and not the ledger's way.
    let days: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum::<u64>()
        + (1..month).map(|month| month_days(year, month)).sum::<u64>();
    TimestampMs((((days + day - 1) * 24 + hour) * 60 + minute) * 60_000 + second * 1_000)
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

pub fn show_time(at: TimestampMs) -> String {
    let (mut days, of_day) = (at.0 / 86_400_000, at.0 / 1_000 % 86_400);
    let (mut year, mut month) = (1970, 1);
    while days >= if leap(year) { 366 } else { 365 } {
        days -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    while days >= month_days(year, month) {
        days -= month_days(year, month);
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}", days + 1)
}

fn kind(text: &str) -> Window {
    if let Some(ms) = text.strip_prefix("Sliding:") {
        return Window::Sliding { ms: span_ms(ms) };
    }
    *WINDOWS.iter().find(|window| window.name() == text).expect("a window")
}

/// `Day`, `Day;zone=berlin`
pub fn window(text: &str, now: TimestampMs) -> String {
    show_span(rule(&format!("any=0/{text}")).span_at(now))
}

/// (from, offset in hours and minutes): what a caller takes out of the time zone database.
fn zone(name: &str) -> Vec<ZoneOffset> {
    let changes: &[(&str, i32)] = match name {
        "berlin" => &[
            ("2025-10-26T01:00:00", 60),
            ("2026-03-29T01:00:00", 120),
            ("2026-10-25T01:00:00", 60),
            ("2027-03-28T01:00:00", 120),
        ],
        "kolkata" => &[("1970-01-01T00:00:00", 330)],
        // The clock is changed by half an hour.
        "lord-howe" => &[("2025-10-04T15:30:00", 660), ("2026-04-04T15:00:00", 630)],
        // The clock is set back, and forth, at midnight.
        "santiago" => {
            &[("2025-09-07T04:00:00", -180), ("2026-04-05T03:00:00", -240), ("2026-09-06T04:00:00", -180)]
        }
        // The clock is set back a minute after midnight.
        "st-johns" => &[("2010-03-14T03:31:00", -150), ("2010-11-07T02:31:00", -210)],
        // A whole day was left out.
        "apia" => &[("2011-09-24T14:00:00", -600), ("2011-12-30T10:00:00", 840)],
        _ => panic!("{name} is no zone"),
    };
    let entry = |(from, minutes): &(&str, i32)| ZoneOffset {
        from: instant(TimestampMs(0), from),
        seconds: minutes * 60,
    };
    changes.iter().map(entry).collect()
}

fn show_span(span: WindowSpan) -> String {
    let end = span.end.map_or_else(|| "never".into(), show_time);
    format!("{} {end}", show_time(span.start))
}

/// `hourly=250/Hour@acme;count;carry=50;alerts=50,80;max=2;unit=dollars;zone=berlin`
pub fn rule(text: &str) -> BudgetRule {
    let (text, options) = text.split_once(';').unwrap_or((text, ""));
    let (name, rest) = text.split_once('=').expect("name=limit/Window");
    let (limit, rest) = rest.split_once('/').expect("limit/Window");
    let (window, tenant) =
        rest.split_once('@').map_or((rest, None), |(window, tenant)| (window, Some(tenant)));
    let mut rule = BudgetRule::new(name, Unit::Tokens, tokens(limit), kind(window));
    rule.tenant = tenant.map(Into::into);
    for option in options.split(';').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("count", "") => rule.enforcement = Enforcement::Count,
            ("shadow", "") => rule.enforcement = Enforcement::Shadow,
            ("lease", "") => rule.enforcement = Enforcement::Lease,
            ("carry", cap) => rule.carry_over = Some(tokens(cap)),
            ("alerts", shares) => {
                rule.alerts = shares.split(',').map(|share| share.parse().unwrap()).collect();
            }
            ("max", max) => rule.accounts_max = max.parse().unwrap(),
            ("unit", "dollars") => rule.unit = Unit::Dollars,
            ("unit", "cost") => rule.unit = Unit::Cost,
            ("zone", name) => rule.zone = zone(name),
            ("offset", seconds) => {
                rule.zone = vec![ZoneOffset { from: TimestampMs(0), seconds: seconds.parse().unwrap() }];
            }
            _ => panic!("{option} is no option"),
        }
    }
    rule
}

/// `hourly/alice=20..100`
pub fn charge(text: &str) -> Charge {
    let (account, amounts) = text.split_once('=').expect("budget/subject=amount");
    let (budget, subject) = account.split_once('/').expect("budget/subject");
    let (at_least, amount) = amounts.split_once("..").unwrap_or((amounts, amounts));
    Charge {
        budget: budget.into(),
        subject: subject.into(),
        amount: tokens(amount),
        at_least: tokens(at_least),
    }
}

pub fn adjustment(text: &str) -> Adjustment {
    match text.split_once('=').unwrap_or((text, "")) {
        ("topup", amount) => Adjustment::TopUp(tokens(amount)),
        ("override", limit) => Adjustment::OverrideLimit(tokens(limit)),
        ("reset", "") => Adjustment::Reset,
        ("clear", "") => Adjustment::ClearOverride,
        _ => panic!("{text} is no adjustment"),
    }
}

fn show_balance(balance: &Balance) -> String {
    let Balance { budget, subject, limit, spent, reserved, unit, .. } = balance;
    let unit = if *unit == Unit::Tokens { String::new() } else { format!(" {}", unit.name()) };
    format!("[{budget}/{subject} {spent}+{reserved}/{limit}{unit}]")
}

fn show_balances(balances: &[Balance]) -> String {
    let shown = |balance: &Balance| format!("{} {}", balance.amount, show_balance(balance));
    balances.iter().map(shown).collect::<Vec<_>>().join(" ")
}

pub fn show_denial(denial: &Denial) -> String {
    let retry = denial.retry_after_ms.map_or("never".into(), |ms| format!("{ms}ms"));
    let held = if denial.held_by_reservations { " held" } else { "" };
    let (asked, available) = (denial.asked, denial.available);
    format!("denied {asked} of {available} {} retry {retry}{held}", show_balance(&denial.account))
}

pub fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::PolicyPut { version, changed } => {
            format!("policy {version}{}", if *changed { "" } else { " unchanged" })
        }
        Outcome::Granted(grant) => {
            format!("granted until {} {}", show_time(grant.deadline), show_balances(&grant.balances))
        }
        Outcome::Denied(denial) => show_denial(denial),
        Outcome::Extended { deadline } => format!("extended until {}", show_time(*deadline)),
        Outcome::Settled(settlement) => {
            let over: Vec<String> = settlement.overdraft.iter().map(ToString::to_string).collect();
            format!("settled {} over {}", show_balances(&settlement.balances), over.join(" "))
        }
        Outcome::Released => "released".into(),
        Outcome::Expired { ids } => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            format!("expired {}", ids.join(" ")).trim_end().into()
        }
        Outcome::PolicyStaged => "staged".into(),
        Outcome::KeyPut { key } => show_key(key),
        Outcome::KeyRevoked { key } => show_key(key),
        Outcome::AlertsAcked => "acked".into(),
        Outcome::Adjusted(balance) => format!("adjusted {}", show_balance(balance)),
        Outcome::ProviderReported { revision } => format!("reported {revision}"),
        Outcome::ProbeGranted { until, .. } => format!("probe until {}", circuits::show_ms(*until)),
        Outcome::ProbeRefused(refusal) => format!("no probe: {}", circuits::show_refusal(refusal)),
        Outcome::ProviderDrained { changed, known } => {
            let what = if *changed { "drain changed" } else { "unchanged" };
            format!("{what}{}", if *known { "" } else { ", never heard of" })
        }
        Outcome::Refused(refusal) => format!("refused {refusal}"),
        Outcome::ChangeRecorded => "recorded".into(),
    }
}

pub fn show_account(view: &AccountView) -> String {
    let mut text = format!("{}+{}/{} over {}", view.spent, view.reserved, view.limit, view.overdraft);
    if !view.carried.is_zero() {
        text += &format!(" carried {}", view.carried);
    }
    text += &shadow(view.shadow_denied);
    for closed in &view.closed_windows {
        text += &format!(
            "; closed {}+{}/{} over {}",
            closed.spent, closed.reserved, closed.limit, closed.overdraft
        );
        text += &shadow(closed.shadow_denied);
    }
    text
}

/// Of the present window, and of those that are closed.
pub fn show_estimated(view: &AccountView) -> String {
    let mut text = format!("{} of {}", view.estimated, view.spent);
    for closed in &view.closed_windows {
        text += &format!("; closed {} of {}", closed.estimated, closed.spent);
    }
    text
}

fn shadow(denied: u64) -> String {
    if denied == 0 { String::new() } else { format!(" shadow {denied}") }
}

/// `1: acme hourly/alice 50% 60/100 of 2026-11-24T14:00:00 2026-11-24T15:00:00`
pub fn show_alert(alert: &Alert) -> String {
    let Alert { seq, tenant, budget, subject, share, spent, limit, window, .. } = alert;
    format!("{seq}: {tenant} {budget}/{subject} {share}% {spent}/{limit} of {}", show_span(*window))
}

pub fn show_audit(record: &AuditRecord) -> String {
    let AuditRecord { seq, by, action, subject_of_change, detail, .. } = record;
    format!("{seq}: {by:?} {action}: {subject_of_change}: {detail}")
}

pub fn show_version(version: &PolicyVersion) -> String {
    let PolicyVersion { version, at, by, comment, bytes, budgets } = version;
    format!("{version} at {} by {by:?} {comment:?} {bytes} bytes {budgets} budgets", show_time(*at))
}

fn show_key(key: &KeyRecord) -> String {
    let KeyRecord { id, tenant, user, created_at, expires_at, revoked_at, by, .. } = key;
    let end = |what: &str, at: &Option<TimestampMs>| {
        at.map_or_else(String::new, |at| format!(" {what} {}", show_time(at)))
    };
    let (expires, revoked) = (end("expires", expires_at), end("revoked", revoked_at));
    format!("key {id} of {tenant} {user} made {} by {by:?}{expires}{revoked}", show_time(*created_at))
}

pub fn show_keys<'a>(keys: impl Iterator<Item = &'a KeyRecord>, revision: u64) -> String {
    let shown: Vec<String> = keys.map(show_key).chain([format!("revision {revision}")]).collect();
    shown.join("; ")
}

/// `k1 alice expires=30d model=gpt-4o by=root`
pub fn key(tenant: &str, id: &str, options: &[&str], now: TimestampMs) -> KeyRecord {
    let mut key = KeyRecord {
        id: id.into(),
        hash: [7; 32],
        tenant: tenant.into(),
        user: String::new(),
        team: String::new(),
        models: Vec::new(),
        created_at: TimestampMs(0),
        expires_at: None,
        revoked_at: None,
        by: String::new(),
        comment: String::new(),
    };
    for option in options {
        match option.split_once('=').unwrap_or((option, "")) {
            (user, "") => key.user = user.into(),
            ("expires", when) => key.expires_at = Some(instant(now, when)),
            ("model", model) => key.models.push(model.into()),
            ("by", _) => {}
            _ => panic!("{option} is no option of a key"),
        }
    }
    key
}

/// `by=alice`: who.
pub fn by(words: &[&str]) -> String {
    option(words, "by=").unwrap_or_default()
}

pub fn option(words: &[&str], name: &str) -> Option<String> {
    words.iter().find_map(|word| word.strip_prefix(name)).map(Into::into)
}
