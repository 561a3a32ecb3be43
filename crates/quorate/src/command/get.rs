//! `quorate get`: lists, over gRPC, from any node.

use anyhow::Result;
use clap::{Args, ValueEnum};
use quorate_rpc::admin::{self, Consistency};

use crate::command::{ClusterOptions, keys, tables};
use crate::output::{Format, OutputOptions};

/// Kinds of manifests that say where requests go, and to whom.
const ROUTES: [&str; 1] = ["AIGatewayRoute"];
const BACKENDS: [&str; 5] =
    ["AIBackend", "AIServiceBackend", "Backend", "BackendTLSPolicy", "BackendSecurityPolicy"];
/// And those that say what is counted and limited.
const POLICIES: [&str; 8] = [
    "Budget",
    "BackendTrafficPolicy",
    "QuotaPolicy",
    "RateLimitConfig",
    "LLMRequestCost",
    "GatewayConfig",
    "ModelPrice",
    "Identity",
];

/// List nodes, gateways, tenants, budgets, accounts, reservations, providers, manifests, keys, alerts
///
/// Examples:
///   quorate get accounts --tenant acme
///   quorate get providers
///   quorate get routes -o yaml
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Get {
    what: What,
    #[command(flatten)]
    options: GetOptions,
}

#[derive(Debug, Args)]
struct GetOptions {
    #[command(flatten)]
    cluster: ClusterOptions,
    #[command(flatten)]
    output: OutputOptions,
    /// Answer from what the asked node has applied, which may be old
    #[arg(long)]
    stale: bool,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only this budget
    #[arg(long)]
    budget: Option<String>,
    /// Only this subject
    #[arg(long)]
    subject: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// The members of the cluster
    Nodes,
    /// Who has accounts
    Tenants,
    /// The rules in force
    Budgets,
    /// The counters
    Accounts,
    /// What is held for requests under way
    Reservations,
    /// What the fleet believes of each backend and model: closed (works), open, half-open or drained, and why
    Providers,
    /// The whole policy in force, as one file
    Policy,
    /// Manifests that say what is counted and limited, and what is probably not meant
    Policies,
    /// Manifests that say where requests go
    Routes,
    /// Manifests of backends
    Backends,
    /// The gateways, and which version of the policy each runs
    Gateways,
    /// API keys
    Keys,
    /// Shares of limits that were reached
    Alerts,
}

impl Get {
    pub async fn run(mut self) -> Result<()> {
        let options = &mut self.options;
        let admin = options.cluster.admin()?;
        let consistency =
            i32::from(if options.stale { Consistency::Stale } else { Consistency::Linearizable });
        let tenant = options.tenant.take().unwrap_or_default();
        let output = &options.output;
        let wide = output.output == Format::Wide;
        match self.what {
            What::Nodes => {
                let answer = admin.list_nodes(admin::ListNodesRequest {}).await?;
                output.print(&answer, || tables::nodes(&answer.nodes, wide))
            }
            What::Tenants => {
                let request = admin::ListTenantsRequest { consistency, tenant, ..Default::default() };
                let answer = admin.list_tenants(request).await?;
                output.print(&answer, || tables::tenants(&answer.tenants))
            }
            What::Budgets => {
                let answer = admin.list_budgets(admin::ListBudgetsRequest { consistency }).await?;
                output.print(&answer, || tables::budgets(&answer.budgets, wide))
            }
            What::Accounts => {
                let (budget, subject) =
                    (options.budget.take().unwrap_or_default(), options.subject.take().unwrap_or_default());
                let request =
                    admin::ListAccountsRequest { consistency, tenant, budget, subject, ..Default::default() };
                let answer = admin.list_accounts(request).await?;
                if !answer.cursor.is_empty() {
                    eprintln!("there are more: narrow the list with --tenant, --budget or --subject");
                }
                options.output.print(&answer, || tables::accounts(&answer.accounts))
            }
            What::Reservations => {
                let answer = admin
                    .list_reservations(admin::ListReservationsRequest { consistency, tenant, page_size: 0 })
                    .await?;
                output.print(&answer, || tables::reservations(&answer.reservations))
            }
            What::Providers => {
                let answer = admin.list_providers(admin::ListProvidersRequest { consistency }).await?;
                output.print(&answer, || tables::providers(&answer))
            }
            What::Policy => {
                let answer = admin.get_policy(admin::GetPolicyRequest { consistency }).await?;
                print!("{}", answer.document);
                Ok(())
            }
            What::Policies => objects(&admin, output, &POLICIES, consistency).await,
            What::Routes => objects(&admin, output, &ROUTES, consistency).await,
            What::Backends => objects(&admin, output, &BACKENDS, consistency).await,
            What::Gateways => {
                let answer = admin.list_gateways(admin::ListGatewaysRequest {}).await?;
                output.print(&answer, || tables::gateways(&answer))
            }
            What::Keys => {
                let answer = admin.list_keys(admin::ListKeysRequest { consistency, tenant }).await?;
                output.print(&answer, || keys::keys(&answer.keys))
            }
            What::Alerts => {
                let answer = admin.list_alerts(admin::ListAlertsRequest { consistency, after: 0 }).await?;
                output.print(&answer, || tables::alerts(&answer.alerts))
            }
        }
    }
}

/// Objects of the policy: as they were applied for `-o yaml`, else in a table.
async fn objects(
    admin: &quorate_rpc::Admin,
    output: &OutputOptions,
    kinds: &[&str],
    consistency: i32,
) -> Result<()> {
    let wanted = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let request = admin::ListObjectsRequest { consistency, kinds: wanted, ..Default::default() };
    let answer = admin.list_objects(request).await?;
    if output.output == Format::Yaml {
        for object in &answer.objects {
            print!("---\n{}", object.yaml);
        }
        return Ok(());
    }
    let wide = output.output == Format::Wide;
    output.print(&answer, || tables::objects(&answer.objects, wide))?;
    // Each list with what is said about its own kinds; what is about none is about what is limited.
    let about = |warning: &str, kinds: &[&str]| {
        warning.split_once(' ').is_some_and(|(kind, _)| kinds.contains(&kind))
    };
    let others = [&ROUTES[..], &BACKENDS[..]].concat();
    let is_shown =
        |warning: &&String| about(warning, kinds) || (*kinds == POLICIES && !about(warning, &others));
    for warning in answer.warnings.iter().filter(is_shown) {
        eprintln!("warning: {warning}");
    }
    Ok(())
}
