//! The documents of a file, cut apart before they are read, so that a flaw in one does not hide those of the others.

/// Text that begins with a document, and the lines of the file before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    pub text: &'a str,
    pub lines_before: usize,
}

/// Cuts before every line that begins a document. Chunks without content are left out.
pub(crate) fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut starts = vec![(0, 0)];
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if begins_document(line) && offset > 0 {
            starts.push((offset, number));
        }
        offset += line.len();
    }
    let ends = starts.iter().skip(1).map(|(offset, _)| *offset).chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&(start, lines_before), end)| Chunk { text: &text[start..end], lines_before })
        .filter(|chunk| !chunk.text.lines().all(is_blank))
        .collect()
}

/// `---`, alone or before white space. Nothing else may begin a line with it, not even inside a block of text
/// (YAML 1.2.2, section 9.1.2).
fn begins_document(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(line: &str) -> bool {
    let rest = if begins_document(line) { &line[3..] } else { line };
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}
