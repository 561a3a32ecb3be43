//! Cuts text into the pieces that OpenAI's vocabularies count one by one: the same as their regular expressions do, for
//! ASCII text and several times as fast. What it is not sure of, a piece with other characters in it or before them, it
//! leaves to those.
//!
//! Pure. The rules are tiktoken's patterns for `cl100k_base` and `o200k_base`, in the order of their alternatives.

/// Whose rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    O200k,
    Cl100k,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Upper,
    Lower,
    Digit,
    /// White space but the ends of lines.
    Space,
    Newline,
    /// The rest of ASCII, with its control characters.
    Sign,
    /// Part of a character beyond ASCII: may be of any class.
    Foreign,
    End,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Foreign; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'A'..=b'Z' => Class::Upper,
            b'a'..=b'z' => Class::Lower,
            b'0'..=b'9' => Class::Digit,
            b'\r' | b'\n' => Class::Newline,
            b' ' | b'\t' | 0x0b | 0x0c => Class::Space,
            _ => Class::Sign,
        };
        byte += 1;
    }
    classes
};

fn class(text: &[u8], at: usize) -> Class {
    text.get(at).map_or(Class::End, |byte| CLASSES[usize::from(*byte)])
}

fn is_letter(class: Class) -> bool {
    matches!(class, Class::Upper | Class::Lower)
}

/// A one in each of eight bytes.
const EACH: u64 = u64::MAX / 0xff;
const HIGH: u64 = 0x80 * EACH;

/// How many of these bytes are small letters of ASCII, or the first a capital where `capital`, before one that is not.
fn letters_of_eight(bytes: u64, capital: bool) -> usize {
    let seven = bytes & !HIGH;
    let from_a = seven + u64::from(0x80 - b'a') * EACH;
    let beyond_z = seven + u64::from(0x7f - b'z') * EACH;
    let others = (!from_a | beyond_z | bytes) & HIGH & !(u64::from(capital) << 7);
    (others.trailing_zeros() / 8) as usize
}

/// How long the first piece is, by whichever rules, where the next sixteen bytes of a text show that it is a word of small
/// letters: with or without a space and a capital before them, and behind them what belongs to no word. Most pieces are.
pub(crate) fn plain_word(window: u128) -> Option<usize> {
    let space = usize::from(window as u8 == b' ');
    let word = window >> (8 * space);
    let mut end = letters_of_eight(word as u64, (word as u8).is_ascii_uppercase());
    if end == 8 {
        end += letters_of_eight((word >> 64) as u64, false);
    }
    let behind = window.checked_shr(8 * (space + end) as u32)? as u8;
    let ends =
        matches!(CLASSES[usize::from(behind)], Class::Digit | Class::Space | Class::Newline | Class::Sign);
    (end > 0 && ends && behind != b'\'').then_some(space + end)
}

/// How long the first piece is, in bytes. `None`: ask the regular expression (also where there is no text).
pub(crate) fn first(text: &[u8], rules: Rules) -> Option<usize> {
    match class(text, 0) {
        Class::Upper | Class::Lower => letters(text, 0, rules),
        Class::Digit => digits(text),
        Class::Newline => white_space(text),
        Class::Space => match class(text, 1) {
            Class::Upper | Class::Lower => letters(text, 1, rules),
            Class::Sign if text.first() == Some(&b' ') => signs(text, 1, rules),
            Class::Sign | Class::Digit => Some(1),
            _ => white_space(text),
        },
        Class::Sign => {
            let contraction = if rules == Rules::Cl100k { contraction(text, 0)? } else { 0 };
            match class(text, 1) {
                _ if contraction > 0 => Some(contraction),
                Class::Upper | Class::Lower => letters(text, 1, rules),
                _ => signs(text, 0, rules),
            }
        }
        Class::Foreign | Class::End => None,
    }
}

/// A word from `at` on; before it may stand a sign or a space. To o200k, a capital after small letters begins a new one.
fn letters(text: &[u8], at: usize, rules: Rules) -> Option<usize> {
    let mut end = at;
    if rules == Rules::O200k {
        while class(text, end) == Class::Upper {
            end += 1;
        }
        while class(text, end) == Class::Lower {
            end += 1;
        }
    } else {
        while is_letter(class(text, end)) {
            end += 1;
        }
    }
    if class(text, end) == Class::Foreign {
        return None;
    }
    Some(if rules == Rules::O200k { end + contraction(text, end)? } else { end })
}

/// The length of `'s`, `'LL` and the like at `at`; 0: there is none.
fn contraction(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'\'') {
        return Some(0);
    }
    let letter = |at: usize| text.get(at).map_or(0, u8::to_ascii_lowercase);
    match (letter(at + 1), letter(at + 2)) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', b'e') | (b'l', b'l') => Some(3),
        // The long s is one, too.
        (128.., _) => None,
        _ => Some(0),
    }
}

/// Three at most.
fn digits(text: &[u8]) -> Option<usize> {
    let count = (1..3).take_while(|at| class(text, *at) == Class::Digit).count() + 1;
    (count == 3 || class(text, count) != Class::Foreign).then_some(count)
}

/// Signs from `at` on, and the ends of lines behind them.
fn signs(text: &[u8], at: usize, rules: Rules) -> Option<usize> {
    let mut end = at;
    while class(text, end) == Class::Sign {
        end += 1;
    }
    if class(text, end) == Class::Foreign {
        return None;
    }
    let belongs = |at: usize| match text.get(at) {
        Some(b'\r' | b'\n') => true,
        Some(b'/') => rules == Rules::O200k,
        _ => false,
    };
    while belongs(end) {
        end += 1;
    }
    Some(end)
}

/// Up to the last end of a line in it; without one, all but the last space, which belongs to what follows.
fn white_space(text: &[u8]) -> Option<usize> {
    let (mut end, mut lines) = (0, 0);
    loop {
        match class(text, end) {
            Class::Newline => {
                end += 1;
                lines = end;
            }
            Class::Space => end += 1,
            Class::Foreign => return None,
            _ if lines > 0 => return Some(lines),
            Class::End => return Some(end),
            _ => return Some((end - 1).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The pieces as they come out, those of the regular expression where it had to be asked, and how many those were.
    fn cut(text: &str, rules: Rules) -> (Vec<&str>, usize) {
        let vocabulary = vocabulary(rules);
        let (mut rest, mut pieces, mut asked) = (text, Vec::new(), 0);
        while !rest.is_empty() {
            let length = first(rest.as_bytes(), rules).unwrap_or_else(|| {
                asked += 1;
                vocabulary.split(rest).next().unwrap().len()
            });
            let (piece, after) = rest.split_at(length);
            pieces.push(piece);
            rest = after;
        }
        (pieces, asked)
    }

    fn vocabulary(rules: Rules) -> &'static bpe_openai::Tokenizer {
        match rules {
            Rules::O200k => bpe_openai::o200k_base(),
            Rules::Cl100k => bpe_openai::cl100k_base(),
        }
    }

    fn agrees(text: &str) {
        for rules in [Rules::O200k, Rules::Cl100k] {
            let wanted: Vec<&str> = vocabulary(rules).split(text).collect();
            assert_eq!(cut(text, rules).0, wanted, "{rules:?} {text:?}");
        }
    }

    #[test]
    fn cuts_where_the_regular_expressions_cut() {
        for text in [
            "",
            "Hello, world! It's 12345 o'clock, isn't it?",
            "camelCaseAndHTMLParser XMLHttp",
            "DON'T don'T 'S 's' ''s 'x 'sx x'sy I'LL i'll'll",
            "fn main() {\n    println!(\"{}\", a/b);\n\n}\n",
            "a\n\n  b\n \n\tc \t d  \n",
            "   ",
            " \n ",
            "\r\n\r\n// x\n/ y",
            "...\n/\n x",
            "\t\"quoted\" (\"x\")",
            "\u{0}\u{1f}a\u{7f} b",
            "naïve café \u{a0} x\u{a0}y 'ſ x'ſ",
            "1é 12é 123é x\u{301} .\u{301} \u{301}",
            "日本語 text 中",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn plain_words_are_known_by_sixteen_bytes() {
        for (text, length) in [
            ("budget is held by", Some(6)),
            (" budget, held by ", Some(7)),
            ("Budgets\nare held ", Some(7)),
            (" B is a budget of", Some(2)),
            ("a23456789012345678", Some(1)),
            ("fourteenletters ", Some(15)),
            ("morethanfifteenxx", None),
            (" 12345678901234567", None),
            ("HTTP is in capital", None),
            ("camelCase is two x", None),
            ("it's so, isn't it?", None),
            ("caf\u{e9} au lait, two", None),
            ("  two spaces before", None),
        ] {
            let window = u128::from_le_bytes(*text.as_bytes().first_chunk().unwrap());
            assert_eq!(plain_word(window), length, "{text:?}");
        }
    }

    #[test]
    fn plain_text_is_cut_without_asking() {
        let text = "A budget is held by whoever counts first: it's so.\n\n    let x = y.z(12, \"a b\");\n\tEnd (of it)\n";
        for rules in [Rules::O200k, Rules::Cl100k] {
            assert_eq!(cut(text, rules).1, 0, "{rules:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn agrees_on_anything(
            text in "([a-cA-CsStTlLmMdDrRvVeE]{0,3}|[0-9]{0,4}|['’/\"(_.]{0,2}|[ \\t\\r\\n\\x0b]{0,3}|[éſ\u{a0}\u{301}中²]?){0,12}"
        ) {
            agrees(&text);
        }

        #[test]
        fn a_plain_word_is_the_first_piece_by_either_rules(
            window in "[ -~\\t\\n\\r\\x00é]{0,2}[A-Z]{0,2}[a-z]{0,15}[ -~\\t\\n\\x00éſ]{0,16}[ -~]{16}"
        ) {
            let text = window.as_bytes();
            if let Some(length) = plain_word(u128::from_le_bytes(*text.first_chunk().unwrap())) {
                for rules in [Rules::O200k, Rules::Cl100k] {
                    prop_assert_eq!(first(text, rules), Some(length));
                }
            }
        }

        #[test]
        fn agrees_on_all_characters(text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            agrees(&text);
        }
    }
}
