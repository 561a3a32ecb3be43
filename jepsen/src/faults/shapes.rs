//! Which packets a partition drops. Pure: nodes in, directions out.

use std::collections::BTreeSet;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use crate::deploy::{Direction, Place, between};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A minority and a majority, drawn by lot.
    Halves,
    /// Each hears a majority, itself among them, and no two hear the same one.
    Ring,
    /// Two halves that do not see each other, and one node that sees both.
    Bridge,
    /// One node hears nobody, or nobody hears it.
    OneWay,
    /// One node (the leader) and the rest.
    Alone,
    /// Gateways and clients do not reach some nodes, which reach each other.
    Clients,
}

/// What is dropped, and in words. `first`: the leader, if there is one; `clients`: who is not a node.
pub fn cut(
    shape: Shape,
    nodes: &[u64],
    first: Option<u64>,
    clients: &[Place],
    random: &mut StdRng,
) -> (BTreeSet<Direction>, String) {
    let mut order = nodes.to_vec();
    order.shuffle(random);
    let half = order.len() / 2;
    match shape {
        Shape::Halves => {
            let (less, more) = order.split_at(half);
            (apart(less, more), format!("{less:?} | {more:?}"))
        }
        Shape::Ring => (ring(&order), format!("each hears the next {half} of {order:?}")),
        Shape::Bridge => {
            let bridge = order[half];
            let (less, more) = (&order[..half], order.get(half + 1..).unwrap_or_default());
            (apart(less, more), format!("{less:?} | {bridge} | {more:?}"))
        }
        Shape::OneWay => {
            let (one, rest) = order.split_first().map_or((0, &[][..]), |(one, rest)| (*one, rest));
            let deaf = random.random_bool(0.5);
            let to = |id: &u64| (Place::Node(one), Place::Node(*id));
            let from = |id: &u64| (Place::Node(*id), Place::Node(one));
            let directions =
                if deaf { rest.iter().map(from).collect() } else { rest.iter().map(to).collect() };
            let words =
                if deaf { format!("node {one} hears nobody") } else { format!("nobody hears node {one}") };
            (directions, words)
        }
        Shape::Alone => {
            let one = first.or_else(|| order.first().copied()).unwrap_or_default();
            let rest: Vec<u64> = order.into_iter().filter(|id| *id != one).collect();
            (apart(&[one], &rest), format!("node {one} | {rest:?}"))
        }
        Shape::Clients => {
            // At least one node is cut off, and with more than one at least one is not.
            let count = random.random_range(1..=order.len().saturating_sub(1).max(1));
            let away = &order[..count.min(order.len())];
            let some: Vec<Place> = if random.random_bool(0.5) {
                clients.to_vec()
            } else {
                clients.choose(random).copied().into_iter().collect()
            };
            let places: Vec<Place> = away.iter().map(|id| Place::Node(*id)).collect();
            (between(&some, &places), format!("{some:?} | nodes {away:?}"))
        }
    }
}

fn apart(left: &[u64], right: &[u64]) -> BTreeSet<Direction> {
    let places = |ids: &[u64]| ids.iter().map(|id| Place::Node(*id)).collect::<Vec<_>>();
    between(&places(left), &places(right))
}

/// In a ring, each hears as many of those after it as make a majority with itself.
fn ring(order: &[u64]) -> BTreeSet<Direction> {
    let count = order.len();
    let mut dropped = BTreeSet::new();
    for place in 0..count {
        for distance in count / 2 + 1..count {
            let from = order[(place + distance) % count];
            dropped.insert((Place::Node(from), Place::Node(order[place])));
        }
    }
    dropped
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    /// Whom each node hears, itself among them.
    fn heard(nodes: &[u64], dropped: &BTreeSet<Direction>) -> Vec<BTreeSet<u64>> {
        let hears = |me: u64| {
            let open = |from: &u64| !dropped.contains(&(Place::Node(*from), Place::Node(me)));
            nodes.iter().copied().filter(open).collect()
        };
        nodes.iter().map(|me| hears(*me)).collect()
    }

    fn draw(shape: Shape, nodes: &[u64], seed: u64) -> BTreeSet<Direction> {
        let clients = [Place::Harness, Place::Gateway(0)];
        cut(shape, nodes, nodes.first().copied(), &clients, &mut StdRng::seed_from_u64(seed)).0
    }

    #[test]
    fn in_a_ring_each_hears_a_majority_and_no_two_the_same() {
        for count in [3, 5, 7] {
            let nodes: Vec<u64> = (1..=count).collect();
            for seed in 0..20 {
                let heard = heard(&nodes, &draw(Shape::Ring, &nodes, seed));
                assert!(heard.iter().all(|heard| heard.len() == nodes.len() / 2 + 1), "{heard:?}");
                let different: BTreeSet<_> = heard.iter().collect();
                assert_eq!(different.len(), nodes.len(), "{heard:?}");
            }
        }
    }

    #[test]
    fn a_bridge_hears_all_and_the_others_not() {
        for count in [3, 5] {
            let nodes: Vec<u64> = (1..=count).collect();
            let heard = heard(&nodes, &draw(Shape::Bridge, &nodes, 7));
            let all = heard.iter().filter(|heard| heard.len() == nodes.len()).count();
            assert_eq!(all, 1, "{heard:?}");
            assert!(heard.iter().all(|heard| heard.len() > nodes.len() / 2), "{heard:?}");
        }
    }

    #[test]
    fn halves_leave_one_majority() {
        let nodes = [1, 2, 3, 4, 5];
        for seed in 0..20 {
            let heard = heard(&nodes, &draw(Shape::Halves, &nodes, seed));
            assert_eq!(heard.iter().filter(|heard| heard.len() == 3).count(), 3, "{heard:?}");
            assert_eq!(heard.iter().filter(|heard| heard.len() == 2).count(), 2, "{heard:?}");
        }
    }

    #[test]
    fn the_leader_is_alone() {
        let heard = heard(&[1, 2, 3], &draw(Shape::Alone, &[1, 2, 3], 1));
        assert_eq!(heard, [BTreeSet::from([1]), BTreeSet::from([2, 3]), BTreeSet::from([2, 3])]);
    }

    #[test]
    fn one_way_is_one_way() {
        for seed in 0..10 {
            let dropped = draw(Shape::OneWay, &[1, 2, 3], seed);
            assert_eq!(dropped.len(), 2);
            assert!(dropped.iter().all(|(from, to)| !dropped.contains(&(*to, *from))), "{dropped:?}");
        }
    }

    #[test]
    fn clients_are_never_cut_from_all_nodes_and_nodes_never_from_each_other() {
        let nodes = [1, 2, 3];
        for seed in 0..50 {
            let dropped = draw(Shape::Clients, &nodes, seed);
            assert!(!dropped.is_empty());
            assert!(heard(&nodes, &dropped).iter().all(|heard| heard.len() == 3));
            for client in [Place::Harness, Place::Gateway(0)] {
                let away = nodes.iter().filter(|id| dropped.contains(&(client, Place::Node(**id)))).count();
                assert!(away < nodes.len(), "{dropped:?}");
            }
        }
    }

    #[test]
    fn a_seed_always_draws_the_same() {
        for shape in [Shape::Halves, Shape::Ring, Shape::OneWay, Shape::Clients] {
            let nodes = [1, 2, 3, 4, 5];
            assert_eq!(draw(shape, &nodes, 42), draw(shape, &nodes, 42));
        }
    }
}
