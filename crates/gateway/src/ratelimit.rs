//! The `x-ratelimit-*` headers, in Envoy's format, and the words of a denial.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use quorate_ledger::{Amount, Balance, Denial, TimestampMs, Unit, Window};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Waiting longer than this is not what an SDK should do on its own.
const RETRY_WORTH_MS: u64 = 60_000;

/// Whether `x-should-retry: false` belongs on the answer.
pub(crate) fn waiting_is_pointless(denial: &Denial) -> bool {
    denial.retry_after_ms.is_none_or(|ms| ms > RETRY_WORTH_MS)
}

/// Sets `x-ratelimit-limit`, `-remaining` and `-reset` for the account with the least left (the smallest share, where not
/// all count the same); every account is listed after the limit (`250, 250;w=3600;name="user-hourly"`). Nothing without
/// accounts.
pub(crate) fn insert(headers: &mut HeaderMap, balances: &[Balance], window: impl Fn(&str) -> Option<Window>) {
    let Some(tightest) = tightest(balances) else { return };
    let mut limit = number(tightest.unit, tightest.limit);
    for balance in balances {
        // Writing into a String cannot fail.
        let _ = write!(limit, ", {}", number(balance.unit, balance.limit));
        if let Some(seconds) = window(&balance.budget).and_then(seconds) {
            let _ = write!(limit, ";w={seconds}");
        }
        let _ = write!(limit, ";name=\"{}\"", quoted(&balance.budget));
        if balance.unit != Unit::Tokens {
            limit.push_str(&format!(";unit=\"{}\"", balance.unit.name()));
        }
    }
    if let Ok(value) = HeaderValue::from_str(&limit) {
        headers.insert(LIMIT, value);
    }
    if let Ok(value) = HeaderValue::from_str(&number(tightest.unit, left(tightest))) {
        headers.insert(REMAINING, value);
    }
    if let Some(resets_at) = tightest.resets_at {
        headers.insert(RESET, HeaderValue::from(resets_at.since(now()).div_ceil(1000)));
    }
}

/// Which budget, whose, how much was asked, how much is left, and when it resets.
pub(crate) fn denial_message(tenant: &str, denial: &Denial) -> String {
    let account = &denial.account;
    let mut message = format!("budget {} of tenant {tenant}", account.budget);
    if !account.subject.is_empty() {
        message.push_str(&format!(" for {}", account.subject));
    }
    message.push_str(&format!(
        " is exceeded: this request needs up to {}, {} of {} {} left",
        amount(account.unit, denial.asked),
        bare_amount(account.unit, denial.available),
        bare_amount(account.unit, account.limit),
        if account.unit == Unit::Dollars { "is" } else { "are" },
    ));
    match (denial.held_by_reservations, denial.retry_after_ms) {
        (true, Some(_)) => {
            message.push_str(" while other requests hold the rest; they give back what they do not use")
        }
        (_, None) if denial.asked > account.limit => {
            message.push_str("; it asks for more than the whole budget, ask for fewer tokens");
        }
        (_, None) => message.push_str("; this budget does not reset by itself"),
        (false, Some(_)) => {}
    }
    if let Some(resets_at) = account.resets_at {
        message.push_str(&format!("; it resets in {} s", resets_at.since(now()).div_ceil(1000)));
    }
    message
}

/// A tier that lets nothing through.
pub(crate) fn tier_message(tenant: &str, account: &Balance) -> String {
    let mut message = format!("budget {} of tenant {tenant}", account.budget);
    if !account.subject.is_empty() {
        message.push_str(&format!(" for {}", account.subject));
    }
    let left = left(account);
    message.push_str(&format!(
        " admits no more requests at this share: {} of {} left",
        bare_amount(account.unit, left),
        bare_amount(account.unit, account.limit)
    ));
    if let Some(resets_at) = account.resets_at {
        message.push_str(&format!("; it resets in {} s", resets_at.since(now()).div_ceil(1000)));
    }
    message
}

/// `$12.34`, `12.5 cost units`, `12 tokens`
fn amount(unit: Unit, amount: Amount) -> String {
    let bare = bare_amount(unit, amount);
    match unit {
        Unit::Tokens => format!("{bare} tokens"),
        Unit::Cost => format!("{bare} cost units"),
        Unit::Dollars => bare,
    }
}

/// The same where the unit has been said.
fn bare_amount(unit: Unit, amount: Amount) -> String {
    match unit {
        Unit::Tokens | Unit::Cost => amount.to_string(),
        Unit::Dollars => dollars(amount),
    }
}

/// Cents at least; more digits where there are any, so that small amounts do not read as nothing.
fn dollars(amount: Amount) -> String {
    let text = amount.to_string();
    let (whole, cents) = text.split_once('.').unwrap_or((&text, ""));
    format!("${whole}.{cents:0<2}")
}

/// Whole tokens and cost units; dollars with their fraction.
fn number(unit: Unit, amount: Amount) -> String {
    match unit {
        Unit::Tokens | Unit::Cost => amount.units_floor().to_string(),
        Unit::Dollars => amount.to_string(),
    }
}

/// The least left; by share where the accounts count different things.
fn tightest(balances: &[Balance]) -> Option<&Balance> {
    let first = balances.first()?;
    if balances.iter().all(|balance| balance.unit == first.unit) {
        return balances.iter().min_by_key(|balance| left(balance));
    }
    // left / limit, compared without dividing.
    let share =
        |of: &Balance, other: &Balance| u128::from(left(of).micros()) * u128::from(other.limit.micros());
    balances.iter().min_by(|a, b| share(a, b).cmp(&share(b, a)))
}

fn left(balance: &Balance) -> Amount {
    balance.limit.saturating_sub(balance.spent).saturating_sub(balance.reserved)
}

/// Nominal seconds: a month is 30 days, a year 365.
fn seconds(window: Window) -> Option<u64> {
    match window {
        Window::Second => Some(1),
        Window::Minute => Some(60),
        Window::Hour => Some(3_600),
        Window::Day => Some(86_400),
        Window::Week => Some(604_800),
        Window::Month => Some(2_592_000),
        Window::Year => Some(31_536_000),
        Window::Sliding { ms } => Some(ms.div_ceil(1_000)),
        Window::Lifetime => None,
    }
}

/// A quoted string may hold printable ASCII only (RFC 9651).
fn quoted(name: &str) -> String {
    name.chars().map(|c| if c == '"' || c == '\\' || !(' '..='~').contains(&c) { '_' } else { c }).collect()
}

pub(crate) fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balance(budget: &str, limit: u64, spent: u64, reserved: u64, resets_in_ms: Option<u64>) -> Balance {
        let amount = |units| Amount::from_units(units).unwrap();
        Balance {
            budget: budget.to_owned(),
            subject: "alice".to_owned(),
            unit: Unit::Tokens,
            limit: amount(limit),
            spent: amount(spent),
            reserved: amount(reserved),
            resets_at: resets_in_ms.map(|ms| now().saturating_add(ms)),
            amount: amount(1),
        }
    }

    #[test]
    fn envoys_format_for_the_tightest() {
        let mut headers = HeaderMap::new();
        let balances = [balance("day", 1000, 0, 0, None), balance("user\"hour", 250, 100, 100, Some(1500))];
        insert(&mut headers, &balances, |name| (name != "day").then_some(Window::Hour));
        assert_eq!(headers["x-ratelimit-limit"], "250, 1000;name=\"day\", 250;w=3600;name=\"user_hour\"");
        assert_eq!(headers["x-ratelimit-remaining"], "50");
        assert_eq!(headers["x-ratelimit-reset"], "2");
    }

    #[test]
    fn the_tightest_of_different_units_is_the_smallest_share() {
        let mut dollars = balance("day", 100, 87, 0, None);
        dollars.unit = Unit::Dollars;
        dollars.spent = Amount::from_micros(87_660_000).unwrap();
        let mut headers = HeaderMap::new();
        insert(&mut headers, &[balance("tokens", 30, 15, 0, None), dollars], |_| None);
        assert_eq!(
            headers["x-ratelimit-limit"],
            "100, 30;name=\"tokens\", 100;name=\"day\";unit=\"dollars\""
        );
        assert_eq!(headers["x-ratelimit-remaining"], "12.34");
    }

    #[test]
    fn amounts_in_their_units() {
        let micros = |micros| Amount::from_micros(micros).unwrap();
        for (unit, micros, expected) in [
            (Unit::Dollars, micros(12_340_000), "$12.34"),
            (Unit::Dollars, micros(100_000_000), "$100.00"),
            (Unit::Dollars, micros(1_500), "$0.0015"),
            (Unit::Cost, micros(2_500_000), "2.5 cost units"),
            (Unit::Tokens, micros(7_000_000), "7 tokens"),
        ] {
            assert_eq!(amount(unit, micros), expected);
        }
    }

    #[test]
    fn a_denial_says_all_there_is_to_know() {
        let mut denial = Denial {
            account: balance("user-hourly", 250, 200, 0, Some(90_000)),
            asked: Amount::from_units(100).unwrap(),
            available: Amount::from_units(50).unwrap(),
            retry_after_ms: Some(90_000),
            held_by_reservations: false,
        };
        assert_eq!(
            denial_message("acme", &denial),
            "budget user-hourly of tenant acme for alice is exceeded: this request needs up to 100 tokens, 50 of 250 \
             are left; it resets in 90 s"
        );
        assert!(waiting_is_pointless(&denial));
        denial.retry_after_ms = Some(60_000);
        assert!(!waiting_is_pointless(&denial));
        denial.retry_after_ms = None;
        denial.asked = Amount::from_units(300).unwrap();
        assert!(denial_message("acme", &denial).contains("more than the whole budget"));
        assert!(waiting_is_pointless(&denial));
    }
}
