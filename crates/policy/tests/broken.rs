//! Two hundred broken manifests, made out of good ones: each is refused with an error that names the place.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

#[path = "../../../tests/support/shared.rs"]
mod shared;

use std::fs;
use std::path::Path;

use quorate_policy::manifests::{ManifestSet, Mode, PolicyError, Source};
use shared::shared;

const BROKEN: usize = 200;
/// Of the generator: the same two hundred each time.
const SEED: u64 = 0x5eed_0003;

/// xorshift64*: enough to pick places, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % bound
    }
}

fn good() -> Vec<(String, String)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![here.join("tests/official"), here.join("tests/own")];
    folders.extend(shared("manifests"));
    let mut files = Vec::new();
    for folder in &folders {
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            files.push((
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                fs::read_to_string(path).unwrap(),
            ));
        }
    }
    files
}

/// A change that cannot leave a good file good, and the line where it was made.
fn broken(text: &str, random: &mut Random) -> Option<(String, usize)> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = random.below(lines.len());
    let line = lines[at].clone();
    let code = line.split(" #").next().unwrap();
    let (key, value) = code.trim().trim_start_matches("- ").split_once(':')?;
    if line.trim_start().starts_with('#')
        || !key.bytes().all(|c| c.is_ascii_alphanumeric())
        || key == "labels"
    {
        return None;
    }
    // Free maps take any key.
    if text
        .lines()
        .take(at)
        .last()
        .is_some_and(|before| before.ends_with("Data:") || before.ends_with("labels:"))
    {
        return None;
    }
    // What stands in a kind that is passed over is not looked at.
    let document = lines[..at].iter().rposition(|line| line == "---").unwrap_or(0);
    let kind = lines[document..].iter().find_map(|line| line.strip_prefix("kind: "));
    if kind.is_some_and(|kind| kind.starts_with("Gateway") && kind != "GatewayConfig") {
        return None;
    }
    lines[at] = match random.below(5) {
        // A field that does not exist.
        0 => line.replacen(key, &format!("{key}x"), 1),
        // The wrong sort of value.
        1 => line.replacen(&format!("{key}:"), &format!("{key}: [[1], "), 1),
        // The field twice.
        2 if !value.trim().is_empty() && !line.contains('{') && !line.contains("- ") => {
            format!("{line}\n{line}")
        }
        // A text that ends too early.
        3 => line.replacen(&format!("{key}:"), &format!("{key}: 'q' "), 1),
        4 if value.trim().is_empty() => format!("{line} 5"),
        _ => line.replacen(key, &format!("{key}: {{"), 1),
    };
    Some((lines.join("\n"), at + 1))
}

fn refused(name: &str, text: &str) -> Vec<PolicyError> {
    match ManifestSet::parse(&[Source { name, text }], Mode::Strict) {
        Err(errors) => errors.errors,
        Ok((set, _)) => set.compile().map(|_| Vec::new()).unwrap_or_else(|errors| errors.errors),
    }
}

#[test]
fn two_hundred_broken_manifests_are_refused_at_their_place() {
    let files = good();
    let mut random = Random(SEED);
    let in_force = ManifestSet::default();
    let mut made = 0;
    while made < BROKEN {
        let (name, text) = &files[random.below(files.len())];
        let Some((text, line)) = broken(text, &mut random) else { continue };
        let errors = refused(name, &text);
        assert!(!errors.is_empty(), "{name}, line {line}, was taken:\n{text}");
        for error in &errors {
            assert_eq!(&error.file, name);
            assert!(error.line > 0 && !error.message.is_empty(), "{error}");
            assert!(error.line <= text.lines().count() + 1, "{error}");
        }
        // At the line itself, or where the parser sees that something is amiss: never before the document.
        let start = text.lines().take(line).enumerate().filter(|(_, text)| text.starts_with("---")).last();
        let start = start.map_or(1, |(index, _)| index + 1);
        assert!(errors.iter().any(|error| error.line >= start), "{name}, line {line}: {errors:?}");
        assert!(in_force == ManifestSet::default());
        made += 1;
    }
}
