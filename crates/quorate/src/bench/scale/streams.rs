//! What an open stream costs a gateway: many answers of a slow provider, held open, and nothing else to do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use hyper::Response;
use hyper::body::Incoming;
use parking_lot::Mutex;

use crate::bench::cluster::Cluster;
use crate::bench::http::ChatWork;
use crate::bench::load::{self, Load, Watched, Work as _};
use crate::bench::process::Process;
use crate::bench::scale::memory::Weight;
use crate::bench::scale::walk::for_each;
use crate::bench::scale::watch;

const STEPS: usize = 4;
const TENANTS: usize = 16;
/// Sixteen pieces, a while before each: a stream is open for more than a minute, and takes one piece's time to begin.
const SLOWLY: &str = "mock:chunk-ms=4000";
/// A stream takes two of a gateway's files; it needs others too.
const FILES_SPARED: usize = 200;
const WARM_UP: Duration = Duration::from_secs(2);

/// # Errors
/// The cluster does not start, a stream cannot be opened, or memory cannot be read here.
pub async fn weigh(streams: usize) -> Result<Vec<Weight>> {
    let files = Process::this().open_files_max().unwrap_or(1_024);
    let streams = streams.min(files.saturating_sub(FILES_SPARED) / 2) / STEPS * STEPS;
    if streams == 0 {
        bail!("too few files may be open at the same time ({files}); raise it with `ulimit -n`");
    }
    let cluster = Cluster::start().await?;
    let warm_up =
        Load { clients: 64, rate: None, duration: WARM_UP, warm_up: Duration::ZERO, operations_max: None };
    let requests = ChatWork::new(&cluster.gateways[0], true, TENANTS)?;
    load::run(Arc::new(requests), warm_up, &Watched::default()).await?;
    let work = Arc::new(ChatWork::with_text(&cluster.gateways[0], true, TENANTS, SLOWLY)?);
    let gateways = cluster.watched().gateways;
    let open: Arc<Mutex<Vec<Response<Incoming>>>> = Arc::default();
    let mut steps = vec![(0, watch::resident_at_rest(&gateways).await?[0])];
    let each = (streams / STEPS) as u64;
    for step in 1..=STEPS as u64 {
        let (work, open) = (work.clone(), open.clone());
        // All of a step at once, because each takes its time.
        for_each(each * (step - 1)..each * step, each, move |number| {
            let (work, open) = (work.clone(), open.clone());
            async move {
                let caller = work.client(usize::try_from(number).unwrap_or(0));
                let answer = work.open(&caller).await.map_err(|error| format!("{error:#}"))?;
                if !answer.status().is_success() {
                    return Err(format!("a stream was answered with {}", answer.status()));
                }
                open.lock().push(answer);
                Ok(())
            }
        })
        .await?;
        steps.push((each * step, watch::resident_at_rest(&gateways).await?[0]));
    }
    drop(std::mem::take(&mut *open.lock()));
    cluster.stop().await;
    Ok(vec![Weight::new("open stream", "gateway".to_owned(), &steps)])
}
