//! From the parser's events to trees, within bounds: depth, nodes, and what aliases multiply.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::manifests::yaml::document::Chunk;
use crate::manifests::yaml::emit::key_bytes;
use crate::manifests::yaml::{Entry, Node, Place, Scalar, Sort, Value};

/// Manifests of Kubernetes are less than 25 deep.
const DEPTH_MAX: usize = 64;
/// Of a key as the document has it: one of more than 1,024 characters could be written there, and not read again
/// (YAML 1.2.2, section 7.4).
const KEY_MAX_BYTES: usize = 1_000;
const TOO_DEEP: &str = "more than 64 levels deep; manifests need fewer";

/// The key of fields from elsewhere.
const MERGE: &str = "<<";

/// Why a document is no tree.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub at: Place,
    pub message: String,
}

/// Composes the documents of a set of files; all of them share one bound on the number of nodes.
#[derive(Debug)]
pub(crate) struct Composer {
    nodes_left: usize,
}

/// A list or map that is still open.
struct Open {
    at: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// What `<<` takes fields from.
        bases: Vec<Node>,
        seen: BTreeSet<String>,
        /// Waits for its value. `true`: it is `<<`.
        key: Option<(String, Place, bool)>,
    },
}

/// What one document has composed so far.
#[derive(Default)]
struct Draft {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    anchored_nodes: usize,
    root: Option<Node>,
}

impl Composer {
    pub fn new(nodes_max: usize) -> Self {
        Self { nodes_left: nodes_max }
    }

    /// The documents of a chunk; those before a flaw are lost with it.
    pub fn compose(&mut self, chunk: Chunk<'_>) -> Result<Vec<Node>, Flaw> {
        let mut documents = Vec::new();
        let mut draft = Draft::default();
        let place =
            |line: usize, column: usize| Place { line: chunk.lines_before + line, column: column + 1 };
        for event in Parser::new_from_str(chunk.text) {
            let (event, span) = event.map_err(|error| Flaw {
                at: place(error.marker().line(), error.marker().col()),
                message: format!("no YAML: {}", error.info()),
            })?;
            let at = start_of(&span, &place);
            match event {
                Event::DocumentStart(_) => draft = Draft::default(),
                Event::DocumentEnd => documents.extend(draft.root.take()),
                Event::Scalar(text, style, anchor, tag) => {
                    let scalar = scalar(&text, style, tag.as_deref(), at)?;
                    self.take(1, at)?;
                    let merges = style == ScalarStyle::Plain && scalar.text == MERGE;
                    draft.close(Node { at, value: Value::Scalar(scalar) }, anchor, merges)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    known_tag(tag.as_deref(), at)?;
                    draft.open(at, anchor, Content::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    known_tag(tag.as_deref(), at)?;
                    let content = Content::Map {
                        entries: Vec::new(),
                        bases: Vec::new(),
                        seen: BTreeSet::new(),
                        key: None,
                    };
                    draft.open(at, anchor, content)?;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    self.take(1, at)?;
                    draft.close_innermost(at)?;
                }
                Event::Alias(anchor) => {
                    let Some(node) = draft.anchors.get(&anchor) else {
                        return Err(flaw(at, "an alias inside what it stands for; write it out"));
                    };
                    if node_depth(node) + draft.open.len() > DEPTH_MAX {
                        return Err(flaw(at, TOO_DEEP));
                    }
                    // What an alias stands for is copied: a bomb of aliases runs out of nodes before it is built.
                    self.take(node.count(), at)?;
                    let node = Node { at, value: node.value.clone() };
                    draft.close(node, 0, false)?;
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd => {}
            }
        }
        documents.retain(|document| !document.is_null());
        Ok(documents)
    }

    fn take(&mut self, nodes: usize, at: Place) -> Result<(), Flaw> {
        match self.nodes_left.checked_sub(nodes) {
            Some(left) => {
                self.nodes_left = left;
                Ok(())
            }
            None => {
                Err(flaw(at, "too many values, counting what aliases stand for; use fewer aliases or files"))
            }
        }
    }
}

impl Draft {
    fn open(&mut self, at: Place, anchor: usize, content: Content) -> Result<(), Flaw> {
        if self.open.len() >= DEPTH_MAX {
            return Err(flaw(at, TOO_DEEP));
        }
        self.open.push(Open { at, anchor, content });
        Ok(())
    }

    fn close_innermost(&mut self, at: Place) -> Result<(), Flaw> {
        let Some(open) = self.open.pop() else {
            return Err(flaw(at, "an end without a beginning"));
        };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, bases, .. } => Value::Map(merged(entries, bases)?),
        };
        self.close(Node { at: open.at, value }, open.anchor, false)
    }

    /// Puts a finished node where it belongs: into what is open around it, or at the top. `merges`: as a key, it takes
    /// fields from elsewhere.
    fn close(&mut self, node: Node, anchor: usize, merges: bool) -> Result<(), Flaw> {
        if anchor != 0 {
            self.anchored_nodes += node.count();
            if self.anchored_nodes > ANCHORED_NODES_MAX {
                return Err(flaw(node.at, "anchors that hold too much; anchor less"));
            }
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, bases, seen, key }) => match key.take() {
                Some((_, _, true)) => bases.push(node),
                Some((name, at, false)) => entries.push(Entry { key: name, at, value: node }),
                None => {
                    let Value::Scalar(scalar) = &node.value else {
                        return Err(flaw(node.at, format!("{} as a key; keys are texts", node.sort_name())));
                    };
                    if key_bytes(&scalar.text) > KEY_MAX_BYTES {
                        let message = format!(
                            "a key that is too long; at most {KEY_MAX_BYTES} bytes, escapes included"
                        );
                        return Err(flaw(node.at, message));
                    }
                    if !seen.insert(scalar.text.clone()) {
                        let message = format!("field {} stands twice in one map", quoted(&scalar.text));
                        return Err(flaw(node.at, message));
                    }
                    *key = Some((scalar.text.clone(), node.at, merges));
                }
            },
        }
        Ok(())
    }
}

/// Of one document. Each anchor keeps a copy of what it names, so nested ones count again.
const ANCHORED_NODES_MAX: usize = 100_000;

fn node_depth(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(_) => 1,
        Value::List(items) => 1 + items.iter().map(node_depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| node_depth(&entry.value)).max().unwrap_or(0),
    }
}

/// `<<: *base`: the fields of base, where the map itself has none of that name.
fn merged(mut entries: Vec<Entry>, bases: Vec<Node>) -> Result<Vec<Entry>, Flaw> {
    if bases.is_empty() {
        return Ok(entries);
    }
    let mut names: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    for base in bases {
        let bases = match base.value {
            Value::List(bases) => bases,
            _ => vec![base],
        };
        for base in bases {
            let Value::Map(inherited) = base.value else {
                return Err(flaw(base.at, "<< takes a map or a list of maps"));
            };
            for entry in inherited {
                if names.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
        }
    }
    Ok(entries)
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Place) -> Result<Scalar, Flaw> {
    known_tag(tag, at)?;
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    let sort_kept = style == ScalarStyle::Plain && !is_text;
    let scalar = if sort_kept { Scalar::plain(text) } else { Scalar::quoted(text) };
    // A plain word over several lines is text, whatever its parts look like.
    Ok(if scalar.text.contains('\n') { Scalar { sort: Sort::Text, ..scalar } } else { scalar })
}

fn known_tag(tag: Option<&Tag>, at: Place) -> Result<(), Flaw> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => Err(flaw(at, "a tag of its own; manifests have none")),
        _ => Ok(()),
    }
}

fn start_of(span: &Span, place: &impl Fn(usize, usize) -> Place) -> Place {
    place(span.start.line(), span.start.col())
}

fn quoted(text: &str) -> String {
    format!("`{text}`")
}

fn flaw(at: Place, message: impl Into<String>) -> Flaw {
    Flaw { at, message: message.into() }
}
