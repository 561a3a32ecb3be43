//! `quorate explain request`: why a request is routed and limited as it is. Sends nothing to a provider.

use anyhow::Result;
use clap::{Args, Subcommand};
use quorate_rpc::admin::{
    self, Consistency, ExplainRequestRequest, ExplainRequestResponse, ExplainedBudget, Header,
};

use crate::command::ClusterOptions;
use crate::command::keys::id_of_key;
use crate::output::{Format, OutputOptions, amount, or_dash, table, time};

/// Show why a request is routed and limited as it is
///
/// Example: `quorate explain request --model gpt-4o --header x-user-id=alice`
#[derive(Debug, Args)]
pub struct Explain {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Which route, which backends in which order, which budgets and subjects, what would be reserved
    Request(ExplainRequest),
}

#[derive(Debug, Args)]
struct ExplainRequest {
    /// As the client names it
    #[arg(long)]
    model: String,
    /// As the client sends it; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<Header>,
    /// Of HTTP
    #[arg(long, default_value = "POST")]
    method: String,
    /// Of the endpoint: `/v1/messages` for Anthropic's clients
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// What follows the ? of the URL
    #[arg(long, default_value = "", hide_default_value = true)]
    query: String,
    /// Where the client is
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    source: String,
    /// Tokens of the input
    #[arg(long, default_value_t = 1_000, value_name = "COUNT")]
    input_tokens: u64,
    /// What the request names as its largest output; without it, the policy's default
    #[arg(long, value_name = "COUNT")]
    max_tokens: Option<u64>,
    /// As an API key or a token would say it, like the two below
    #[arg(long, default_value = "", hide_default_value = true)]
    tenant: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    team: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,
    /// An API key, or its id: as whom it was made for
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ID", conflicts_with_all = ["tenant", "team", "user"])]
    key: String,
    /// Answer from what the asked node has applied, which may be old
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    cluster: ClusterOptions,
    #[command(flatten)]
    output: OutputOptions,
}

fn header(text: &str) -> Result<Header, String> {
    let (name, value) =
        text.split_once(['=', ':']).ok_or("wanted: NAME=VALUE, as in x-user-id=alice".to_owned())?;
    Ok(Header { name: name.trim().to_ascii_lowercase(), value: value.trim().to_owned() })
}

impl Explain {
    pub async fn run(self) -> Result<()> {
        let What::Request(asked) = self.what;
        let consistency = if asked.stale { Consistency::Stale } else { Consistency::Linearizable };
        let request = ExplainRequestRequest {
            consistency: consistency.into(),
            model: asked.model,
            headers: asked.headers,
            method: asked.method,
            path: asked.path,
            query: asked.query,
            source: asked.source,
            input_tokens: asked.input_tokens,
            max_tokens: asked.max_tokens,
            tenant: asked.tenant,
            team: asked.team,
            user: asked.user,
            key: id_of_key(&asked.key).to_owned(),
        };
        let answer = asked.cluster.admin()?.explain_request(request).await?;
        match asked.output.output {
            Format::Table | Format::Wide => {
                print_tables(&answer);
                Ok(())
            }
            _ => asked.output.print(&answer, || table(&[])),
        }
    }
}

fn print_tables(answer: &ExplainRequestResponse) {
    println!("policy version  {}", answer.policy_version);
    println!("tenant          {}", or_dash(&answer.tenant));
    println!("team            {}", or_dash(&answer.team));
    println!("user            {}", or_dash(&answer.user));
    println!("route           {}", if answer.route.is_empty() { "(none)" } else { &answer.route });
    if !answer.backends.is_empty() {
        println!("routing         {}", answer.routing);
        println!("\nBackends, in this order\n{}", backends(&answer.backends));
    }
    if answer.budgets.is_empty() {
        println!("\nNo budget applies");
    } else {
        println!("\nBudgets, charged all or none\n{}", budgets(&answer.budgets));
    }
    for note in &answer.notes {
        println!("note: {note}");
    }
}

fn backends(backends: &[admin::ExplainedBackend]) -> comfy_table::Table {
    let mut table = table(&["RANK", "BACKEND", "PROVIDER", "MODEL", "PRIORITY", "WEIGHT", "WHY"]);
    for backend in backends {
        table.add_row([
            backend.rank.to_string(),
            backend.name.clone(),
            backend.provider.clone(),
            backend.model.clone(),
            backend.priority.to_string(),
            backend.weight.to_string(),
            backend.reason.clone(),
        ]);
    }
    table
}

fn budgets(budgets: &[ExplainedBudget]) -> comfy_table::Table {
    let mut table = table(&[
        "BUDGET",
        "SUBJECT",
        "LIMIT",
        "SPENT",
        "RESERVED",
        "WOULD RESERVE",
        "VERDICT",
        "RESETS",
        "FROM",
    ]);
    for budget in budgets {
        let shown = |micros| amount(micros, budget.unit());
        table.add_row([
            budget.name.clone(),
            or_dash(&budget.subject),
            shown(budget.limit_micros),
            shown(budget.spent_micros),
            shown(budget.reserved_micros),
            shown(budget.would_reserve_micros),
            budget.verdict.clone(),
            time(budget.resets_at_ms),
            budget.source.clone(),
        ]);
    }
    table
}
