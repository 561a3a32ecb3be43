//! What the admin service reads of the policy in force: its objects and its budgets, in the words of the manifests.

use quorate_policy::runtime::Budget;
use quorate_rpc::admin;
use tonic::Status;

use crate::admin_reads::Reads;
use crate::policies::{InForce, Policies};
use crate::policy_words;

impl Reads {
    pub async fn objects(
        &self,
        policies: &Policies,
        request: &admin::ListObjectsRequest,
    ) -> Result<admin::ListObjectsResponse, Status> {
        let policy = policies.in_force().await?;
        let any = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        let objects = policy.set.objects().filter(|object| {
            (request.kinds.is_empty() || request.kinds.iter().any(|kind| kind == object.kind))
                && any(&request.namespace, object.namespace)
                && any(&request.name, object.name)
        });
        let objects = objects.map(|object| admin::PolicyObject {
            kind: object.kind.to_owned(),
            api_version: object.api_version.to_owned(),
            namespace: object.namespace.to_owned(),
            name: object.name.to_owned(),
            yaml: object.yaml.to_owned(),
            summary: object.summary,
        });
        Ok(admin::ListObjectsResponse {
            policy_version: policy.version,
            objects: objects.collect(),
            warnings: policy.warnings.clone(),
            read_point: self.now(),
        })
    }

    /// Where this release cannot read the manifests: the ledger's rules alone.
    pub async fn budgets(&self, policies: &Policies) -> admin::ListBudgetsResponse {
        match policies.in_force().await {
            Ok(policy) => admin::ListBudgetsResponse {
                policy_version: policy.version,
                budgets: budgets(&policy),
                read_point: self.now(),
            },
            Err(unreadable) => {
                let policy = self.replica.read(|ledger, _| ledger.policy());
                let source = unreadable.to_string();
                let budgets = policy.rules.iter();
                let budgets = budgets.map(|rule| admin::BudgetRule { source: source.clone(), ..ruled(rule) });
                admin::ListBudgetsResponse {
                    policy_version: policy.version,
                    budgets: budgets.collect(),
                    read_point: self.now(),
                }
            }
        }
    }

    fn now(&self) -> Option<admin::ReadPoint> {
        self.replica.read(|ledger, at| self.point(at, ledger.time()))
    }
}

fn budgets(policy: &InForce) -> Vec<admin::BudgetRule> {
    let rule = |budget: &Budget| admin::BudgetRule {
        subject: budget.subject.iter().map(ToString::to_string).collect(),
        source: budget.explains.clone(),
        applies_to: policy_words::applies_to(budget),
        cost: policy_words::cost(budget),
        ..ruled(&budget.rule)
    };
    policy.compiled.all_budgets().iter().map(|budget| rule(budget)).collect()
}

fn ruled(rule: &quorate_ledger::BudgetRule) -> admin::BudgetRule {
    admin::BudgetRule {
        name: rule.name.clone(),
        unit: rule.unit.name().to_owned(),
        limit_micros: rule.limit.micros(),
        window: policy_words::window(rule.window),
        tenant: rule.tenant.clone().unwrap_or_default(),
        enforcement: policy_words::enforcement(rule.enforcement).to_owned(),
        ..admin::BudgetRule::default()
    }
}
