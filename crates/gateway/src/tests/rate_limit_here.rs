//! Reservations of proxies that slices of the gateway hold (`hold_from_leases`): made and settled without the cluster, handed
//! to it when they last, and never held less than once.

use quorate_ledger::{Charge, Command, Outcome, TimestampMs};

use super::rate_limit::{Door, reservation, told};
use super::world::{PER_USER, until};
use crate::budget::BudgetKeeper as _;

const LIMITS: &str = "
domain: llm
descriptors:
  - key: user
    enforcement: Lease
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 1000000}
  - key: few
    enforcement: Lease
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 250}
";
const NEVER: TimestampMs = TimestampMs(u64::MAX);

async fn door(policy: &str) -> Door {
    Door::with(policy, ", hold_from_leases: true").await
}

impl Door {
    /// Asks until the answer names a reservation for which no command was needed; how often that was.
    async fn until_here(&self, domain: &str, ask: &str, settle: impl Fn(&str) -> String) -> (u64, String) {
        for asked in 1..10_000 {
            let before = self.world.keeper.reserves();
            let name = reservation(&self.ask(domain, &[ask]).await);
            if asked > 20 && self.world.keeper.reserves() == before {
                return (asked, name);
            }
            self.ask(domain, &[&settle(&name)]).await;
        }
        panic!("never from a slice");
    }

    async fn hand_over(&self) {
        self.world.core.held_here.hand_over(&self.world.core, NEVER).await;
    }

    /// Others hold all that is left of an account; how much that is.
    fn use_up(&self, budget: &str, subject: &str) -> u64 {
        let keeper = &self.world.keeper;
        let amount = keeper.account("default", budget, subject).unwrap().available;
        let charge =
            Charge { budget: budget.to_owned(), subject: subject.to_owned(), amount, at_least: amount };
        let reserve = Command::Reserve {
            tenant: "default".to_owned(),
            id: keeper.new_id(),
            charges: vec![charge],
            ttl_ms: 600_000,
            wait: false,
        };
        assert!(matches!(keeper.apply(&reserve), Outcome::Granted(_)));
        amount.units_floor()
    }

    fn count(&self, name: &str) -> u64 {
        self.world.metric(&format!("quorate_gateway_rate_limit_{name}_total")).unwrap_or_default() as u64
    }

    /// What is held of slices goes back too.
    async fn stopped(self) -> impl Fn(&str, &str) -> (u64, u64) {
        let keeper = std::sync::Arc::clone(&self.world.keeper);
        self.world.gateway.stop().await;
        move |budget, subject| {
            let account = keeper.account("default", budget, subject).unwrap();
            (account.spent.units_floor(), account.reserved.units_floor())
        }
    }
}

fn used(name: &str, tokens: u64) -> String {
    format!("quorate_reservation={name} {tokens}")
}

#[tokio::test]
async fn the_cluster_is_asked_for_slices_and_not_for_reservations() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_here("llm", "user=a 100", |name| used(name, 30)).await;
    let before = door.world.keeper.reserves();
    door.ask("llm", &[&used(&name, 30)]).await;
    assert_eq!(door.world.keeper.reserves(), before);
    assert_eq!(door.count("settled"), asked);
    assert_eq!((door.count("held_elsewhere"), door.count("unsettled")), (0, 0));
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * asked, 0));
}

#[tokio::test]
async fn budgets_of_attributes_are_held_and_settled_here_too() {
    let leased = PER_USER.replace("Week", "Year\n  enforcement: Lease").replace("250", "1000000");
    let door = door(&leased).await;
    let settle = |name: &str| format!("x-user-id=alice quorate_reservation={name} 30");
    let ask = "x-user-id=alice quorate_reservation=hold 100";
    let (asked, name) = door.until_here("quorate", ask, settle).await;
    door.ask("quorate", &[&settle(&name)]).await;
    let account = door.stopped().await;
    assert_eq!(account("per-user", "alice"), (30 * asked, 0));
}

#[tokio::test]
async fn parallel_reservations_do_not_exceed_the_limit() {
    let door = door(LIMITS).await;
    // Of one account twice: the bytes of a request and the length of its answer.
    let asked = (0..20).map(|_| door.ask("llm", &["few=a 20", "few=a 80"]));
    let answers = futures_util::future::join_all(asked).await;
    let passed: Vec<_> = answers.iter().filter(|one| told(one).starts_with("OK")).collect();
    assert_eq!(passed.len(), 2);
    for one in passed {
        door.ask("llm", &[&used(&reservation(one), 90)]).await;
    }
    let account = door.stopped().await;
    assert_eq!(account("llm/few", "a"), (180, 0));
}

#[tokio::test]
async fn one_that_lasts_is_handed_over_and_settled_by_any_gateway() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_here("llm", "user=a 100", |name| used(name, 30)).await;
    door.hand_over().await;
    assert_eq!(door.count("handed_over"), 1);
    // It is the cluster's now.
    door.ask("llm", &[&used(&name, 70)]).await;
    until("it is settled", || door.count("settled") == asked).await;
    assert_eq!(door.count("held_elsewhere"), 0);
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 70, 0));
}

#[tokio::test]
async fn one_that_is_settled_while_it_is_handed_over_is_charged_once() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_here("llm", "user=a 100", |name| used(name, 30)).await;
    door.world.keeper.hold_back_reserves(true);
    let said = used(&name, 70);
    tokio::join!(door.hand_over(), async {
        door.ask("llm", &[&said]).await;
        door.world.keeper.hold_back_reserves(false);
    });
    assert_eq!((door.count("settled"), door.count("handed_over")), (asked, 0));
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 70, 0));
}

#[tokio::test]
async fn one_that_is_settled_elsewhere_waits_until_it_is_handed_over() {
    let door = door(LIMITS).await;
    let other = door.beside(LIMITS, ", hold_from_leases: true").await;
    let (asked, name) = door.until_here("llm", "user=a 100", |name| used(name, 30)).await;
    other.ask("llm", &[&used(&name, 70)]).await;
    until("it is looked for", || other.count("held_elsewhere") == 1).await;
    door.hand_over().await;
    // It does not wait for its time then.
    other.world.gateway.stop().await;
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 70, 0));
}

#[tokio::test]
async fn a_gateway_that_stops_hands_over_what_it_holds() {
    let door = door(LIMITS).await;
    let (asked, _) = door.until_here("llm", "user=a 100", |name| used(name, 30)).await;
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1), 100));
}

#[tokio::test]
async fn where_there_is_no_room_for_both_it_stays_here() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_here("llm", "user=a 100", |name| used(name, 30)).await;
    let others = door.use_up("llm/user", "a");
    door.hand_over().await;
    door.ask("llm", &[&used(&name, 70)]).await;
    assert_eq!((door.count("settled"), door.count("handed_over")), (asked, 0));
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 70, others));
}

#[tokio::test]
async fn what_cannot_be_handed_over_at_the_end_is_charged_as_it_was_held() {
    let door = door(LIMITS).await;
    let (asked, _) = door.until_here("llm", "user=a 100", |name| used(name, 30)).await;
    let others = door.use_up("llm/user", "a");
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 100, others));
}

#[tokio::test]
async fn what_is_refused_by_another_limit_is_given_back() {
    let door =
        door(&format!("{LIMITS}  - key: closed\n    rate_limit: {{unit: year, requests_per_unit: 0}}\n"))
            .await;
    let (asked, name) = door.until_here("llm", "user=a 100", |name| used(name, 30)).await;
    door.ask("llm", &[&used(&name, 30)]).await;
    assert!(door.told("llm", &["user=a 100", "closed=x"]).await.starts_with("OVER"));
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * asked, 0));
}

#[tokio::test]
async fn leases_hold_nothing_for_proxies_where_the_gateway_does_not_say_so() {
    let door = Door::new(LIMITS).await;
    for asked in 1..=30 {
        let name = reservation(&door.ask("llm", &["user=a 100"]).await);
        door.ask("llm", &[&used(&name, 30)]).await;
        assert!(door.world.keeper.reserves() >= asked);
    }
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (900, 0));
}
