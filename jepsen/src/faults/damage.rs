//! Files of a stopped node that are not what it wrote. It must either start and serve what is right, or refuse and say
//! that its folder is damaged; then it is rebuilt by its peers. Never more than one node at a time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::choose::{self, Who};
use super::{Doing, Fault};
use crate::deploy::{Deployment, Ending};

/// What a node that finds its folder damaged says, at its start or later.
const DAMAGED: Ending = &["is damaged"];
const MEMBER_WITHIN: Duration = Duration::from_secs(60);
const WELL_WITHIN: Duration = Duration::from_secs(2);
const TAIL_BYTES: std::ops::RangeInclusive<u64> = 1..=4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The last bytes of the log are missing, or are zeros or something else.
    TornTail,
    /// Some bytes in the middle of the log are something else.
    Log,
    /// Some bytes in the newest snapshot are something else.
    Snapshot,
}

#[derive(Debug)]
pub struct Damage {
    pub name: &'static str,
    pub what: What,
    pub hit: Option<u64>,
}

impl Fault for Damage {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let id = choose::one(deployment, Who::One, random).await?;
            self.hit = Some(id);
            deployment.node_may_end(id, DAMAGED);
            deployment.kill_node(id);
            let data = deployment.node_data(id)?;
            let done = match self.what {
                What::TornTail => tear(&data.join("log/db"), random),
                What::Log => corrupt(&data.join("log/db"), random),
                What::Snapshot => match newest_snapshot(&data)? {
                    Some(path) => corrupt(&path, random),
                    None => Ok("it has no snapshot yet: nothing was damaged".to_owned()),
                },
            };
            // Also when nothing could be damaged.
            deployment.start_node(id)?;
            Ok(format!("killed node {id}, {}, started it", done?))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let Some(id) = self.hit.take() else { return Ok("nothing to heal".to_owned()) };
            let mut rebuilt = 0;
            let deadline = Instant::now() + MEMBER_WITHIN;
            loop {
                if !deployment.runs(id) {
                    if rebuilt > 0 {
                        bail!("node {id} ended again, although its data was taken away");
                    }
                    rebuilt += 1;
                    deployment.lose_data(id)?;
                    deployment.start_node(id)?;
                }
                match deployment.wait_until_well(WELL_WITHIN).await {
                    Ok(_) => break,
                    Err(error) if Instant::now() > deadline => {
                        return Err(error.context(format!("node {id} is no full member again")));
                    }
                    Err(_) => {}
                }
            }
            deployment.node_must_run(id);
            let how = if rebuilt > 0 {
                "refused its folder and was rebuilt by its peers"
            } else {
                "went on with its folder"
            };
            Ok(format!("node {id} {how}"))
        })
    }
}

/// Imitates a last write that did not reach the disk whole.
fn tear(path: &Path, random: &mut StdRng) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    let torn = random.random_range(TAIL_BYTES).min(end);
    let (from, file) = (end - torn, File::options().write(true).open(path)?);
    let length = usize::try_from(torn)?;
    let how = match random.random_range(0..3) {
        0 => {
            file.set_len(from)?;
            "cut off"
        }
        1 => {
            file.write_all_at(&vec![0; length], from)?;
            "made zeros of"
        }
        _ => {
            let other: Vec<u8> = (0..length).map(|_| random.random()).collect();
            file.write_all_at(&other, from)?;
            "overwrote"
        }
    };
    Ok(format!("{how} the last {torn} bytes of {} ({end} in all)", name(path)))
}

/// Flips some bytes that are not padding.
fn corrupt(path: &Path, random: &mut StdRng) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let used: Vec<usize> = (0..bytes.len()).step_by(64).filter(|at| bytes[*at] != 0).collect();
    if used.is_empty() {
        bail!("{} has nothing in it", path.display());
    }
    let at = used[random.random_range(0..used.len())];
    let end = (at + random.random_range(1..=16)).min(bytes.len());
    let flipped: Vec<u8> = bytes[at..end].iter().map(|byte| byte ^ random.random_range(1..=255)).collect();
    File::options().write(true).open(path)?.write_all_at(&flipped, at as u64)?;
    Ok(format!("changed {} bytes at {at} of {} ({} in all)", end - at, name(path), bytes.len()))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn newest_snapshot(data: &Path) -> Result<Option<PathBuf>> {
    let Ok(entries) = fs::read_dir(data.join("snapshots")) else { return Ok(None) };
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot")).max())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn damage_changes_the_file_and_only_where_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let mut whole = vec![7; 10_000];
        whole.resize(20_000, 0);
        for seed in 0..30 {
            let mut random = StdRng::seed_from_u64(seed);
            fs::write(&path, &whole).unwrap();
            let said = tear(&path, &mut random).unwrap();
            let torn = fs::read(&path).unwrap();
            assert_ne!(torn, whole, "{said}");
            assert_eq!(torn[..5_000], whole[..5_000], "{said}");
            fs::write(&path, &whole).unwrap();
            let said = corrupt(&path, &mut random).unwrap();
            let corrupted = fs::read(&path).unwrap();
            let different = whole.iter().zip(&corrupted).filter(|(before, after)| before != after).count();
            assert!((1..=16).contains(&different), "{said}");
            assert_eq!(corrupted[10_016..], whole[10_016..], "{said}");
        }
    }

    #[test]
    fn an_empty_log_cannot_be_corrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, [0; 100]).unwrap();
        assert!(corrupt(&path, &mut StdRng::seed_from_u64(1)).is_err());
    }
}
