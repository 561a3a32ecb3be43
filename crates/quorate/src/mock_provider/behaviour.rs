//! How an answer differs from an ordinary one: sizes, waits and faults, however they were asked for.
//!
//! One list of keys serves a request's text and model (`mock:status=529`), OpenAI's `metadata` (`mock_status`) and
//! `POST /mock/behaviour`. Not what an answer says: that is `brain.rs`.

use super::Settings;

pub(super) const KEYS: &str = "hang, stall, half-stream, early-end, error-inside, garbage, slow, status, retry-after, \
    latency-ms, chunk-ms, tokens, input-tokens, cached-tokens, cache-write-tokens, reasoning-tokens, cut-after, no-usage, \
    filter, remaining-requests, remaining-tokens, reset-s";

/// An hour: every wait ends.
const WAIT_MS_MAX: u64 = 3_600_000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Behaviour {
    pub fault: Option<Fault>,
    /// Every wait is so many times as long.
    pub slow: Option<u64>,
    pub status: Option<u16>,
    pub retry_after: Option<u64>,
    pub latency_ms: Option<u64>,
    pub chunk_ms: Option<u64>,
    pub tokens: Option<u64>,
    pub input_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    pub cache_write_tokens: Option<u64>,
    pub reasoning_tokens: Option<u64>,
    /// The connection breaks after so many events.
    pub cut_after: Option<u64>,
    pub no_usage: bool,
    /// The content filter ends the answer.
    pub filter: bool,
    pub remaining_requests: Option<u64>,
    pub remaining_tokens: Option<u64>,
    pub reset_s: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing ever comes.
    Hang,
    /// Half of it comes, then nothing, and the connection stays.
    Stall,
    /// Half of it comes, then the connection breaks.
    HalfStream,
    /// Half of it comes, and an end as if that was all.
    EarlyEnd,
    /// 200, and an error in the body or among the events.
    ErrorInside,
    /// 200, and bytes that mean nothing.
    Garbage,
}

impl Behaviour {
    /// # Errors
    /// The key is unknown or its value is not a number.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("mock:{key} needs a number, as in mock:{key}=10, not {value:?}"))
        };
        let flag = !matches!(value, "false" | "0");
        let fault = match key {
            "hang" => Some(Fault::Hang),
            "stall" => Some(Fault::Stall),
            "half-stream" => Some(Fault::HalfStream),
            "early-end" => Some(Fault::EarlyEnd),
            "error-inside" => Some(Fault::ErrorInside),
            "garbage" => Some(Fault::Garbage),
            _ => None,
        };
        if fault.is_some() {
            self.fault = fault.filter(|_| flag);
            return Ok(());
        }
        let place = match key {
            "no-usage" => {
                self.no_usage = flag;
                return Ok(());
            }
            "filter" => {
                self.filter = flag;
                return Ok(());
            }
            "status" => {
                let status = number()?;
                let known = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
                self.status = Some(known.ok_or_else(|| format!("{status} is no status of an answer"))?);
                return Ok(());
            }
            "slow" => &mut self.slow,
            "retry-after" => &mut self.retry_after,
            "latency-ms" => &mut self.latency_ms,
            "chunk-ms" => &mut self.chunk_ms,
            "tokens" => &mut self.tokens,
            "input-tokens" => &mut self.input_tokens,
            "cached-tokens" => &mut self.cached_tokens,
            "cache-write-tokens" => &mut self.cache_write_tokens,
            "reasoning-tokens" => &mut self.reasoning_tokens,
            "cut-after" => &mut self.cut_after,
            "remaining-requests" => &mut self.remaining_requests,
            "remaining-tokens" => &mut self.remaining_tokens,
            "reset-s" => &mut self.reset_s,
            _ => return Err(format!("unknown behaviour mock:{key}; known are {KEYS}")),
        };
        *place = Some(number()?);
        Ok(())
    }

    /// Takes every `mock:KEY` and `mock:KEY=NUMBER` in a text.
    ///
    /// # Errors
    /// As of [`Self::set`].
    pub fn read_phrases(&mut self, text: &str) -> Result<(), String> {
        for phrase in text.split("mock:").skip(1) {
            let end = phrase.find(|c: char| !(c.is_ascii_lowercase() || c == '-')).unwrap_or(phrase.len());
            let (key, rest) = phrase.split_at(end);
            let value = rest.strip_prefix('=').unwrap_or("");
            let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
            self.set(key.trim_end_matches('-'), &value[..end])?;
        }
        Ok(())
    }

    /// Takes the `mock_key` entries of a request's metadata; values that make no sense are not its business, as ever.
    pub fn read_metadata<'a>(&mut self, entries: impl Iterator<Item = (&'a str, &'a str)>) {
        for (key, value) in entries {
            if let Some(key) = key.strip_prefix("mock_") {
                let _ = self.set(&key.replace('_', "-"), value);
            }
        }
    }

    /// 200, or the status to refuse with.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(if self.retry_after.is_some() { 429 } else { 200 })
    }

    pub fn latency_ms(&self, settings: &Settings) -> u64 {
        self.slowed(self.latency_ms.unwrap_or(settings.latency_ms), 50)
    }

    pub fn chunk_ms(&self, settings: &Settings) -> u64 {
        self.slowed(self.chunk_ms.unwrap_or(settings.chunk_ms), 2)
    }

    fn slowed(&self, wait_ms: u64, least_ms: u64) -> u64 {
        let wait_ms = self.slow.map_or(wait_ms, |times| wait_ms.max(least_ms).saturating_mul(times));
        wait_ms.min(WAIT_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Behaviour, String> {
        let mut behaviour = Behaviour::default();
        behaviour.read_phrases(text)?;
        Ok(behaviour)
    }

    #[test]
    fn phrases_are_found_in_texts_and_model_names() {
        let none = Behaviour::default();
        let table = [
            ("Hello!", none.clone()),
            ("please mock:hang, now", Behaviour { fault: Some(Fault::Hang), ..none.clone() }),
            ("claude-mock:half-stream:0", Behaviour { fault: Some(Fault::HalfStream), ..none.clone() }),
            (
                "mock:status=529 mock:retry-after=30.",
                Behaviour { status: Some(529), retry_after: Some(30), ..none.clone() },
            ),
            ("gpt-4o-mock:slow=10", Behaviour { slow: Some(10), ..none.clone() }),
            ("mock:no-usage", Behaviour { no_usage: true, ..none }),
        ];
        for (text, expected) in table {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn unknown_keys_and_values_say_what_is_known() {
        assert!(read("mock:hnag").unwrap_err().contains("half-stream"));
        assert!(read("mock:slow").unwrap_err().contains("mock:slow=10"));
        assert!(read("mock:status=42").is_err());
    }

    #[test]
    fn waits_are_slowed_from_a_least() {
        let settings = Settings { latency_ms: 100, ..Settings::default() };
        assert_eq!(read("mock:slow=10").unwrap().latency_ms(&settings), 1_000);
        assert_eq!(read("mock:slow=10").unwrap().latency_ms(&Settings::default()), 500);
        assert_eq!(read("").unwrap().latency_ms(&Settings::default()), 0);
        assert_eq!(read("mock:retry-after=3").unwrap().status(), 429);
    }
}
