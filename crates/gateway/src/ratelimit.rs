//! The `x-ratelimit-*` headers, in Envoy's format, and the words of a denial.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use quorate_ledger::{Balance, Denial, TimestampMs, Window};

/// Waiting longer than this is not what an SDK should do on its own.
const RETRY_WORTH_MS: u64 = 60_000;

/// Whether `x-should-retry: false` belongs on the answer.
pub(crate) fn waiting_is_pointless(denial: &Denial) -> bool {
    denial.retry_after_ms.is_none_or(|ms| ms > RETRY_WORTH_MS)
}

/// Sets `x-ratelimit-limit`, `-remaining` and `-reset` for the account with the least left; every account is listed
/// after the limit (`250, 250;w=3600;name="user-hourly"`). Nothing without accounts.
pub(crate) fn insert(headers: &mut HeaderMap, balances: &[Balance], window: impl Fn(&str) -> Option<Window>) {
    let Some(tightest) = balances.iter().min_by_key(|balance| left(balance)) else { return };
    let mut limit = units(tightest.limit.micros()).to_string();
    for balance in balances {
        limit.push_str(&format!(", {}", units(balance.limit.micros())));
        if let Some(seconds) = window(&balance.budget).and_then(seconds) {
            limit.push_str(&format!(";w={seconds}"));
        }
        limit.push_str(&format!(";name=\"{}\"", quoted(&balance.budget)));
    }
    if let Ok(value) = HeaderValue::from_str(&limit) {
        headers.insert("x-ratelimit-limit", value);
    }
    headers.insert("x-ratelimit-remaining", HeaderValue::from(units(left(tightest))));
    if let Some(resets_at) = tightest.resets_at {
        headers.insert("x-ratelimit-reset", HeaderValue::from(resets_at.since(now()).div_ceil(1000)));
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
        " is exceeded: this request needs up to {} tokens, {} of {} are left",
        denial.asked, denial.available, account.limit
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

fn left(balance: &Balance) -> u64 {
    balance.limit.saturating_sub(balance.spent).saturating_sub(balance.reserved).micros()
}

fn units(micros: u64) -> u64 {
    micros / 1_000_000
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

fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use quorate_ledger::{Amount, Unit};

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
