//! The known name that was probably meant.

/// Longer words are not compared: the work grows with both lengths.
const WORD_MAX_BYTES: usize = 128;

/// The known name that was probably meant, from serde's message about an unknown field or variant.
pub fn did_you_mean(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown ")?;
    let mut names = rest.split('`').skip(1).step_by(2);
    let name = names.next()?;
    nearest(name, names).map(str::to_owned)
}

/// The known name that is fewest edits away, if it is near at all.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > WORD_MAX_BYTES {
        return None;
    }
    let lower = name.to_lowercase();
    let best = known
        .into_iter()
        .map(|other| (edit_distance(&lower, &other.to_lowercase()), other))
        .min_by_key(|(distance, _)| *distance)?;
    (best.0 <= 1 + name.len() / 3).then_some(best.1)
}

/// Levenshtein's distance, in bytes.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
