//! How answers are printed: tables for people, JSON and YAML for programs.

use anyhow::Result;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use quorate_rpc::budget::Unit;
use serde::Serialize;

#[derive(Debug, Clone, Args)]
pub struct OutputOptions {
    /// How to print; `wide` is a table with more columns
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}

impl OutputOptions {
    /// Prints `value` as it is for programs, or as `table` for people.
    ///
    /// # Errors
    /// The value cannot be written in that format.
    pub fn print<T: Serialize>(&self, value: &T, table: impl FnOnce() -> Table) -> Result<()> {
        match self.output {
            Format::Table | Format::Wide => println!("{}", table()),
            Format::Json => println!("{}", serde_json::to_string_pretty(value)?),
            // By way of JSON: YAML here knows no bytes.
            Format::Yaml => print!("{}", serde_yaml_ng::to_string(&serde_json::to_value(value)?)?),
        }
        Ok(())
    }
}

pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    table
}

/// Millionths as units, with separators: `1,234`, `0.25`.
pub fn units(micros: u64) -> String {
    let (whole, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let digits = whole.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction > 0 {
        grouped.push('.');
        grouped.push_str(format!("{fraction:06}").trim_end_matches('0'));
    }
    grouped
}

/// An amount in its unit: tokens and cost units as numbers, dollars with their sign.
pub fn amount(micros: u64, unit: Unit) -> String {
    match unit {
        Unit::Dollars => format!("${}", units(micros)),
        _ => units(micros),
    }
}

/// `-` where a cell would be empty.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A point in time, UTC; `never` for 0.
pub fn time(unix_ms: u64) -> String {
    match i64::try_from(unix_ms)
        .ok()
        .filter(|ms| *ms > 0)
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
    {
        Some(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        None => "never".to_owned(),
    }
}

/// `3d`, `2h`, `45s`.
pub fn duration(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// `1 tenant`, `2 tenants`.
pub fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Bytes in KiB, MiB or GiB.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{} GiB", bytes / 1_073_741_824),
    }
}
