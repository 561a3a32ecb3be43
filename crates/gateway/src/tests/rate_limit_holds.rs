//! Reservations of proxies that slices of the gateway hold (`hold_from_leases`): made and settled without the cluster, handed
//! to it when they last, and never held less than once.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;

use super::rate_limit::{Door, reservation, told};
use super::world::{PER_USER, until};
use crate::lower;

const LIMITS: &str = "
domain: llm
descriptors:
  - key: user
    enforcement: Lease
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 1000000}
  - key: team
    enforcement: Lease
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 2000000}
  - key: few
    enforcement: Lease
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 2000}
  - key: exact
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 1000000}
  - key: closed
    rate_limit: {unit: year, requests_per_unit: 0}
";
const USER: &str = "user=a 100";

async fn door(policy: &str) -> Door {
    Door::with(policy, ", hold_from_leases: true").await
}

impl Door {
    /// Asks until the answer names a reservation that slices hold, the last of so many; the others are settled.
    async fn until_local(
        &self,
        domain: &str,
        ask: &[&str],
        settle: impl Fn(&str) -> String,
    ) -> (u64, String) {
        for asked in 1..10_000 {
            let before = self.world.keeper.reserves();
            let name = reservation(&self.ask(domain, ask).await);
            if asked > 20 && self.world.keeper.reserves() == before {
                return (asked, name);
            }
            self.ask(domain, &[&settle(&name)]).await;
        }
        panic!("never from a slice");
    }

    /// The same for the user whom most tests are about; 30 tokens each.
    async fn until_user(&self) -> (u64, String) {
        self.until_local("llm", &[USER], |name| used(name, 30)).await
    }

    async fn hand_over(&self) {
        self.world.core.local_holds.hand_over_all(&self.world.core).await;
    }

    /// Nothing is left of any account in the cluster.
    fn leave_nothing(&self) {
        let policy = LIMITS.replace("000000}", "}");
        self.world.keeper.put_policy(&lower::compile(&policy).unwrap());
    }

    fn count(&self, name: &str) -> u64 {
        self.world.metric(&format!("quorate_gateway_rate_limit_{name}_total")).unwrap_or_default() as u64
    }

    /// Whatever slices hold has gone back by then; what is spent of an account, and reserved.
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
    let (asked, name) = door.until_user().await;
    door.ask("llm", &[&used(&name, 30)]).await;
    // Before the answer.
    assert_eq!(door.count("settled"), asked);
    assert_eq!((door.count("held_elsewhere"), door.count("unsettled")), (0, 0));
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * asked, 0));
}

#[tokio::test]
async fn accounts_that_are_near_their_limits_are_held_too() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_local("llm", &["few=a 10"], |name| used(name, 1)).await;
    door.ask("llm", &[&used(&name, 1)]).await;
    let account = door.stopped().await;
    assert_eq!(account("llm/few", "a"), (asked, 0));
}

#[tokio::test]
async fn budgets_of_attributes_are_held_and_settled_too() {
    let leased = PER_USER.replace("Week", "Year\n  enforcement: Lease").replace("250", "1000000");
    let door = door(&leased).await;
    let settle = |name: &str| format!("x-user-id=alice quorate_reservation={name} 30");
    let ask = ["x-user-id=alice quorate_reservation=hold 100"];
    let (asked, name) = door.until_local("quorate", &ask, settle).await;
    door.ask("quorate", &[&settle(&name)]).await;
    let account = door.stopped().await;
    assert_eq!(account("per-user", "alice"), (30 * asked, 0));
}

#[tokio::test]
async fn several_accounts_are_held_together_each_settled_with_its_own_number() {
    let door = door(LIMITS).await;
    let settle = |name: &str| format!("user=a {}", used(name, 30));
    let (asked, name) = door.until_local("llm", &[USER, "team=t 100"], settle).await;
    let team = format!("team=t {}", used(&name, 40));
    door.ask("llm", &[&settle(&name), &team]).await;
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * asked, 0));
    // What nobody speaks of is charged as it was held.
    assert_eq!(account("llm/team", "t"), (100 * (asked - 1) + 40, 0));
}

#[tokio::test]
async fn beside_a_budget_that_is_not_leased_the_cluster_holds_all() {
    let door = door(LIMITS).await;
    for asked in 1..=30 {
        let name = reservation(&door.ask("llm", &[USER, "exact=a 100"]).await);
        door.ask("llm", &[&used(&name, 30)]).await;
        assert!(door.world.keeper.reserves() >= asked);
    }
    let account = door.stopped().await;
    assert_eq!((account("llm/user", "a"), account("llm/exact", "a")), ((900, 0), (900, 0)));
}

#[tokio::test]
async fn parallel_reservations_do_not_exceed_the_limit() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_local("llm", &["few=a 10"], |name| used(name, 0)).await;
    door.ask("llm", &[&used(&name, 0)]).await;
    // Of one account twice: the bytes of a request and the length of its answer.
    let answers = join_all((0..300).map(|_| door.ask("llm", &["few=a 4", "few=a 6"]))).await;
    let passed: Vec<_> = answers.iter().filter(|one| told(one).starts_with("OK")).collect();
    // What slices of other requests hold may be missing at the end.
    assert!((150..=200).contains(&passed.len()), "{} passed, {asked} before", passed.len());
    let count = passed.len() as u64;
    for one in passed {
        door.ask("llm", &[&used(&reservation(one), 10)]).await;
    }
    let account = door.stopped().await;
    assert_eq!(account("llm/few", "a"), (10 * count, 0));
}

#[tokio::test]
async fn one_that_lasts_is_handed_over_and_settled_by_any_gateway() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_user().await;
    door.world.keeper.advance_ms(21_000);
    until("it is handed over", || door.count("handed_over") == 1).await;
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
    let (asked, name) = door.until_user().await;
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
async fn one_of_which_nobody_knows_whether_it_is_handed_over_is_charged_once() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_user().await;
    door.world.keeper.go_away_after_the_next_reservation();
    door.hand_over().await;
    assert_eq!((door.count("handed_over"), door.count("not_handed_over")), (0, 1));
    door.ask("llm", &[&used(&name, 70)]).await;
    door.world.keeper.set_reachable(true);
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 70, 0));
}

#[tokio::test]
async fn one_that_may_be_in_the_cluster_is_not_charged_here_before_that_is_known() {
    let door = door(LIMITS).await;
    let other = door.beside(LIMITS, "").await;
    let (asked, name) = door.until_user().await;
    door.world.keeper.go_away_after_the_next_reservation();
    door.hand_over().await;
    // The cluster is there again for the other one, and not for this one before it is too old to be made.
    door.world.keeper.set_reachable(true);
    other.ask("llm", &[&used(&name, 70)]).await;
    until("it is settled", || other.count("settled") == 1).await;
    door.world.keeper.set_reachable(false);
    door.world.keeper.advance_ms(52_000);
    door.world.keeper.set_reachable(true);
    until("it is known", || door.world.core.local_holds.is_empty()).await;
    assert_eq!(door.count("handed_over"), 1);
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 70, 0));
}

#[tokio::test]
async fn one_that_could_not_be_handed_over_is_tried_again() {
    let door = door(LIMITS).await;
    let (asked, _) = door.until_user().await;
    door.world.keeper.set_reachable(false);
    door.hand_over().await;
    assert_eq!(door.count("not_handed_over"), 1);
    door.world.keeper.set_reachable(true);
    // Also one that is there already.
    door.world.keeper.go_away_after_the_next_reservation();
    door.hand_over().await;
    door.world.keeper.set_reachable(true);
    door.hand_over().await;
    assert_eq!(door.count("handed_over"), 1);
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1), 100));
}

#[tokio::test]
async fn one_that_is_settled_elsewhere_is_waited_for() {
    let door = door(LIMITS).await;
    let other = door.beside(LIMITS, ", hold_from_leases: true").await;
    let (asked, name) = door.until_user().await;
    door.world.keeper.advance_ms(17_000);
    other.ask("llm", &[&used(&name, 70)]).await;
    until("it is settled", || other.count("settled") == 1).await;
    assert_eq!((other.count("held_elsewhere"), other.count("unsettled")), (1, 0));
    assert_eq!(door.count("handed_over"), 1);
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 70, 0));
}

#[tokio::test]
async fn a_name_of_another_time_is_not_waited_for_without_end() {
    let door = door(LIMITS).await;
    let other = Door::with(LIMITS, ", hold_from_leases: true").await;
    // Of another cluster, whose clock is years ahead.
    other.world.keeper.advance_ms(100_000_000_000);
    let (_, name) = other.until_user().await;
    door.ask("llm", &[&used(&name, 70)]).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    while door.count("unsettled") == 0 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert!(began.elapsed().as_secs() < 90, "{:?}", began.elapsed());
}

#[tokio::test]
async fn only_the_name_that_was_given_settles() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_user().await;
    // Of another tenant, under the same id.
    let mut bytes = URL_SAFE_NO_PAD.decode(&name).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    door.ask("llm", &[&used(&URL_SAFE_NO_PAD.encode(bytes), 1)]).await;
    assert!(!door.world.core.local_holds.is_empty());
    door.ask("llm", &[&used(&name, 70)]).await;
    assert!(door.world.core.local_holds.is_empty());
    assert_eq!(door.count("settled"), asked);
}

#[tokio::test]
async fn a_gateway_that_stops_hands_over_what_it_holds() {
    let door = door(LIMITS).await;
    let (asked, _) = door.until_user().await;
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1), 100));
}

#[tokio::test]
async fn a_gateway_that_stops_charges_nothing_that_is_being_handed_over() {
    let door = door(LIMITS).await;
    let (asked, _) = door.until_user().await;
    let (keeper, core) = (std::sync::Arc::clone(&door.world.keeper), std::sync::Arc::clone(&door.world.core));
    keeper.hold_back_reserves(true);
    let reserves = keeper.reserves();
    keeper.advance_ms(21_000);
    until("it is being handed over", || keeper.reserves() > reserves).await;
    let (account, ()) = tokio::join!(door.stopped(), async {
        core.stop.cancelled().await;
        keeper.hold_back_reserves(false);
    });
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1), 100));
}

#[tokio::test]
async fn where_there_is_no_room_for_both_it_stays_and_is_settled_here() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_user().await;
    door.leave_nothing();
    door.hand_over().await;
    door.ask("llm", &[&used(&name, 70)]).await;
    let counts = ["settled", "not_handed_over", "handed_over"].map(|name| door.count(name));
    assert_eq!(counts, [asked, 1, 0]);
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 70, 0));
}

#[tokio::test]
async fn what_cannot_be_handed_over_at_the_end_is_charged_as_it_was_held() {
    let door = door(LIMITS).await;
    let (asked, _) = door.until_user().await;
    door.leave_nothing();
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 100, 0));
}

#[tokio::test]
async fn what_nobody_settles_is_charged_as_it_was_held() {
    let door = door(LIMITS).await;
    let (asked, _) = door.until_user().await;
    door.leave_nothing();
    door.world.keeper.advance_ms(21_000);
    until("it is tried", || door.count("not_handed_over") > 0).await;
    door.world.keeper.advance_ms(640_000);
    until("it is charged", || door.world.core.local_holds.is_empty()).await;
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * (asked - 1) + 100, 0));
}

#[tokio::test]
async fn what_is_refused_by_another_limit_is_given_back() {
    let door = door(LIMITS).await;
    let (asked, name) = door.until_user().await;
    door.ask("llm", &[&used(&name, 30)]).await;
    assert!(door.told("llm", &[USER, "closed=x"]).await.starts_with("OVER"));
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (30 * asked, 0));
}

#[tokio::test]
async fn leases_hold_nothing_for_proxies_where_the_gateway_does_not_say_so() {
    let door = Door::new(LIMITS).await;
    for asked in 1..=30 {
        let name = reservation(&door.ask("llm", &[USER]).await);
        door.ask("llm", &[&used(&name, 30)]).await;
        assert!(door.world.keeper.reserves() >= asked);
    }
    let account = door.stopped().await;
    assert_eq!(account("llm/user", "a"), (900, 0));
}
