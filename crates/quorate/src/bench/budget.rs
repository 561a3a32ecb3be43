//! Operations on the budget service: each client reserves, then settles what it reserved, and so on.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_ledger::{Amount, Charge, Command, Outcome, ReservationId};
use quorate_rpc::budget::budget_client::BudgetClient;
use quorate_rpc::{Client, ClientConfig, convert};
use tonic::transport::Channel;

use crate::bench::Place;
use crate::bench::load::Work;

const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT_MS: u32 = 10_000;
const TTL_MS: u64 = 60_000;
const RESERVED_UNITS: u64 = 100;
const SPENT_UNITS: u64 = 60;

/// How operations travel.
#[derive(Debug)]
enum Way {
    /// Session streams, several of them: one is a single task at either end.
    Sessions(Vec<Client>),
    /// One call for each operation.
    Unary(Vec<BudgetClient<Channel>>),
}

#[derive(Debug)]
pub struct BudgetWork {
    way: Way,
    /// Makes ids.
    ids: Client,
    budget: String,
    tenants: usize,
}

/// One client of the load, and the reservation it holds.
#[derive(Debug)]
pub struct Spender {
    number: usize,
    tenant: String,
    holds: Option<ReservationId>,
}

impl BudgetWork {
    /// # Errors
    /// A node's address is none.
    pub fn sessions(place: &Place, sessions: usize, tenants: usize) -> Result<Self> {
        let clients = (0..sessions.max(1)).map(|number| client(place, number)).collect();
        Ok(Self {
            way: Way::Sessions(clients),
            ids: client(place, 0),
            budget: place.budget.clone(),
            tenants: tenants.max(1),
        })
    }

    /// Asks the leader directly, as a client that has found it would.
    ///
    /// # Errors
    /// No node leads, or its address is none.
    pub async fn unary(place: &Place, connections: usize, tenants: usize) -> Result<Self> {
        let leader = leader(place).await?;
        let connect = |_| Ok(BudgetClient::new(quorate_rpc::channel(&leader, &place.security)?));
        let clients = (0..connections.max(1)).map(connect).collect::<Result<_>>()?;
        Ok(Self {
            way: Way::Unary(clients),
            ids: client(place, 0),
            budget: place.budget.clone(),
            tenants: tenants.max(1),
        })
    }

    /// What the client does next: settle what it holds, or reserve.
    fn next(&self, spender: &Spender) -> Result<Command, String> {
        let units = |units| Amount::from_units(units).map_err(|error| error.to_string());
        let tenant = spender.tenant.clone();
        if let Some(id) = spender.holds {
            return Ok(Command::Settle { tenant, id, actual: vec![units(SPENT_UNITS)?], estimated: false });
        }
        let amount = units(RESERVED_UNITS)?;
        let charge = Charge { budget: self.budget.clone(), subject: String::new(), amount, at_least: amount };
        Ok(Command::Reserve {
            tenant,
            id: self.ids.new_id(),
            charges: vec![charge],
            ttl_ms: TTL_MS,
            wait: false,
        })
    }

    async fn execute(&self, spender: &Spender, command: Command) -> Result<Outcome, String> {
        match &self.way {
            Way::Sessions(clients) => {
                let client = &clients[spender.number % clients.len()];
                let executed = client.execute(command, TIMEOUT).await.map_err(|error| error.to_string())?;
                Ok(executed.outcome)
            }
            Way::Unary(clients) => {
                let mut client = clients[spender.number % clients.len()].clone();
                let operation =
                    convert::operation(&command, TIMEOUT_MS).ok_or("no operation of the budget service")?;
                let mut request = tonic::Request::new(operation);
                request.set_timeout(TIMEOUT);
                let answer = client.execute(request).await.map_err(|status| status.message().to_owned())?;
                let kind = answer.into_inner().kind.ok_or("an answer without a result")?;
                convert::outcome(kind).map_err(|error| error.to_string())
            }
        }
    }
}

impl Work for BudgetWork {
    type Client = Spender;

    fn client(&self, number: usize) -> Spender {
        Spender { number, tenant: format!("bench-{}", number % self.tenants), holds: None }
    }

    async fn step(&self, spender: &mut Spender) -> Result<(), String> {
        let command = self.next(spender)?;
        let reserved = match &command {
            Command::Reserve { id, .. } => Some(*id),
            _ => None,
        };
        // Whatever comes of it: a settlement that failed is not tried again.
        spender.holds = None;
        match self.execute(spender, command).await? {
            Outcome::Granted(_) => {
                spender.holds = reserved;
                Ok(())
            }
            Outcome::Settled(_) => Ok(()),
            Outcome::Denied(denial) => {
                Err(format!("budget {} has only {} left", denial.account.budget, denial.available))
            }
            Outcome::Refused(refusal) => Err(refusal.to_string()),
            other => Err(format!("an answer to something else: {other:?}")),
        }
    }
}

fn client(place: &Place, number: usize) -> Client {
    Client::connect(ClientConfig {
        name: format!("bench-{number}"),
        nodes: place.nodes.clone(),
        operation_timeout_ms: u64::from(TIMEOUT_MS),
        security: place.security.clone(),
    })
}

async fn leader(place: &Place) -> Result<String> {
    let answer = client(place, 0).admin().list_nodes(quorate_rpc::admin::ListNodesRequest {}).await?;
    let leader = answer.nodes.into_iter().find(|node| node.role == "leader");
    leader
        .map(|node| node.address)
        .context("no node leads; try again when `quorate get nodes` shows a leader")
}
