//! Behaviours that were switched on from outside: `POST /mock/behaviour`.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::dialect::Dialect;

/// Switches at once; the oldest goes.
const SWITCHES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Switches {
    /// Whether there is any: requests look here first.
    any: AtomicBool,
    list: Mutex<Vec<Switch>>,
}

#[derive(Debug)]
struct Switch {
    dialect: Option<Dialect>,
    model: Option<String>,
    /// Requests that it still holds for; no bound if absent.
    times: Option<u64>,
    behaviour: Behaviour,
    asked: Value,
}

impl Switches {
    /// `{"status": 429, "retry-after": 30, "dialect": "anthropic", "model": "m", "times": 1}`, all but the behaviour
    /// optional. One with no behaviour removes those of the same dialect and model (all, if it names none).
    ///
    /// # Errors
    /// A key is unknown, or a value is of the wrong kind.
    pub fn set(&self, asked: Value) -> Result<(), String> {
        let fields = asked.as_object().ok_or("a behaviour is a JSON object, as {\"hang\": true}")?;
        let mut switch = Switch {
            dialect: None,
            model: None,
            times: None,
            behaviour: Behaviour::default(),
            asked: Value::Null,
        };
        for (key, value) in fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match key.as_str() {
                "dialect" => {
                    let unknown =
                        || format!("{text} is no dialect; known are openai, azure, anthropic, bedrock");
                    switch.dialect = Some(Dialect::of_name(&text).ok_or_else(unknown)?);
                }
                "model" => switch.model = Some(text),
                "times" => {
                    switch.times = Some(text.parse().map_err(|_| "times needs a number".to_owned())?);
                }
                key => switch.behaviour.set(key, &text)?,
            }
        }
        let mut list = self.list.lock();
        let all = switch.dialect.is_none() && switch.model.is_none();
        let off = switch.behaviour == Behaviour::default();
        list.retain(|old| !(off && all || old.dialect == switch.dialect && old.model == switch.model));
        if !off && switch.times != Some(0) {
            if list.len() == SWITCHES_MAX {
                list.remove(0);
            }
            list.push(Switch { asked, ..switch });
        }
        self.any.store(!list.is_empty(), Ordering::Release);
        Ok(())
    }

    pub fn clear(&self) {
        self.list.lock().clear();
        self.any.store(false, Ordering::Release);
    }

    /// What holds for one request, the latest switch first. Counts it.
    pub fn take(&self, dialect: Dialect, model: &str) -> Behaviour {
        if !self.any.load(Ordering::Acquire) {
            return Behaviour::default();
        }
        let mut list = self.list.lock();
        let fits = |switch: &&mut Switch| {
            switch.dialect.is_none_or(|only| only == dialect)
                && switch.model.as_deref().is_none_or(|only| only == model)
        };
        let Some(switch) = list.iter_mut().rev().find(fits) else { return Behaviour::default() };
        let behaviour = switch.behaviour.clone();
        if let Some(times) = &mut switch.times {
            *times -= 1;
        }
        list.retain(|switch| switch.times != Some(0));
        self.any.store(!list.is_empty(), Ordering::Release);
        behaviour
    }

    pub fn report(&self) -> Value {
        let list = self.list.lock();
        let switch = |switch: &Switch| json!({"asked": switch.asked, "times_left": switch.times});
        json!({"behaviours": list.iter().map(switch).collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_hold_for_their_dialect_model_and_times() {
        let switches = Switches::default();
        switches.set(json!({"status": 529, "dialect": "anthropic", "times": 1})).unwrap();
        switches.set(json!({"slow": 10, "model": "m"})).unwrap();
        assert_eq!(switches.take(Dialect::OpenAi, "x"), Behaviour::default());
        assert_eq!(switches.take(Dialect::OpenAi, "m").slow, Some(10));
        assert_eq!(switches.take(Dialect::Anthropic, "x").status, Some(529));
        assert_eq!(switches.take(Dialect::Anthropic, "x"), Behaviour::default());
        switches.set(json!({})).unwrap();
        assert_eq!(switches.take(Dialect::OpenAi, "m"), Behaviour::default());
    }

    #[test]
    fn wrong_switches_are_refused() {
        let switches = Switches::default();
        for (asked, part) in [
            (json!({"hnag": true}), "known are"),
            (json!({"dialect": "cohere"}), "no dialect"),
            (json!({"times": "x", "hang": true}), "times needs"),
            (json!([]), "JSON object"),
        ] {
            assert!(switches.set(asked).unwrap_err().contains(part));
        }
    }
}
