//! A value with `*`, each of which stands for any text, also none. Cut apart once; matching allocates nothing.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wildcard {
    /// What stands before, between and after the stars: at least two.
    parts: Vec<String>,
}

impl Wildcard {
    pub fn new(text: &str) -> Self {
        Self { parts: text.split('*').map(str::to_owned).collect() }
    }

    /// How every value begins that matches.
    pub fn beginning(&self) -> &str {
        self.parts.first().map_or("", String::as_str)
    }

    pub fn matches(&self, value: &str) -> bool {
        let [first, between @ .., last] = &self.parts[..] else {
            return self.parts.first().is_some_and(|only| only == value);
        };
        let Some(rest) = value.strip_prefix(first.as_str()) else { return false };
        let Some(mut rest) = rest.strip_suffix(last.as_str()) else { return false };
        // The earliest place of each part leaves the most for those after it.
        for part in between {
            let Some(at) = rest.find(part.as_str()) else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, value, matches) in [
            ("value*", "value", true),
            ("value*", "value1", true),
            ("value*", "valu", false),
            ("*", "", true),
            ("/api/*/action", "/api/7/action", true),
            ("/api/*/action", "/api/action", false),
            ("/api/*/action", "/api//action", true),
            ("/a/*/b/*/c", "/a/1/b/2/c", true),
            ("/a/*/b/*/c", "/a/1/c/2/b", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*b*b*", "b", false),
            ("*b*b*", "bb", true),
        ] {
            assert_eq!(Wildcard::new(pattern).matches(value), matches, "{pattern} {value}");
        }
    }

    /// What the stars mean, tried out.
    fn naive(pattern: &[u8], value: &[u8]) -> bool {
        match (pattern, value) {
            ([], []) => true,
            ([b'*', rest @ ..], value) => (0..=value.len()).any(|at| naive(rest, &value[at..])),
            ([one, rest @ ..], [first, after @ ..]) => one == first && naive(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn as_tried_out(pattern in "[ab*]{0,4}\\*[ab*]{0,4}", value in "[ab]{0,8}") {
            let found = Wildcard::new(&pattern).matches(&value);
            prop_assert_eq!(found, naive(pattern.as_bytes(), value.as_bytes()));
        }
    }
}
