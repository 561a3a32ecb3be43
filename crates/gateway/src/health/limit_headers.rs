//! How long a backend asks to be left alone: `retry-after` in its forms, and the providers' own rate limit headers. Pure:
//! headers and the time go in, milliseconds come out. What cannot be read says nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use jiff::Timestamp;

/// No backend is left alone for longer on its own word.
const REST_MAX_MS: u64 = 86_400_000;
/// After a success that used up what there was.
const REST_AFTER_SUCCESS_MAX_MS: u64 = 60_000;

/// What OpenAI and those who do as it does count: how much is left, and in what time all of it is there again.
const OPENAI: [(&str, &str); 2] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
];
/// Anthropic: the same with moments.
const ANTHROPIC: [(&str, &str); 4] = [
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
];

/// What the answer says about when to come back: `retry-after-ms`, else `retry-after`.
pub(crate) fn retry_after_ms(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let ms = number(headers, "retry-after-ms")
        .or_else(|| number(headers, "retry-after").map(|seconds| seconds * 1_000.0))
        .or_else(|| until_date(headers, now));
    ms.map(|ms| bounded(ms, REST_MAX_MS)).filter(|ms| *ms > 0)
}

/// Of a 429: the same, else when that is there again of which nothing is left; where nothing says what is left, the
/// first that is there again. 0: not said.
pub(crate) fn rest_of_limited(headers: &HeaderMap, now: SystemTime) -> u64 {
    let by_limits = || {
        let limits = limits(headers, now);
        let used_up = limits.iter().filter(|(left, _)| *left == Some(0)).map(|(_, ms)| *ms).max();
        used_up.or_else(|| limits.iter().map(|(_, ms)| *ms).min()).unwrap_or(0)
    };
    retry_after_ms(headers, now).unwrap_or_else(by_limits).min(REST_MAX_MS)
}

/// Of a success that says that nothing is left, and until when. `None`: there is something left.
pub(crate) fn rest_of_success(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let used_up = limits(headers, now).into_iter().filter(|(left, _)| *left == Some(0));
    used_up.map(|(_, ms)| ms.min(REST_AFTER_SUCCESS_MAX_MS)).max()
}

/// What is left of each limit, and the milliseconds until it is there again, if these are above 0.
fn limits(headers: &HeaderMap, now: SystemTime) -> Vec<(Option<u64>, u64)> {
    // Most answers say nothing of the kind, and a look at their few names is quicker than twelve for ours.
    if !headers.keys().any(|name| name.as_str().contains("-ratelimit-")) {
        return Vec::new();
    }
    let left = |name: &str| text(headers, name)?.parse::<u64>().ok();
    let openai = OPENAI
        .iter()
        .filter_map(|(remaining, reset)| Some((left(remaining), go_duration_ms(text(headers, reset)?)?)));
    let anthropic = ANTHROPIC.iter().filter_map(|(remaining, reset)| {
        let at: Timestamp = text(headers, reset)?.parse().ok()?;
        let ms = i128::from(at.as_millisecond()) - i128::try_from(unix_ms(now)).ok()?;
        Some((left(remaining), u64::try_from(ms).ok()?))
    });
    openai.chain(anthropic).filter(|(_, ms)| *ms > 0).collect()
}

/// `6m0s`, `1h2m3.5s`, `20ms`; a bare number is seconds, as Azure has it.
fn go_duration_ms(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Some(bounded(seconds * 1_000.0, REST_MAX_MS));
    }
    let (mut rest, mut ms) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|one: char| !one.is_ascii_digit() && one != '.')?;
        let (number, unit_and_more) = rest.split_at(digits);
        let letters = unit_and_more.find(|one: char| one.is_ascii_digit()).unwrap_or(unit_and_more.len());
        let (unit, more) = unit_and_more.split_at(letters);
        let unit_ms = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1_000.0,
            "ms" => 1.0,
            "us" | "µs" | "μs" => 0.001,
            "ns" => 0.000_001,
            _ => return None,
        };
        ms += number.parse::<f64>().ok()? * unit_ms;
        rest = more;
    }
    (!text.is_empty()).then(|| bounded(ms, REST_MAX_MS))
}

/// `retry-after` as a date, from the answer's own `date` if it has one: the clocks need not agree.
fn until_date(headers: &HeaderMap, now: SystemTime) -> Option<f64> {
    let date = |name: &str| httpdate::parse_http_date(text(headers, name)?).ok();
    let until = date("retry-after")?;
    let wait = until.duration_since(date("date").unwrap_or(now)).unwrap_or(Duration::ZERO);
    Some(wait.as_secs_f64() * 1_000.0)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn number(headers: &HeaderMap, name: &str) -> Option<f64> {
    text(headers, name)?.parse().ok()
}

/// Rounded up: never too early. What is no number is 0.
fn bounded(ms: f64, max: u64) -> u64 {
    // A float as an integer saturates, and NaN becomes 0.
    (ms.ceil() as u64).min(max)
}

fn unix_ms(now: SystemTime) -> u128 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Wed, 21 Oct 2026 07:28:00 GMT
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_792_567_680)
    }

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        for (headers, ms) in [
            (&[("retry-after", "2")][..], Some(2_000)),
            (&[("retry-after", " 0.5 ")], Some(500)),
            (&[("retry-after-ms", "250"), ("retry-after", "9")], Some(250)),
            (&[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT")], Some(30_000)),
            (&[("retry-after", "Wednesday, 21-Oct-26 07:28:30 GMT")], Some(30_000)),
            (&[("retry-after", "Wed Oct 21 07:28:30 2026")], Some(30_000)),
            // By the backend's own clock, a minute off.
            (
                &[
                    ("date", "Wed, 21 Oct 2026 07:29:00 GMT"),
                    ("retry-after", "Wed, 21 Oct 2026 07:29:05 GMT"),
                ],
                Some(5_000),
            ),
            (&[("retry-after", "Wed, 21 Oct 2026 07:27:00 GMT")], None),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "0")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "1e300")], Some(86_400_000)),
            (&[], None),
        ] {
            assert_eq!(retry_after_ms(&map(headers), now()), ms, "{headers:?}");
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (text, ms) in [
            ("6m0s", Some(360_000)),
            ("20ms", Some(20)),
            ("1h2m3.5s", Some(3_723_500)),
            ("8.64s", Some(8_640)),
            ("500µs", Some(1)),
            ("7", Some(7_000)),
            ("", None),
            ("5x", None),
            ("m5", None),
            ("1.2.3s", None),
            ("99999999999h", Some(86_400_000)),
        ] {
            assert_eq!(go_duration_ms(text), ms, "{text}");
        }
    }

    #[test]
    fn what_is_used_up_decides() {
        let openai = |requests: &str, tokens: &str| {
            map(&[
                ("x-ratelimit-remaining-requests", requests),
                ("x-ratelimit-reset-requests", "12s"),
                ("x-ratelimit-remaining-tokens", tokens),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ])
        };
        assert_eq!(rest_of_limited(&openai("0", "5"), now()), 12_000);
        assert_eq!(rest_of_limited(&openai("0", "0"), now()), 360_000);
        assert_eq!(rest_of_limited(&openai("3", "5"), now()), 12_000, "the first that is there again");
        assert_eq!(rest_of_success(&openai("3", "5"), now()), None);
        assert_eq!(rest_of_success(&openai("0", "5"), now()), Some(12_000));
        assert_eq!(rest_of_success(&openai("0", "0"), now()), Some(60_000), "at most a minute");
        assert_eq!(rest_of_limited(&map(&[]), now()), 0);
        let said = map(&[("retry-after", "2"), ("x-ratelimit-reset-requests", "12s")]);
        assert_eq!(rest_of_limited(&said, now()), 2_000);
    }

    #[test]
    fn anthropics_moments() {
        let headers = map(&[
            ("anthropic-ratelimit-requests-remaining", "9"),
            ("anthropic-ratelimit-requests-reset", "2026-10-21T07:28:01Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-10-21T09:28:20.5+02:00"),
        ]);
        assert_eq!(rest_of_limited(&headers, now()), 20_500);
        assert_eq!(rest_of_success(&headers, now()), Some(20_500));
        let past = map(&[
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "2026-10-21T07:00:00Z"),
        ]);
        assert_eq!((rest_of_limited(&past, now()), rest_of_success(&past, now())), (0, None));
    }

    proptest! {
        #[test]
        fn anything_is_survived(value in "[ -~]{0,24}") {
            for (_, reset) in OPENAI.iter().chain(&ANTHROPIC) {
                let mut headers = HeaderMap::new();
                headers.insert(*reset, value.parse().unwrap());
                headers.insert("retry-after", value.parse().unwrap());
                prop_assert!(rest_of_limited(&headers, now()) <= REST_MAX_MS);
                rest_of_success(&headers, now());
            }
            go_duration_ms(&value);
        }
    }
}
