//! What each example manifest becomes: the budgets, routes and backends of `tests/lowered/`, line by line.
//!
//! With `UPDATE_LOWERED=1` the texts are written anew; look at the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

#[path = "../../../tests/support/shared.rs"]
mod shared;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use quorate_policy::Compiled;
use quorate_policy::manifests::{ManifestSet, Mode, Source};
use quorate_policy::runtime::{Budget, CelCost, Cost, Routing};
use shared::shared;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn parsed(files: &[(String, String)]) -> (ManifestSet, Vec<String>) {
    let sources: Vec<Source<'_>> = files.iter().map(|(name, text)| Source { name, text }).collect();
    ManifestSet::parse(&sources, Mode::Strict).unwrap_or_else(|errors| panic!("{errors}"))
}

fn cost(cost: &Cost) -> String {
    match cost {
        Cost::Cel(cel) => format!("cel {}", CelCost::as_str(cel)),
        Cost::Number(number) => format!("{number}"),
        other => format!("{other:?}"),
    }
}

fn budget(text: &mut String, budget: &Budget) {
    let rule = &budget.rule;
    writeln!(text, "budget {}", rule.name).unwrap();
    writeln!(text, "  {} {} per {:?}, {:?}", rule.limit, rule.unit.name(), rule.window, rule.enforcement)
        .unwrap();
    writeln!(text, "  cost {} + {} per request", cost(&budget.cost), budget.request_cost).unwrap();
    for condition in &budget.selector.conditions {
        writeln!(text, "  where {condition:?}").unwrap();
    }
    writeln!(text, "  subject {:?}", budget.subject).unwrap();
    if let Some(routes) = &budget.routes {
        writeln!(text, "  routes {routes:?}").unwrap();
    }
    if let Some(backends) = &budget.backends {
        writeln!(text, "  backends {}", backends.join(" ")).unwrap();
    }
    if budget.rule.tenant.is_some() || !rule.zone.is_empty() || !rule.alerts.is_empty() {
        writeln!(
            text,
            "  tenant {:?}, {} offsets, carry {:?}, alerts {:?}, accounts {}",
            rule.tenant,
            rule.zone.len(),
            rule.carry_over,
            rule.alerts,
            rule.accounts_max
        )
        .unwrap();
    }
    writeln!(
        text,
        "  output {}/{}/{:?}, {:?}, wait {} ms, {:?}, tiers {:?}",
        budget.output_default,
        budget.output_floor,
        budget.output_max,
        budget.when_short,
        budget.max_wait_ms,
        budget.on_cluster_loss,
        budget.tiers
    )
    .unwrap();
    writeln!(text, "  from {}", budget.explains).unwrap();
}

fn shown(warnings: &[String], compiled: &Compiled) -> String {
    let mut text = String::new();
    let policy = &compiled.policy;
    policy.all_budgets().iter().for_each(|one| budget(&mut text, one));
    for route in policy.routes() {
        writeln!(text, "route {} {:?}", route.name, route.hostnames).unwrap();
        for rule in &route.rules {
            writeln!(text, "  rule {:?} {:?}", rule.matches, rule.request_timeout_ms).unwrap();
            if rule.routing != Routing::default() {
                writeln!(text, "    {}", rule.routing).unwrap();
            }
            for backend in &rule.backends {
                writeln!(text, "    {backend:?}").unwrap();
            }
        }
    }
    for backend in policy.backends() {
        writeln!(text, "{backend:?}").unwrap();
    }
    if policy.identity().explicit {
        writeln!(text, "{:?}", policy.identity()).unwrap();
    }
    for (model, listed) in policy.prices().iter().filter(|(_, listed)| !listed.builtin) {
        writeln!(text, "price {model} {listed:?}").unwrap();
    }
    for alert in &compiled.alerts {
        writeln!(text, "{alert:?}").unwrap();
    }
    for warning in warnings.iter().chain(&compiled.warnings) {
        writeln!(text, "warning: {warning}").unwrap();
    }
    text
}

fn check(name: &str, files: &[(String, String)]) {
    let (set, warnings) = parsed(files);
    let compiled = set.compile_all().unwrap_or_else(|errors| panic!("{name}: {errors}"));
    let found = shown(&warnings, &compiled);
    let path = here().join("tests/lowered").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_LOWERED").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap();
    assert_eq!(found, wanted, "{name} is lowered to something else");

    // The document means the same, and so does what it is lowered to.
    let again = ManifestSet::from_document(&set.to_document()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(again.to_document(), set.to_document(), "{name}");
    assert_eq!(shown(&warnings, &again.compile_all().unwrap()), wanted, "{name} by way of its document");
}

#[test]
fn each_file_of_the_tutorial_applies_alone() {
    let Some(folder) = shared("manifests") else { return };
    for file in files(&folder) {
        let name = format!("tutorial-{}", file.0.trim_end_matches(".yaml"));
        check(&name, &[file]);
    }
}

#[test]
fn all_files_of_the_tutorial_apply_together() {
    let Some(folder) = shared("manifests") else { return };
    check("tutorial-all", &files(&folder));
}

#[test]
fn each_file_of_the_official_dialect_applies() {
    for file in files(&here().join("tests/official")) {
        let name = format!("official-{}", file.0.trim_end_matches(".yaml"));
        check(&name, &[file]);
    }
}

#[test]
fn each_file_of_our_own_kinds_applies() {
    for file in files(&here().join("tests/own")) {
        let name = format!("own-{}", file.0.trim_end_matches(".yaml"));
        check(&name, &[file]);
    }
}

#[test]
fn the_sample_policy_applies() {
    let text = fs::read_to_string(here().join("../../deploy/policy.yaml")).unwrap();
    check("sample", &[("policy.yaml".to_owned(), text)]);
}
