//! Workload `windows`: reservations in budgets whose windows roll over all the time, settled soon, late, after their deadline
//! or never. What must hold is in `windows_check`. Clocks that disagree are a fault, not this file's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::{BoxFuture, join_all};
use quorate_ledger::{Amount, Charge, Command, Outcome, ReservationId};
use quorate_rpc::Executed;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::windows_check::{
    self, BUDGETS, DENIED, MICROS, RELEASE, RESERVE, Reserve, Reserved, Resolve, Resolved, SETTLE,
};
use super::{Context, Workload, account_reads, budget};
use crate::check::Verdict;
use crate::client::{CALL, Ending, Ids, Nodes, Via};
use crate::deploy::Deployment;
use crate::history::{History, Pending};

pub const NAME: &str = "windows";
const SUBJECTS: u64 = 3;
/// Between two operations of a client, on average.
const PAUSE_MS: u64 = 150;
/// Each answer holds a minute of windows.
const ACCOUNTS_EVERY: Duration = Duration::from_millis(1_500);
const RESOLVED_WITHIN: Duration = Duration::from_secs(30);
/// The same operation, same id, is sent so often: an election takes a while.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub struct Windows;

impl Workload for Windows {
    fn name(&self) -> &'static str {
        NAME
    }

    fn policy(&self, _deployment: &Deployment) -> String {
        let budget =
            |(name, window, tokens): (&str, &str, u64)| budget(NAME, name, "user", tokens, window, "");
        let [second, minute, sliding] = BUDGETS;
        [(second, "Second", 300), (minute, "Minute", 9_000), (sliding, "{sliding: 5s}", 1_000)]
            .map(budget)
            .join("---\n")
    }

    fn drive(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let clients = join_all((0..context.clients.max(1)).map(|number| {
                let nodes = Nodes::new(&context.deployment, Via::Unary);
                let ids = Ids::follow(&context.deployment);
                let random = StdRng::seed_from_u64(context.seed ^ (0x31d0 << 32) ^ number as u64);
                Client { nodes, ids, random, open: VecDeque::new() }.run(context.clone())
            }));
            tokio::join!(clients, account_reads::watch(&context, NAME, ACCOUNTS_EVERY));
            Ok(())
        })
    }

    fn finish(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            account_reads::wait_until_resolved(&context.deployment, NAME, RESOLVED_WITHIN).await?;
            account_reads::last(&context, NAME).await
        })
    }

    fn check(&self, history: &History) -> Verdict {
        windows_check::check(history)
    }
}

struct Client {
    nodes: Nodes,
    ids: Ids,
    random: StdRng,
    /// To be resolved, each at its time.
    open: VecDeque<Open>,
}

struct Open {
    id: ReservationId,
    amount: u64,
    due: Instant,
}

impl Client {
    async fn run(mut self, context: Context) {
        let mut process = context.recorder.process();
        while !context.stop.is_cancelled() {
            let due = self.open.iter().position(|open| open.due <= Instant::now());
            let known = match due.and_then(|place| self.open.remove(place)) {
                Some(open) => self.resolve(&context, process, &open).await,
                None => self.reserve(&context, process).await,
            };
            if !known {
                process = context.recorder.process();
            }
            let pause = self.random.random_range(PAUSE_MS / 2..PAUSE_MS * 3 / 2);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// False if the process is used up.
    async fn reserve(&mut self, context: &Context, process: u64) -> bool {
        let id = self.ids.next(&mut self.random);
        let call = Reserve {
            id: format!("{:032x}", id.as_u128()),
            subject: format!("{NAME}-{}", self.random.random_range(0..SUBJECTS)),
            amount: self.random.random_range(5..60) * MICROS,
            ttl_ms: self.random.random_range(500..4_000),
        };
        let Ok(amount) = Amount::from_micros(call.amount) else { return true };
        let charge = |budget: &str| Charge {
            budget: budget.to_owned(),
            subject: call.subject.clone(),
            amount,
            at_least: amount,
        };
        let command = Command::Reserve {
            tenant: NAME.to_owned(),
            id,
            charges: BUDGETS.into_iter().map(charge).collect(),
            ttl_ms: call.ttl_ms,
            wait: false,
        };
        let pending = context.recorder.invoke(NAME, process, RESERVE, &call);
        let Some((executed, tries, pending)) = self.send(&command, pending).await else { return false };
        let mut reserved = Reserved { log_index: executed.log_index, tries, ..Reserved::default() };
        match executed.outcome {
            Outcome::Granted(grant) => {
                reserved.deadline_ms = Some(grant.deadline.0);
                reserved.resets = grant
                    .balances
                    .iter()
                    .map(|balance| (balance.budget.clone(), balance.resets_at.map_or(0, |at| at.0)))
                    .collect();
                // A tenth is left to expire; some are settled when they have.
                if self.random.random_bool(0.9) {
                    let wait = Duration::from_millis(self.random.random_range(0..3_000));
                    self.open.push_back(Open { id, amount: call.amount, due: Instant::now() + wait });
                }
            }
            // Not in the log: what was sent before and had no answer may still be granted.
            Outcome::Denied(_) if tries > 1 && executed.log_index == 0 => {
                pending.unknown("denied from applied state, after a try without an answer");
                return false;
            }
            Outcome::Denied(denial) => reserved.why = format!("{DENIED}: {}", denial.account.budget),
            other => reserved.why = format!("{other:?}"),
        }
        pending.ok(&reserved);
        true
    }

    async fn resolve(&mut self, context: &Context, process: u64, open: &Open) -> bool {
        let (tenant, id) = (NAME.to_owned(), open.id);
        let actual = self.random.random_bool(0.85).then(|| match self.random.random_range(0..10) {
            0 => open.amount + self.random.random_range(1..5) * MICROS,
            _ => self.random.random_range(0..=open.amount / MICROS) * MICROS,
        });
        let call = Resolve { id: format!("{:032x}", id.as_u128()), actual };
        let amount = actual.and_then(|actual| Amount::from_micros(actual).ok());
        let (f, command) = match amount {
            Some(amount) => {
                let actual = vec![amount; BUDGETS.len()];
                (SETTLE, Command::Settle { tenant, id, actual, estimated: false })
            }
            None => (RELEASE, Command::Release { tenant, id }),
        };
        let pending = context.recorder.invoke(NAME, process, f, &call);
        let Some((executed, tries, pending)) = self.send(&command, pending).await else { return false };
        let done = matches!(executed.outcome, Outcome::Settled(_) | Outcome::Released);
        let why = if done { String::new() } else { format!("{:?}", executed.outcome) };
        pending.ok(&Resolved { done, why, log_index: executed.log_index, tries });
        true
    }

    /// Sends the same operation until somebody decides. Otherwise its end is told here.
    async fn send(&mut self, command: &Command, pending: Pending) -> Option<(Executed, u32, Pending)> {
        let (mut maybe_taken, mut reason) = (false, String::new());
        // Only those that may have been taken up count as tries.
        let mut tries = 1;
        for _ in 0..TRIES {
            let Some(node) = self.nodes.any(&mut self.random) else { break };
            match node.execute(command, CALL).await {
                Ending::Ok(executed) => return Some((executed, tries, pending)),
                Ending::Fail(why) => reason = why,
                Ending::Unknown(why) => {
                    (maybe_taken, reason) = (true, why);
                    tries += 1;
                }
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        if maybe_taken {
            pending.unknown(&reason);
            None
        } else {
            pending.fail(&reason);
            None
        }
    }
}
