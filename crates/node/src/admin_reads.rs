//! What the admin service reads from the ledger that this node has applied. Every list is bounded and goes on after a
//! cursor.

use quorate_ledger::{
    AccountView, Amount, ClosedWindowView, Enforcement, Ledger, ReservationView, TenantView, TimestampMs,
};
use quorate_replica::{ReadPoint, Replica};
use quorate_rpc::{admin, budget};
use tonic::Status;

use crate::policy_words;

const PAGE_DEFAULT: usize = 1_000;
const PAGE_MAX: usize = 10_000;
/// Between the parts of a cursor; no name has it.
const CURSOR_SEPARATOR: char = '\u{1f}';

#[derive(Debug, Clone)]
pub(crate) struct Reads {
    pub replica: Replica,
}

impl Reads {
    pub fn point(&self, at: ReadPoint, time: TimestampMs) -> Option<admin::ReadPoint> {
        Some(admin::ReadPoint {
            node_id: self.replica.node_id(),
            log_term: at.term,
            log_index: at.index,
            ledger_time_ms: time.0,
        })
    }

    pub fn tenants(&self, request: &admin::ListTenantsRequest) -> admin::ListTenantsResponse {
        let size = page(request.page_size);
        self.replica.read(|ledger, at| {
            let mut tenants: Vec<_> = match request.tenant.as_str() {
                "" => ledger.tenants(&request.page_after).take(size + 1).map(tenant).collect(),
                name => ledger.tenant(name).map(tenant).into_iter().collect(),
            };
            let more = tenants.len() > size;
            tenants.truncate(size);
            admin::ListTenantsResponse { tenants, read_point: self.point(at, ledger.time()), more }
        })
    }

    pub fn accounts(
        &self,
        request: &admin::ListAccountsRequest,
    ) -> Result<admin::ListAccountsResponse, Status> {
        let cursor = cursor(&request.page_after)?;
        let time = self.replica.now();
        let answer = |ledger: &Ledger, at| {
            let (accounts, cursor) = accounts(ledger, time, request, cursor.as_ref());
            admin::ListAccountsResponse { accounts, read_point: self.point(at, ledger.time()), cursor }
        };
        if request.budget.is_empty() && request.subject.is_empty() {
            return Ok(self.replica.read(answer));
        }
        // On a copy, which is cheap: of a million accounts one may be wanted, and nobody should wait for the search.
        let (ledger, at) = self.replica.read(|ledger, at| (ledger.clone(), at));
        Ok(answer(&ledger, at))
    }

    pub fn reservations(&self, request: &admin::ListReservationsRequest) -> admin::ListReservationsResponse {
        let size = page(request.page_size);
        self.replica.read(|ledger, at| {
            let names: Vec<String> = match request.tenant.as_str() {
                "" => ledger.deadlines().into_iter().map(|(name, _)| name).collect(),
                name => vec![name.to_owned()],
            };
            let mut reservations: Vec<_> = names
                .iter()
                .flat_map(|name| ledger.reservations(name))
                .take(size + 1)
                .map(reservation)
                .collect();
            let more = reservations.len() > size;
            reservations.truncate(size);
            admin::ListReservationsResponse { reservations, read_point: self.point(at, ledger.time()), more }
        })
    }

    pub fn providers(&self) -> admin::ListProvidersResponse {
        self.replica.read(|ledger, at| admin::ListProvidersResponse {
            providers: ledger.providers().map(Into::into).collect(),
            read_point: self.point(at, ledger.time()),
        })
    }

    pub fn account(&self, tenant: &str, budget: &str, subject: &str) -> Option<admin::Account> {
        let time = self.replica.now();
        self.replica.read(|ledger, _| ledger.account(time, tenant, budget, subject)).map(account)
    }

    pub fn invariants(&self) -> admin::CheckInvariantsResponse {
        // On a copy, which is cheap: the check itself takes its time.
        let (ledger, at) = self.replica.read(|ledger, at| (ledger.clone(), at));
        let violations = quorate_ledger::invariant::check(&ledger);
        let violations =
            violations.into_iter().map(|violation| format!("{}: {}", violation.property, violation.detail));
        admin::CheckInvariantsResponse {
            violations: violations.collect(),
            read_point: self.point(at, ledger.time()),
        }
    }
}

/// A page of them, and the cursor if there are more.
fn accounts(
    ledger: &Ledger,
    time: TimestampMs,
    request: &admin::ListAccountsRequest,
    cursor: Option<&[String; 3]>,
) -> (Vec<admin::Account>, String) {
    let (tenant, budget, subject) = (&request.tenant, &request.budget, &request.subject);
    if ![tenant, budget, subject].iter().any(|part| part.is_empty()) {
        let one = ledger.account(time, tenant, budget, subject);
        return (one.into_iter().map(account).collect(), String::new());
    }
    let size = page(request.page_size);
    let wanted = |view: &AccountView| {
        (budget.is_empty() || view.budget == *budget) && (subject.is_empty() || view.subject == *subject)
    };
    // One after the other: a page needs few of a hundred thousand.
    let names: Box<dyn Iterator<Item = String>> = match (tenant.as_str(), cursor) {
        ("", None) => Box::new(ledger.tenants("").map(|tenant| tenant.name)),
        ("", Some([first, ..])) => {
            Box::new(std::iter::once(first.clone()).chain(ledger.tenants(first).map(|tenant| tenant.name)))
        }
        (name, _) => Box::new(std::iter::once(name.to_owned())),
    };
    let of_tenant = |name: String| {
        let cursor = cursor.filter(|[tenant, ..]| *tenant == name);
        let after = cursor.map(|[_, budget, subject]| (budget.as_str(), subject.as_str()));
        ledger.accounts(time, &name, after)
    };
    let mut views: Vec<AccountView> = names.flat_map(of_tenant).filter(wanted).take(size + 1).collect();
    let more = views.len() > size;
    views.truncate(size);
    let next = views
        .last()
        .filter(|_| more)
        .map(|last| [last.tenant.as_str(), &last.budget, &last.subject].join(&CURSOR_SEPARATOR.to_string()));
    (views.into_iter().map(account).collect(), next.unwrap_or_default())
}

fn page(size: u32) -> usize {
    match usize::try_from(size) {
        Ok(0) | Err(_) => PAGE_DEFAULT,
        Ok(size) => size.min(PAGE_MAX),
    }
}

fn cursor(text: &str) -> Result<Option<[String; 3]>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let parts: Vec<String> = text.split(CURSOR_SEPARATOR).map(str::to_owned).collect();
    parts.try_into().map(Some).map_err(|_| Status::invalid_argument("page_after is no cursor of this call"))
}

fn tenant(view: TenantView) -> admin::Tenant {
    admin::Tenant {
        name: view.name,
        accounts: view.accounts,
        open_reservations: view.open_reservations,
        granted_total: view.granted_total,
        denied_total: view.denied_total,
        expired_total: view.expired_total,
    }
}

fn account(view: AccountView) -> admin::Account {
    // Slices are reservations like any other.
    let leased = if view.enforcement == Some(Enforcement::Lease) { view.reserved } else { Amount::ZERO };
    admin::Account {
        leased_micros: leased.micros(),
        tenant: view.tenant,
        budget: view.budget,
        subject: view.subject,
        limit_micros: view.limit.micros(),
        spent_micros: view.spent.micros(),
        reserved_micros: view.reserved.micros(),
        available_micros: view.available.micros(),
        overdraft_micros: view.overdraft.micros(),
        window_start_ms: view.window.start.0,
        window_end_ms: view.window.end.map_or(0, |end| end.0),
        closed_windows: view.closed_windows.into_iter().map(closed_window).collect(),
        topped_up_micros: view.topped_up.micros(),
        unit: budget::Unit::from(view.unit).into(),
        carried_micros: view.carried.micros(),
        shadow_denied: view.shadow_denied,
        estimated_micros: view.estimated.micros(),
        enforcement: view.enforcement.map(policy_words::enforcement).unwrap_or_default().to_owned(),
    }
}

fn closed_window(view: ClosedWindowView) -> admin::ClosedWindow {
    admin::ClosedWindow {
        start_ms: view.window.start.0,
        end_ms: view.window.end.map_or(0, |end| end.0),
        limit_micros: view.limit.micros(),
        spent_micros: view.spent.micros(),
        reserved_micros: view.reserved.micros(),
        overdraft_micros: view.overdraft.micros(),
        shadow_denied: view.shadow_denied,
        estimated_micros: view.estimated.micros(),
    }
}

fn reservation(view: ReservationView) -> admin::Reservation {
    admin::Reservation {
        id: view.id.to_string(),
        tenant: view.tenant,
        charges: view.charges.iter().map(Into::into).collect(),
        made_at_ms: view.made_at.0,
        deadline_ms: view.deadline.0,
    }
}

#[cfg(test)]
mod tests {
    use quorate_ledger::{Amount, BudgetRule, Charge, Command, Outcome, ReservationId, Unit, Window};

    use super::*;

    const NOW: TimestampMs = TimestampMs(1_800_000_000_000);

    /// Three tenants with two subjects each, in two budgets.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let limit = Amount::from_units(1_000).unwrap();
        let rule = |name: &str| BudgetRule::new(name, Unit::Tokens, limit, Window::Year);
        let put = Command::PutPolicy {
            expected_version: None,
            rules: vec![rule("day"), rule("month")],
            document: String::new(),
            staged: None,
            by: String::new(),
            comment: String::new(),
        };
        ledger.apply(NOW, &put);
        for number in 0..6_u128 {
            let charge = |budget: &str| Charge {
                budget: budget.to_owned(),
                subject: format!("user-{}", number % 2),
                amount: limit,
                at_least: limit,
            };
            let reserve = Command::Reserve {
                tenant: format!("tenant-{}", number / 2),
                id: ReservationId::from_u128(u128::from(NOW.0) << 80 | 7 << 76 | 2 << 62 | number).unwrap(),
                charges: vec![charge("day"), charge("month")],
                ttl_ms: 60_000,
                wait: false,
            };
            let outcome = ledger.apply(NOW, &reserve);
            assert!(matches!(outcome, Outcome::Granted(_)), "{outcome:?}");
        }
        ledger
    }

    #[test]
    fn pages_go_through_all_that_is_wanted_once() {
        let ledger = ledger();
        for (tenant, budget, subject, wanted) in [
            ("", "", "", 12),
            ("tenant-1", "", "", 4),
            ("", "day", "", 6),
            ("", "", "user-1", 6),
            ("tenant-2", "month", "", 2),
            ("tenant-2", "month", "user-0", 1),
            ("tenant-2", "month", "nobody", 0),
            ("nobody", "", "", 0),
        ] {
            let mut request = admin::ListAccountsRequest {
                tenant: tenant.to_owned(),
                budget: budget.to_owned(),
                subject: subject.to_owned(),
                page_size: 3,
                ..admin::ListAccountsRequest::default()
            };
            let mut seen = std::collections::BTreeSet::new();
            loop {
                let (page, next) =
                    accounts(&ledger, NOW, &request, cursor(&request.page_after).unwrap().as_ref());
                for one in page {
                    assert!(seen.insert((one.tenant, one.budget, one.subject)), "seen twice");
                }
                request.page_after = next;
                if request.page_after.is_empty() {
                    break;
                }
            }
            assert_eq!(seen.len(), wanted, "{tenant:?} {budget:?} {subject:?}: {seen:?}");
        }
    }
}
