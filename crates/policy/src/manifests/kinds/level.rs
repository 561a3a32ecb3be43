//! One limit of a Budget: what it counts, for whom, and how long. A hierarchy has several; a plain Budget has one.

use quorate_ledger::{Amount, Unit, Window};

use crate::manifests::kinds::traffic::UNITS;
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{Cost, SubjectPart, TokenKind};

#[derive(Debug, Clone)]
pub(crate) struct Level {
    /// Of a hierarchy; `None`: the only one.
    pub name: Option<String>,
    pub subject: Vec<SubjectPart>,
    pub limit: LimitSpec,
    pub window: Window,
    pub carry_over: Option<Amount>,
    /// Percent of the limit, ascending.
    pub alerts: Vec<u8>,
}

/// A limit and what counts against it.
#[derive(Debug, Clone)]
pub(crate) struct LimitSpec {
    pub unit: Unit,
    pub limit: Amount,
    pub cost: Cost,
    pub request_cost: Amount,
}

const SUBJECT_PARTS_MAX: usize = 8;
const SHARES_MAX: usize = 8;
const SLIDING_MAX_MS: u64 = 366 * 86_400_000;
const SMALLEST: u64 = 1;
/// Levels whose subject goes without saying.
const KNOWN_LEVELS: [(&str, &[SubjectPart]); 6] = [
    ("organisation", &[]),
    ("organization", &[]),
    ("tenant", &[]),
    ("team", &[SubjectPart::Team]),
    ("user", &[SubjectPart::User]),
    ("key", &[SubjectPart::Key]),
];
const WORDS: [(&str, SubjectPart); 8] = [
    ("model", SubjectPart::Model),
    ("tenant", SubjectPart::Tenant),
    ("team", SubjectPart::Team),
    ("user", SubjectPart::User),
    ("key", SubjectPart::Key),
    ("source", SubjectPart::Source),
    ("route", SubjectPart::Route),
    ("backend", SubjectPart::Backend),
];

impl Level {
    /// An element of `levels`.
    pub fn read(at: &Cursor<'_>) -> Option<Self> {
        let fields = at.fields()?;
        let name = fields.need("name").and_then(|name| values::object_name(&name));
        let level = Self::read_limits(&fields, &[]);
        fields.done();
        let (name, mut level) = (name?, level?);
        if fields.cursor().node().get("subject").is_none() {
            match KNOWN_LEVELS.iter().find(|known| known.0 == name) {
                Some((_, subject)) => level.subject = subject.to_vec(),
                None => {
                    return at.refuse(format!(
                        "field subject is missing; it goes without saying only for levels named organisation, team, user or key, not for {name}"
                    ));
                }
            }
        }
        level.name = Some(name);
        Some(level)
    }

    /// The fields of one limit: of a level, or of a spec without levels. `shares`: alerts where it names none.
    pub fn read_limits(fields: &Fields<'_>, shares: &[u8]) -> Option<Self> {
        let subject = fields.get("subject").map(|subject| read_subject(&subject)).unwrap_or_default();
        let limit = fields.need("limit").and_then(|limit| read_limit(&limit));
        let window = fields.need("window").and_then(|window| read_window(&window));
        let carry_over = fields.get("carryOver").map(|carry| read_carry_over(&carry));
        let (limit, window) = (limit?, window?);
        if let (Some(carry), Window::Lifetime | Window::Sliding { .. }) = (fields.get("carryOver"), window) {
            return carry.refuse("needs a window with an end, such as Day");
        }
        let carry_over = match carry_over {
            Some(carry_over) => Some(carry_over?),
            None => None,
        };
        Some(Self { name: None, subject, limit, window, carry_over, alerts: shares.to_vec() })
    }
}

/// `{tokens, count}`, `{cost, expression}`, `{dollars}` or `{requests}`
fn read_limit(at: &Cursor<'_>) -> Option<LimitSpec> {
    const COUNTS: [(&str, TokenKind); 6] = [
        ("Total", TokenKind::Total),
        ("Input", TokenKind::Input),
        ("Output", TokenKind::Output),
        ("CachedInput", TokenKind::CachedInput),
        ("CacheCreationInput", TokenKind::CacheCreationInput),
        ("Reasoning", TokenKind::Reasoning),
    ];
    let fields = at.fields()?;
    let tokens = fields.get("tokens");
    let dollars = fields.get("dollars");
    let cost = fields.get("cost");
    let requests = fields.get("requests");
    let expression = fields.get("expression");
    let count = fields.get("count");
    fields.done();
    let smallest = Amount::from_micros(SMALLEST).ok()?;
    if let (Some(count), None) = (&count, &tokens) {
        count.error("is only for a limit in tokens");
    }
    if let (Some(expression), None) = (&expression, &cost) {
        expression.error("is only for a limit in cost; an expression gives cost units");
    }
    let limit = match (tokens, dollars, cost, requests) {
        (Some(tokens), None, None, None) => {
            let kind = count.map_or(Some(TokenKind::Total), |count| count.choice(&COUNTS));
            let limit = tokens.integer(1, Amount::MAX.units_floor()).and_then(|n| Amount::from_units(n).ok());
            LimitSpec {
                unit: Unit::Tokens,
                limit: limit?,
                cost: Cost::Tokens(kind?),
                request_cost: Amount::ZERO,
            }
        }
        (None, Some(dollars), None, None) => LimitSpec {
            unit: Unit::Dollars,
            limit: values::amount(&dollars, smallest)?,
            cost: Cost::Dollars,
            request_cost: Amount::ZERO,
        },
        (None, None, Some(cost), None) => {
            let limit = values::amount(&cost, smallest);
            let Some(expression) = expression else {
                return at.refuse("field expression is missing; a limit in cost needs one");
            };
            let expression = values::expression(&expression);
            LimitSpec {
                unit: Unit::Cost,
                limit: limit?,
                cost: Cost::Cel(expression?),
                request_cost: Amount::ZERO,
            }
        }
        (None, None, None, Some(requests)) => LimitSpec {
            unit: Unit::Cost,
            limit: Amount::from_units(requests.integer(1, Amount::MAX.units_floor())?).ok()?,
            cost: Cost::Number(Amount::ZERO),
            request_cost: Amount::from_units(1).ok()?,
        },
        _ => return at.refuse("wanted: one of tokens, cost (with expression), dollars, requests"),
    };
    Some(limit)
}

/// `Hour`, or `{sliding: 1h}`
fn read_window(at: &Cursor<'_>) -> Option<Window> {
    if at.scalar().is_some() {
        let mut choices = UNITS.to_vec();
        choices.push(("Lifetime", Window::Lifetime));
        return at.choice(&choices);
    }
    let fields = at.fields()?;
    let sliding =
        fields.need("sliding").and_then(|length| values::duration_ms(&length, 1_000, SLIDING_MAX_MS));
    fields.done();
    Some(Window::Sliding { ms: sliding? })
}

/// `{max}`, in the unit of the limit.
fn read_carry_over(at: &Cursor<'_>) -> Option<Amount> {
    let fields = at.fields()?;
    let max = fields.need("max").and_then(|max| values::amount(&max, Amount::from_micros(SMALLEST).ok()?));
    fields.done();
    max
}

pub(crate) fn read_subject(at: &Cursor<'_>) -> Vec<SubjectPart> {
    let mut parts: Vec<SubjectPart> = Vec::new();
    for item in at.items(SUBJECT_PARTS_MAX) {
        let Some(part) = subject_part(&item) else { continue };
        if parts.contains(&part) {
            item.error("stands twice");
        }
        parts.push(part);
    }
    parts
}

/// `model`, or `header: x-user-id`, or `query: user`
fn subject_part(at: &Cursor<'_>) -> Option<SubjectPart> {
    if let Some(scalar) = at.scalar() {
        if let Some((_, part)) = WORDS.iter().find(|(word, _)| *word == scalar.text) {
            return Some(part.clone());
        }
        if scalar.text == "header" {
            return at.refuse("header needs a name: `header: x-user-id`");
        }
        let mut known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        known.push("header: NAME");
        known.push("query: NAME");
        return at.unknown(&scalar.text, &known);
    }
    let fields = at.fields().filter(|fields| fields.cursor().node().entries().len() == 1);
    let Some(fields) = fields else {
        return at.refuse("expected a word such as model, or one of header: NAME and query: NAME");
    };
    let header = fields.get("header").map(|header| values::header(&header).map(SubjectPart::Header));
    let query = fields.get("query").map(|query| values::name(&query).map(SubjectPart::Query));
    fields.done();
    header.or(query)?
}

/// `[50, 80, 100]`, ascending and each once.
pub(crate) fn read_shares(at: &Cursor<'_>) -> Vec<u8> {
    let mut shares: Vec<u8> = Vec::new();
    for item in at.items(SHARES_MAX) {
        let Some(share) = item.integer(1, 100).and_then(|share| u8::try_from(share).ok()) else { continue };
        if shares.contains(&share) {
            item.error(format!("{share} stands twice"));
        }
        shares.push(share);
    }
    shares.sort_unstable();
    shares.dedup();
    shares
}
