//! `quorate bench soak`: half of what the machine can do, for half an hour, with windows that roll over every second and
//! every minute, and a snapshot every few seconds. Is everything as it was?

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use comfy_table::Table;
use parking_lot::Mutex;
use serde::Serialize;

use crate::bench::cluster::{Cluster, Shape};
use crate::bench::http::ChatWork;
use crate::bench::load::{self, Lap, Load, Measured, Watched, Work};
use crate::bench::process::Process;
use crate::bench::report::Machine;
use crate::bench::scale::fit::{Line, Verdict};
use crate::bench::scale::plot::{Plot, Series};
use crate::bench::scale::walk::{Walk, policy};
use crate::bench::scale::{Findings, mib, watch};
use crate::output;

const SESSIONS: usize = 4;
const CLIENTS: usize = 512;
const CHAT_CLIENTS: usize = 64;
const TENANTS: u64 = 64;
const SUBJECTS: u64 = 16;
/// Of the search for the most.
const SHORT: Duration = Duration::from_secs(5);
/// Both kinds of load at a quarter of what each can do alone: half of the machine.
const SHARE: f64 = 0.25;
/// Of the load; more, and it was no half load.
const UNSENT_SHARE: f64 = 0.01;
/// Twelve closed windows of a minute, and the reservations of 70 s.
const WARM_UP: Duration = Duration::from_secs(14 * 60);
const INTERVALS: u32 = 180;
const INTERVAL_MIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Soak {
    pub duration: Duration,
    /// Operations of sessions and chat requests a second; `None`: half of the most, found in a short run.
    pub rate: Option<f64>,
    pub chat_rate: Option<f64>,
    /// Where each interval is written as it ends, a line of JSON each.
    pub lines: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
pub struct SoakFound {
    pub machine: Machine,
    pub rate: f64,
    pub chat_rate: f64,
    pub seconds: f64,
    pub warm_up_seconds: f64,
    pub errors: u64,
    pub first_error: Option<String>,
    pub unsent: u64,
    pub trends: Vec<Trend>,
    pub intervals: Vec<Interval>,
}

/// What was seen at the end of an interval.
#[derive(Debug, Clone, Serialize)]
pub struct Interval {
    pub seconds: f64,
    pub processes: Vec<Looked>,
    /// Of each node's data folder.
    pub disk_bytes: Vec<u64>,
    pub sessions: Answered,
    pub chat: Answered,
}

#[derive(Debug, Clone, Serialize)]
pub struct Looked {
    pub process: String,
    pub resident_bytes: u64,
    pub open_files: usize,
    /// Of CPU time since it started.
    pub cpu_seconds: f64,
    /// CPUs that it kept busy in the interval; `None`: in the first one.
    pub cpus: Option<f64>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Answered {
    pub operations: u64,
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub errors: u64,
}

/// How something went after the warm-up.
#[derive(Debug, Clone, Serialize)]
pub struct Trend {
    pub what: String,
    pub unit: &'static str,
    pub mean: f64,
    pub by_hour: Option<Line>,
    pub verdict: Verdict,
}

impl Answered {
    fn of(lap: &Lap) -> Self {
        Self {
            operations: lap.latency.len(),
            p50_micros: lap.latency.value_at_quantile(0.5),
            p99_micros: lap.latency.value_at_quantile(0.99),
            errors: lap.errors,
        }
    }
}

impl Soak {
    /// # Errors
    /// The cluster does not start, nothing succeeds, or a file cannot be written.
    pub async fn run(self, progress: impl Fn(&str)) -> Result<SoakFound> {
        let policy = [policy(["each-second"], "window: Second"), policy(["each-minute"], "window: Minute")];
        let cluster = Cluster::start_as(&Shape { policy: policy.join("---\n"), ..Shape::default() }).await?;
        let budgets = vec!["each-second".to_owned(), "each-minute".to_owned()];
        let walk = Arc::new(Walk::new(&cluster, SESSIONS, budgets).over(TENANTS, SUBJECTS));
        let chat = Arc::new(ChatWork::new(&cluster.gateways[0], false, usize::try_from(TENANTS)?)?);
        progress("the most of each kind of load, for a short time");
        let rate = self.rate_of(self.rate, &walk, CLIENTS).await?;
        let chat_rate = self.rate_of(self.chat_rate, &chat, CHAT_CLIENTS).await?;
        progress(&format!(
            "{rate:.0} operations and {chat_rate:.0} chat requests a second, {:.0} s",
            self.duration.as_secs_f64()
        ));

        let every = (self.duration / INTERVALS).max(INTERVAL_MIN);
        let mut lines = self.lines.as_deref().map(create).transpose()?;
        let newest: Arc<Mutex<Answered>> = Arc::default();
        let latest = newest.clone();
        let none = Watched::default();
        let chatting = load::run_in_laps(chat, self.load(CHAT_CLIENTS, chat_rate), &none, every, |lap| {
            *newest.lock() = Answered::of(&lap);
        });
        let mut intervals = Vec::new();
        let working = load::run_in_laps(walk, self.load(CLIENTS, rate), &none, every, |lap| {
            let interval = look(&cluster, &lap, latest.lock().clone(), intervals.last());
            if let (Some(file), Ok(line)) = (&mut lines, serde_json::to_string(&interval)) {
                // What cannot be written is in the summary still.
                let _ = writeln!(file, "{line}");
            }
            intervals.push(interval);
        });
        let (worked, chatted) = tokio::try_join!(working, chatting)?;
        cluster.stop().await;
        Ok(self.summary(intervals, [worked, chatted], rate, chat_rate))
    }

    fn load(&self, clients: usize, rate: f64) -> Load {
        let warm_up = Duration::from_secs(1);
        Load { clients, rate: Some(rate), duration: self.duration, warm_up, operations_max: None }
    }

    async fn rate_of<W: Work>(&self, given: Option<f64>, work: &Arc<W>, clients: usize) -> Result<f64> {
        if let Some(rate) = given {
            return Ok(rate);
        }
        let warm_up = Duration::from_secs(1);
        let duration = SHORT.min(self.duration);
        let load = Load { clients, rate: None, duration, warm_up, operations_max: None };
        let most = load::run(work.clone(), load, &Watched::default()).await?;
        let most_rate = most.latency.len() as f64 / most.seconds.max(f64::EPSILON);
        let error = || most.first_error.clone().unwrap_or_else(|| "nothing was answered".to_owned());
        if most_rate < 1.0 {
            anyhow::bail!("no load to take half of: {}", error());
        }
        Ok(SHARE * most_rate)
    }

    fn summary(
        &self,
        intervals: Vec<Interval>,
        loads: [Measured; 2],
        rate: f64,
        chat_rate: f64,
    ) -> SoakFound {
        let warm_up_seconds = (self.duration / 2).min(WARM_UP).as_secs_f64();
        let [worked, chatted] = loads;
        SoakFound {
            machine: Machine::default(),
            rate,
            chat_rate,
            seconds: worked.seconds,
            warm_up_seconds,
            errors: worked.errors + chatted.errors,
            first_error: worked.first_error.or(chatted.first_error),
            unsent: worked.unsent + chatted.unsent,
            trends: trends(&intervals, warm_up_seconds),
            intervals,
        }
    }
}

fn create(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn look(cluster: &Cluster, lap: &Lap, chat: Answered, before: Option<&Interval>) -> Interval {
    let Watched { nodes, gateways, provider } = cluster.watched();
    let numbered = |kind: &str, processes: Vec<Process>| {
        let names = (1..).map(|number| format!("{kind}-{number}"));
        names.zip(processes).collect::<Vec<(String, Process)>>()
    };
    let mut processes = numbered("node", nodes);
    processes.extend(numbered("gateway", gateways));
    processes.extend(provider.into_iter().map(|process| ("provider".to_owned(), process)));
    processes.push(("load".to_owned(), Process::this()));
    let disk = |index| watch::disk_bytes(&cluster.data_folder(index));
    let looked = |(index, (name, process)): (usize, (String, Process))| {
        let before = before.and_then(|before| Some((before.seconds, before.processes.get(index)?)));
        Looked::at(name, process, lap.end, before)
    };
    Interval {
        seconds: lap.end,
        processes: processes.into_iter().enumerate().map(looked).collect(),
        disk_bytes: (0..cluster.nodes.len()).map(disk).collect(),
        sessions: Answered::of(lap),
        chat,
    }
}

impl Looked {
    /// `before`: what was seen last, and at which second.
    fn at(process: String, id: Process, seconds: f64, before: Option<(f64, &Self)>) -> Self {
        let cpu_seconds = id.cpu().unwrap_or_default().as_secs_f64();
        Self {
            process,
            resident_bytes: id.resident_bytes().unwrap_or(0),
            open_files: id.open_files().unwrap_or(0),
            cpu_seconds,
            cpus: before.map(|(then, before)| (cpu_seconds - before.cpu_seconds) / (seconds - then)),
        }
    }
}

/// One thing that is looked at: its name, its unit, and its value in an interval.
type Curve = (String, &'static str, Box<dyn Fn(&Interval) -> Option<f64>>);

/// The same of a process.
type OfProcess = (&'static str, &'static str, fn(&Looked) -> Option<f64>);

fn curves(first: &Interval) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    let of_processes: [OfProcess; 3] = [
        ("memory", "MiB", |looked| Some(mib(looked.resident_bytes as f64))),
        ("CPU", "CPUs", |looked| looked.cpus),
        ("open files", "files", |looked| Some(looked.open_files as f64)),
    ];
    for (what, unit, value) in of_processes {
        for (index, looked) in first.processes.iter().enumerate() {
            let value = move |one: &Interval| value(one.processes.get(index)?);
            curves.push((format!("{what} of {}", looked.process), unit, Box::new(value)));
        }
    }
    for index in 0..first.disk_bytes.len() {
        let disk = move |one: &Interval| Some(mib(*one.disk_bytes.get(index)? as f64));
        curves.push((format!("data of node-{}", index + 1), "MiB", Box::new(disk)));
    }
    let ms = |micros: u64| Some(micros as f64 / 1e3);
    curves.push(("sessions, p50".to_owned(), "ms", Box::new(move |one| ms(one.sessions.p50_micros))));
    curves.push(("sessions, p99".to_owned(), "ms", Box::new(move |one| ms(one.sessions.p99_micros))));
    curves.push(("chat, p50".to_owned(), "ms", Box::new(move |one| ms(one.chat.p50_micros))));
    curves.push(("chat, p99".to_owned(), "ms", Box::new(move |one| ms(one.chat.p99_micros))));
    curves
}

fn trends(intervals: &[Interval], from_seconds: f64) -> Vec<Trend> {
    let late: Vec<&Interval> = intervals.iter().filter(|one| one.seconds > from_seconds).collect();
    let Some(first) = late.first() else { return Vec::new() };
    let trend = |(what, unit, value): Curve| {
        let points: Vec<(f64, f64)> =
            late.iter().filter_map(|one| Some((one.seconds / 3_600.0, value(one)?))).collect();
        let mean = points.iter().map(|point| point.1).sum::<f64>() / points.len().max(1) as f64;
        let by_hour = Line::through(&points);
        let hours = points.last().map_or(0.0, |last| last.0) - points.first().map_or(0.0, |first| first.0);
        let verdict = by_hour.map_or(Verdict::Flat, |line| Verdict::of(line, mean, hours));
        Trend { what, unit, mean, by_hour, verdict }
    };
    curves(first).into_iter().map(trend).collect()
}

impl Findings for SoakFound {
    const NAME: &'static str = "soak";

    fn table(&self) -> Table {
        let mut table = output::table(&["WHAT", "MEAN", "BY THE HOUR", "±", "VERDICT"]);
        for trend in &self.trends {
            let by = |part: fn(Line) -> f64| {
                trend.by_hour.map_or_else(|| "-".to_owned(), |line| format!("{:.2}", part(line)))
            };
            table.add_row([
                trend.what.clone(),
                format!("{:.2} {}", trend.mean, trend.unit),
                by(|line| line.slope),
                by(|line| line.slope_error),
                trend.verdict.word().to_owned(),
            ]);
        }
        table
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            format!("{} CPUs, {}", self.machine.cpus, self.machine.model),
            format!(
                "{:.0} operations and {:.0} chat requests a second for {:.0} s; {} errors, {} could not be sent; fitted after {:.0} s",
                self.rate, self.chat_rate, self.seconds, self.errors, self.unsent, self.warm_up_seconds
            ),
        ];
        if self.unsent as f64 > UNSENT_SHARE * (self.rate + self.chat_rate) * self.seconds {
            notes.push(
                "the machine did not keep up with this load: it says little; give --rate and --chat-rate"
                    .to_owned(),
            );
        }
        notes.extend(self.first_error.iter().map(|error| format!("the first error: {error}")));
        let growing: Vec<&str> = self
            .trends
            .iter()
            .filter(|trend| trend.verdict == Verdict::Grows)
            .map(|trend| trend.what.as_str())
            .collect();
        notes.push(if growing.is_empty() {
            "nothing grows".to_owned()
        } else {
            format!("grows: {}", growing.join(", "))
        });
        notes
    }

    fn plots(&self) -> Vec<(String, Plot)> {
        let Some(first) = self.intervals.first() else { return Vec::new() };
        let mut plots = Vec::new();
        for (name, title, beginning, unit) in [
            ("memory", "Resident memory", "memory of ", "MiB"),
            ("cpu", "CPUs kept busy, each interval", "CPU of ", "CPUs"),
            ("files", "Open files", "open files of ", "files"),
            ("disk", "Data folders", "data of ", "MiB"),
            ("sessions", "Latency of sessions, each interval", "sessions, ", "ms"),
            ("chat", "Latency of chat requests, each interval", "chat, ", "ms"),
        ] {
            let wanted = curves(first).into_iter().filter(|(what, ..)| what.starts_with(beginning));
            let series = wanted.map(|(what, _, value)| Series {
                name: what.trim_start_matches(beginning).to_owned(),
                points: self
                    .intervals
                    .iter()
                    .filter_map(|one| Some((one.seconds / 60.0, value(one)?)))
                    .collect(),
            });
            let plot = Plot {
                title: title.to_owned(),
                x_label: "minutes".to_owned(),
                y_label: unit.to_owned(),
                x_log: false,
                series: series.collect(),
            };
            plots.push((name.to_owned(), plot));
        }
        plots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(seconds: f64, mib: u64) -> Interval {
        let looked = |process: &str, mib: u64| Looked {
            process: process.to_owned(),
            resident_bytes: mib << 20,
            open_files: 9,
            cpu_seconds: seconds,
            cpus: Some(1.0),
        };
        Interval {
            seconds,
            processes: vec![looked("node-1", mib), looked("load", 50)],
            disk_bytes: vec![1 << 30],
            sessions: Answered::default(),
            chat: Answered::default(),
        }
    }

    #[test]
    fn what_grows_is_found_and_the_warm_up_does_not_count() {
        let grown = |seconds: u32| if seconds < 900 { 2 * u64::from(seconds) } else { 1_800 };
        let intervals: Vec<Interval> =
            (1..=180).map(|number| interval(f64::from(number * 10), grown(number * 10))).collect();
        let verdict = |from| {
            let trends = trends(&intervals, from);
            let node = trends.iter().find(|trend| trend.what == "memory of node-1").unwrap();
            assert!(
                trends
                    .iter()
                    .filter(|trend| trend.what != node.what)
                    .all(|trend| trend.verdict == Verdict::Flat)
            );
            node.verdict
        };
        assert_eq!(verdict(900.0), Verdict::Flat);
        assert_eq!(verdict(0.0), Verdict::Grows);
        assert!(trends(&intervals, 1e9).is_empty());
    }

    #[test]
    fn every_kind_of_curve_is_drawn() {
        let (intervals, machine) = (vec![interval(1.0, 1), interval(2.0, 2)], Machine::default());
        let found = SoakFound {
            machine,
            rate: 1.0,
            chat_rate: 1.0,
            seconds: 2.0,
            warm_up_seconds: 1.0,
            errors: 0,
            first_error: None,
            unsent: 0,
            trends: Vec::new(),
            intervals,
        };
        let plots = found.plots();
        assert_eq!(plots.len(), 6);
        assert!(plots.iter().all(|(name, plot)| !plot.series.is_empty() && !name.is_empty()));
    }
}
