//! The words of the tables: read into the ledger's types, and outcomes written back.

use quorate_ledger::{
    AccountView, Adjustment, Amount, Balance, BudgetRule, Charge, Denial, Outcome, ProviderState,
    TimestampMs, Unit, Window, WindowSpan,
};

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
    *WINDOWS.iter().find(|window| window.name() == text).expect("a window")
}

pub fn window(text: &str, now: TimestampMs) -> String {
    show_span(kind(text).span_at(now))
}

fn show_span(span: WindowSpan) -> String {
    let end = span.end.map_or_else(|| "never".into(), show_time);
    format!("{} {end}", show_time(span.start))
}

/// `hourly=250/Hour@acme`
pub fn rule(text: &str) -> BudgetRule {
    let (name, rest) = text.split_once('=').expect("name=limit/Window");
    let (limit, rest) = rest.split_once('/').expect("limit/Window");
    let (window, tenant) =
        rest.split_once('@').map_or((rest, None), |(window, tenant)| (window, Some(tenant)));
    let mut rule = BudgetRule::new(name, Unit::Tokens, tokens(limit), kind(window));
    rule.tenant = tenant.map(Into::into);
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

pub fn state(text: &str) -> ProviderState {
    match text {
        "healthy" => ProviderState::Healthy,
        "limited" => ProviderState::Limited,
        "failing" => ProviderState::Failing,
        _ => panic!("{text} is no state"),
    }
}

fn show_balance(balance: &Balance) -> String {
    let Balance { budget, subject, limit, spent, reserved, .. } = balance;
    format!("[{budget}/{subject} {spent}+{reserved}/{limit}]")
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
        Outcome::KeyPut { key } => format!("key {}", key.id),
        Outcome::KeyRevoked { key } => format!("revoked {}", key.id),
        Outcome::AlertsAcked => "acked".into(),
        Outcome::Adjusted(balance) => format!("adjusted {}", show_balance(balance)),
        Outcome::ProviderReported { changed } => if *changed { "reported" } else { "unchanged" }.into(),
        Outcome::Refused(refusal) => format!("refused {refusal}"),
    }
}

pub fn show_account(view: &AccountView) -> String {
    let mut text = format!("{}+{}/{} over {}", view.spent, view.reserved, view.limit, view.overdraft);
    for closed in &view.closed_windows {
        text += &format!(
            "; closed {}+{}/{} over {}",
            closed.spent, closed.reserved, closed.limit, closed.overdraft
        );
    }
    text
}
