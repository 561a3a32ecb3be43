//! kind: Budget, Quorate's own: what the other kinds cannot say.

use quorate_ledger::{Amount, Enforcement};

use crate::manifests::kinds::level::read_shares;
use crate::manifests::kinds::price::read_price;
use crate::manifests::kinds::{ClientSelector, Level, security};
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{
    Attribute, ClusterLoss, Condition, MODEL_HEADER, Pattern, Price, SecretRef, TextMatch, Tier, TierAction,
    WhenShort,
};

#[derive(Debug, Clone)]
pub(crate) struct BudgetSpec {
    pub tenant: Option<String>,
    /// One, or those of a hierarchy: a request is charged to each or to none.
    pub levels: Vec<Level>,
    pub selector: ClientSelector,
    /// `namespace/name`
    pub routes: Option<Vec<String>>,
    /// `namespace/name`
    pub backends: Option<Vec<String>>,
    pub time_zone: Option<String>,
    pub output: OutputSpec,
    pub when_short: WhenShort,
    pub max_wait_ms: u64,
    pub enforcement: Enforcement,
    pub on_cluster_loss: ClusterLoss,
    pub tiers: Vec<Tier>,
    pub alerts: AlertSpec,
    /// 0: the ledger's default.
    pub accounts_max: u32,
    pub price_fallback: Option<Price>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputSpec {
    pub default: u64,
    pub floor: u64,
    pub max: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AlertSpec {
    /// Percent of the limit, ascending.
    pub shares: Vec<u8>,
    pub webhook: Option<Webhook>,
}

/// Where alerts of a budget are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Webhook {
    pub url: String,
    /// The key that signs them.
    pub secret: Option<SecretRef>,
}

const OUTPUT_MAX_TOKENS: u64 = 10_000_000;
const MAX_WAIT_MS: u64 = 5 * 60_000;
const NAMES_MAX: usize = 64;
const LEVELS_MAX: usize = 8;
const TIERS_MAX: usize = 8;
const URL_MAX_BYTES: usize = 2048;

impl BudgetSpec {
    pub fn read(spec: &Cursor<'_>, namespace: &str) -> Option<Self> {
        let fields = spec.fields()?;
        let tenant = fields.get("tenant").map(|tenant| values::name(&tenant));
        let alerts = fields.get("alerts").map(|alerts| read_alerts(&alerts, namespace));
        let alerts = alerts.unwrap_or_else(|| Some(AlertSpec::default()));
        let levels = read_levels(&fields, alerts.as_ref().map_or(&[], |alerts| &alerts.shares));
        let Selected { client, routes, backends } = match fields.get("selector") {
            Some(selector) => read_selector(&selector, namespace),
            None => Selected::default(),
        };
        let time_zone = fields.get("timeZone").map(|zone| read_time_zone(&zone));
        let output = fields.get("output").map_or(Some(OutputSpec::default()), |output| read_output(&output));
        let when_short = fields.get("whenShort").map_or(Some(WhenShort::Deny), |when| {
            when.choice(&[("Deny", WhenShort::Deny), ("Clamp", WhenShort::Clamp)])
        });
        let max_wait_ms =
            fields.get("maxWait").map_or(Some(0), |wait| values::duration_ms(&wait, 0, MAX_WAIT_MS));
        let enforcement = fields.get("enforcement").map_or(Some(Enforcement::Reserve), |enforcement| {
            enforcement.choice(&[
                ("Reserve", Enforcement::Reserve),
                ("Count", Enforcement::Count),
                ("Shadow", Enforcement::Shadow),
                ("Lease", Enforcement::Lease),
            ])
        });
        let on_cluster_loss = fields
            .get("onClusterLoss")
            .map_or(Some(ClusterLoss::FailClosed), |loss| read_cluster_loss(&loss));
        let tiers = fields.get("tiers").map_or(Some(Vec::new()), |tiers| read_tiers(&tiers));
        let accounts_max =
            fields.get("accountsMax").map_or(Some(0), |max| max.integer(1, u64::from(u32::MAX)));
        let price_fallback = fields.get("priceFallback").map(|price| {
            let fields = price.fields()?;
            let price = read_price(&fields);
            fields.done();
            price
        });
        fields.done();
        Some(Self {
            tenant: optional(tenant)?,
            levels: levels?,
            selector: client,
            routes,
            backends,
            time_zone: optional(time_zone)?,
            output: output?,
            when_short: when_short?,
            max_wait_ms: max_wait_ms?,
            enforcement: enforcement?,
            on_cluster_loss: on_cluster_loss?,
            tiers: tiers?,
            alerts: alerts?,
            accounts_max: u32::try_from(accounts_max?).ok()?,
            price_fallback: optional(price_fallback)?,
        })
    }
}

/// Outer `None`: wrong; inner: absent.
#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn optional<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
        None => Some(None),
    }
}

/// Either `levels`, or the fields of one level in the spec itself.
fn read_levels(fields: &Fields<'_>, shares: &[u8]) -> Option<Vec<Level>> {
    let Some(list) = fields.get("levels") else {
        return Level::read_limits(fields, shares).map(|level| vec![level]);
    };
    for name in ["limit", "window", "subject", "carryOver"] {
        if let Some(field) = fields.get(name) {
            field.error("belongs to each of the levels");
        }
    }
    let mut levels: Vec<Level> = Vec::new();
    for item in list.items(LEVELS_MAX) {
        let Some(mut level) = Level::read(&item) else { continue };
        if levels.iter().any(|other| other.name == level.name) {
            item.error("another level has that name; give it its own");
        }
        level.alerts = shares.to_vec();
        levels.push(level);
    }
    if levels.is_empty() { list.refuse("no levels; one is needed") } else { Some(levels) }
}

/// Which requests a Budget counts.
#[derive(Default)]
struct Selected {
    client: ClientSelector,
    routes: Option<Vec<String>>,
    backends: Option<Vec<String>>,
}

/// What a client selector has, and by name: models, teams, users, keys, routes, backends.
fn read_selector(at: &Cursor<'_>, namespace: &str) -> Selected {
    let mut selected = Selected::default();
    let Some(fields) = at.fields() else { return selected };
    selected.client.read(&fields);
    for (name, attribute) in [
        ("models", Attribute::Header(MODEL_HEADER.to_owned())),
        ("teams", Attribute::Team),
        ("users", Attribute::User),
        ("keys", Attribute::Key),
    ] {
        if let Some(list) = fields.get(name) {
            let names: Vec<String> = list.items(NAMES_MAX).iter().filter_map(values::name).collect();
            match any_of(&names) {
                Some(value) => {
                    selected.client.conditions.push(Condition::Text { attribute, value, invert: false });
                }
                None => list.error("wanted: one or more names, together less than 1,000 bytes"),
            }
        }
    }
    selected.routes = fields.get("routes").map(|routes| full_names(&routes, namespace));
    selected.backends = fields.get("backends").map(|backends| {
        let mistakes = backends.report().mistakes();
        let names = full_names(&backends, namespace);
        if names.is_empty() && backends.report().mistakes() == mistakes {
            backends.error("wanted: one or more names of backends");
        }
        names
    });
    fields.done();
    selected
}

/// Each `name` or `namespace/name`.
fn full_names(at: &Cursor<'_>, namespace: &str) -> Vec<String> {
    let full = |at: Cursor<'_>| {
        let name = at.text()?;
        Some(if name.contains('/') { name.to_owned() } else { format!("{namespace}/{name}") })
    };
    at.items(NAMES_MAX).into_iter().filter_map(full).collect()
}

/// Exactly one of the names. `None`: none, or too many for a pattern.
pub(crate) fn any_of(names: &[String]) -> Option<TextMatch> {
    match names {
        [] => None,
        [one] => Some(TextMatch::Exact(one.clone())),
        many => {
            let escaped: Vec<String> = many.iter().map(|name| regex::escape(name)).collect();
            Pattern::new(&escaped.join("|")).ok().map(TextMatch::Pattern)
        }
    }
}

/// `{default, floor, max}`
fn read_output(at: &Cursor<'_>) -> Option<OutputSpec> {
    let fields = at.fields()?;
    let tokens = |at: Cursor<'_>| at.integer(1, OUTPUT_MAX_TOKENS);
    let max = fields.get("max").map(tokens);
    let default = fields.get("default").map(tokens);
    let floor = fields.get("floor").map(tokens);
    fields.done();
    let max = optional(max)?;
    let usual = OutputSpec::default();
    let default = default.unwrap_or(Some(usual.default.min(max.unwrap_or(usual.default))))?;
    let floor = floor.unwrap_or(Some(usual.floor.min(default)))?;
    if floor > default || max.is_some_and(|max| default > max) {
        return at.refuse(format!(
            "default {default}, floor {floor}{}; wanted: 1 <= floor <= default <= max",
            max.map(|max| format!(", max {max}")).unwrap_or_default()
        ));
    }
    Some(OutputSpec { default, floor, max })
}

impl Default for OutputSpec {
    fn default() -> Self {
        Self { default: 1024, floor: 16, max: None }
    }
}

/// `FailClosed`, or `{failOpen: {upTo}}`
fn read_cluster_loss(at: &Cursor<'_>) -> Option<ClusterLoss> {
    if at.scalar().is_some() {
        if at.node().text() == Some("FailOpen") {
            return at.refuse("FailOpen needs an amount: `failOpen: {upTo: 1000}`");
        }
        return at.choice(&[("FailClosed", ClusterLoss::FailClosed)]);
    }
    let fields = at.fields()?;
    let open = fields.get("failOpen").or_else(|| fields.get("FailOpen"));
    fields.done();
    let Some(open) = open else { return at.refuse("wanted: FailClosed, or `failOpen: {upTo: 1000}`") };
    let open = open.fields()?;
    let up_to = open.need("upTo").and_then(|up_to| values::amount(&up_to, Amount::ZERO));
    open.done();
    Some(ClusterLoss::FailOpen { up_to: up_to? })
}

/// `[{above: 50, model: gpt-4o}, {above: 20, model: gpt-4o-mini}, {action: Reject}]`
fn read_tiers(at: &Cursor<'_>) -> Option<Vec<Tier>> {
    let mut tiers: Vec<Tier> = Vec::new();
    let mistakes = at.report().mistakes();
    for item in at.items(TIERS_MAX) {
        let Some(tier) = read_tier(&item) else { continue };
        if tiers.last().is_some_and(|before| before.above_percent <= tier.above_percent) {
            item.error("tiers stand in descending order of above, each once; the last may leave it out");
        }
        tiers.push(tier);
    }
    (at.report().mistakes() == mistakes).then_some(tiers)
}

fn read_tier(at: &Cursor<'_>) -> Option<Tier> {
    let fields = at.fields()?;
    let above = fields.get("above").map_or(Some(0), |above| above.integer(0, 99));
    let model = fields.get("model").map(|model| values::name(&model));
    let action = fields.get("action").map(|action| action.choice(&[("Reject", false), ("Wait", true)]));
    fields.done();
    let action = match (model, action) {
        (Some(model), None) => TierAction::Model(model?),
        (None, Some(waits)) if waits? => TierAction::Wait,
        (None, Some(_)) => TierAction::Reject,
        _ => return at.refuse("wanted: either model: NAME, or action: Reject or Wait"),
    };
    Some(Tier { above_percent: u8::try_from(above?).ok()?, action })
}

/// `{shares, webhook: {url, secretRef}}`
fn read_alerts(at: &Cursor<'_>, namespace: &str) -> Option<AlertSpec> {
    let fields = at.fields()?;
    let shares = fields.need("shares").map(|shares| read_shares(&shares)).unwrap_or_default();
    let webhook = fields.get("webhook").map(|webhook| {
        let fields = webhook.fields()?;
        let url = fields.need("url").and_then(|url| read_url(&url));
        let secret = fields.get("secretRef").map(|secret| security::secret_ref(&secret, namespace, "key"));
        fields.done();
        Some(Webhook { url: url?, secret: optional(secret)? })
    });
    fields.done();
    Some(AlertSpec { shares, webhook: optional(webhook)? })
}

/// No user and password in it: the document is replicated and shown.
fn read_url(at: &Cursor<'_>) -> Option<String> {
    let url = at.text()?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let fine = url.len() <= URL_MAX_BYTES && url.bytes().all(|c| c.is_ascii_graphic());
    match authority {
        Some(authority) if authority.contains('@') => {
            at.refuse("a URL with user and password would be stored and shown; sign with secretRef")
        }
        Some(authority) if !authority.is_empty() && fine => Some(url.to_owned()),
        _ => at.expected("a URL such as https://hooks.example.com/budgets"),
    }
}

/// IANA's name of a zone.
fn read_time_zone(at: &Cursor<'_>) -> Option<String> {
    let name = at.text()?;
    let zones = jiff::tz::db();
    if zones.get(name).is_ok() {
        return Some(name.to_owned());
    }
    let known: Vec<String> = zones.available().map(|zone| zone.to_string()).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    at.report().unknown(
        at.node().at,
        at.path(),
        &format!("unknown time zone `{name}`, wanted something like Europe/Berlin"),
        name,
        &known,
    );
    None
}
