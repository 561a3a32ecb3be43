//! Which role may call what: one table. What does not stand in it is refused. Only where TLS says who calls.

use quorate_rpc::tls::{Identity, Role};

use Role::{Admin, Gateway, Node, Operate, Read};

/// A certificate of the cluster's authority is enough, whatever its roles.
const ANY: &[Role] = &[];
const NODES: &[Role] = &[Node];
const SPEND: &[Role] = &[Gateway, Node, Admin];
const SEE: &[Role] = &[Read, Operate, Admin, Node];
const RUN: &[Role] = &[Operate, Admin, Node];
const RULE: &[Role] = &[Admin, Node];

type Service = (&'static str, &'static [(&'static str, &'static [Role])]);

/// Nodes stand everywhere: they pass on what they have allowed.
const TABLE: &[Service] = &[
    (
        "quorate.raft.v1.Raft",
        &[
            ("Call", NODES),
            ("Append", NODES),
            ("InstallSnapshot", NODES),
            ("Identify", NODES),
            ("Clock", NODES),
        ],
    ),
    // All operations of a session are of one kind, a gateway's; a test says so when another comes.
    ("quorate.budget.v1.Budget", &[("Session", SPEND), ("Execute", SPEND), ("Watch", SPEND)]),
    (
        "quorate.admin.v1.Admin",
        &[
            ("ListNodes", SEE),
            ("ListTenants", SEE),
            ("ListBudgets", SEE),
            ("ListAccounts", SEE),
            ("ListReservations", SEE),
            ("ListProviders", SEE),
            ("ListObjects", SEE),
            ("ListPolicyVersions", SEE),
            ("ListKeys", SEE),
            ("ListAudit", SEE),
            ("ListGateways", SEE),
            ("ListAlerts", SEE),
            ("GetPolicy", SEE),
            ("ExplainRequest", SEE),
            ("WatchEvents", SEE),
            ("CheckInvariants", SEE),
            ("AdjustAccount", RUN),
            ("DrainBackend", RUN),
            ("UndrainBackend", RUN),
            ("TransferLeadership", RUN),
            ("ApplyPolicy", RULE),
            ("RollbackPolicy", RULE),
            // It holds the hashes of all keys, and who spent what.
            ("Backup", RULE),
            ("AddNode", RULE),
            ("RemoveNode", RULE),
            ("ReplaceNode", RULE),
            ("CreateKey", RULE),
            ("RevokeKey", RULE),
        ],
    ),
    ("grpc.health.v1.Health", &[("Check", ANY), ("List", ANY), ("Watch", ANY)]),
    ("grpc.reflection.v1.ServerReflection", &[("ServerReflectionInfo", ANY)]),
];

/// `path`: `/package.Service/Method`.
///
/// # Errors
/// Says who may not do what, and what it would take.
pub(crate) fn check(path: &str, caller: Option<&Identity>) -> Result<(), String> {
    let method = path.trim_start_matches('/');
    let Some(caller) = caller else {
        return Err(format!("who shows no certificate may not call {method}"));
    };
    let may_not = |why: String| Err(format!("{} may not call {method}: {why}", caller.described()));
    match allowed(method) {
        None => may_not("nobody may".to_owned()),
        Some(roles) if roles.is_empty() || roles.iter().any(|role| caller.has(*role)) => Ok(()),
        Some(roles) => {
            let organizations: Vec<String> = roles.iter().map(|role| role.organization()).collect();
            may_not(format!("needs a certificate with O={}", organizations.join(" or O=")))
        }
    }
}

fn allowed(method: &str) -> Option<&'static [Role]> {
    let (service, name) = method.rsplit_once('/')?;
    let (_, methods) = TABLE.iter().find(|(known, _)| *known == service)?;
    methods.iter().find(|(known, _)| *known == name).map(|(_, roles)| *roles)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    fn descriptors() -> FileDescriptorSet {
        FileDescriptorSet::decode(quorate_rpc::DESCRIPTORS).unwrap()
    }

    fn may(role: Role, method: &str) -> bool {
        check(method, Some(&Identity { name: "x".to_owned(), roles: vec![role] })).is_ok()
    }

    #[test]
    fn every_rpc_stands_in_the_table_and_nothing_else_does() {
        let mut served = BTreeSet::new();
        for file in descriptors().file {
            for service in &file.service {
                for method in &service.method {
                    served.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let ours = TABLE.iter().filter(|(service, _)| service.starts_with("quorate."));
        let known: BTreeSet<String> = ours
            .flat_map(|(service, methods)| methods.iter().map(move |(name, _)| format!("{service}/{name}")))
            .collect();
        assert_eq!(served, known, "say in access.rs who may call it");
    }

    #[test]
    fn a_session_carries_only_what_a_gateway_does() {
        let descriptors = descriptors();
        let budget = descriptors.file.iter().find(|file| file.package() == "quorate.budget.v1").unwrap();
        let operation = budget.message_type.iter().find(|message| message.name() == "Operation").unwrap();
        let kinds: Vec<&str> = operation
            .field
            .iter()
            .filter(|field| field.oneof_index.is_some())
            .map(|field| field.name())
            .collect();
        assert_eq!(
            kinds,
            ["reserve", "extend", "settle", "release", "report_provider", "claim_probe"],
            "who may open a session may do all of these; another kind may need a check of its own"
        );
    }

    #[test]
    fn each_role_may_do_its_own() {
        for (method, roles) in [
            ("/quorate.raft.v1.Raft/Append", vec![Node]),
            ("/quorate.budget.v1.Budget/Session", vec![Node, Gateway, Admin]),
            ("/quorate.admin.v1.Admin/ListAccounts", vec![Node, Read, Operate, Admin]),
            ("/quorate.admin.v1.Admin/AdjustAccount", vec![Node, Operate, Admin]),
            ("/quorate.admin.v1.Admin/ApplyPolicy", vec![Node, Admin]),
            ("/grpc.health.v1.Health/Check", Role::ALL.to_vec()),
            ("/quorate.admin.v1.Admin/Unheard", vec![]),
            ("/quorate.admin.v2.Admin/ListAccounts", vec![]),
            ("/", vec![]),
        ] {
            let able: Vec<Role> = Role::ALL.into_iter().filter(|role| may(*role, method)).collect();
            assert_eq!(able, roles, "{method}");
        }
    }

    #[test]
    fn a_refusal_says_who_what_and_what_it_takes() {
        let bob = Identity { name: "bob".to_owned(), roles: vec![Read] };
        assert_eq!(
            check("/quorate.admin.v1.Admin/AdjustAccount", Some(&bob)).unwrap_err(),
            "bob (read) may not call quorate.admin.v1.Admin/AdjustAccount: needs a certificate with \
             O=quorate:operate or O=quorate:admin or O=quorate:node"
        );
        assert!(check("/grpc.health.v1.Health/Check", None).unwrap_err().contains("no certificate"));
    }
}
