//! What a plain word of YAML means: nothing, yes or no, a number, or text (YAML 1.2.2, section 10.3: the core schema).

/// What a scalar stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Null,
    Bool,
    Integer,
    Float,
    Text,
}

impl Sort {
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool => "a boolean",
            Self::Integer => "a whole number",
            Self::Float => "a number",
            Self::Text => "a text",
        }
    }
}

/// The text as written, after unquoting: numbers keep their digits, so that a price stays exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub text: String,
    pub sort: Sort,
}

impl Scalar {
    pub fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { sort: sort_of(&text), text }
    }

    pub fn quoted(text: impl Into<String>) -> Self {
        Self { text: text.into(), sort: Sort::Text }
    }

    pub fn is_null(&self) -> bool {
        self.sort == Sort::Null
    }
}

/// What a word without quotes means.
pub(crate) fn sort_of(word: &str) -> Sort {
    match word {
        "" | "~" | "null" | "Null" | "NULL" => Sort::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Sort::Bool,
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => Sort::Float,
        _ if is_integer(word) => Sort::Integer,
        _ if is_float(word) => Sort::Float,
        _ => Sort::Text,
    }
}

fn is_integer(word: &str) -> bool {
    let based = |prefix: &str, digit: fn(&char) -> bool| {
        word.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| digit(&c)))
    };
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    (!digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()))
        || based("0x", char::is_ascii_hexdigit)
        || based("0o", |c| ('0'..='7').contains(c))
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(word: &str) -> bool {
    let word = word.strip_prefix(['+', '-']).unwrap_or(word);
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (word, None),
    };
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fine = digits(whole) && digits(fraction) && (!whole.is_empty() || !fraction.is_empty());
    let exponent_fine = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_fine && exponent_fine
}
