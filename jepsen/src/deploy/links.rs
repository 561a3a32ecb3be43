//! Which packets are dropped between whom, as rules of nft in the bridge's namespace. What is wanted is kept here, and the
//! whole table is replaced at each change: so what one fault undoes never takes away what another one did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Who has an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Node(u64),
    /// By its place, from 0.
    Gateway(usize),
    Providers,
    /// The clients that run in the harness.
    Harness,
}

/// From, to.
pub type Direction = (Place, Place);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// By the fault that wants it.
    cuts: BTreeMap<String, BTreeSet<Direction>>,
    /// Percent of the packets that are dropped.
    loss: BTreeMap<String, (u8, BTreeSet<Direction>)>,
}

impl Links {
    pub fn cut(&mut self, owner: &str, directions: BTreeSet<Direction>) {
        self.cuts.insert(owner.to_owned(), directions);
    }

    pub fn lose(&mut self, owner: &str, percent: u8, directions: BTreeSet<Direction>) {
        self.loss.insert(owner.to_owned(), (percent, directions));
    }

    pub fn mend(&mut self, owner: &str) {
        self.cuts.remove(owner);
        self.loss.remove(owner);
    }

    pub fn mend_all(&mut self) {
        *self = Self::default();
    }

    /// Takes the place of the table that is there, at once.
    pub fn table(&self, address: impl Fn(Place) -> Ipv4Addr) -> String {
        let pair = |(from, to): &Direction| format!("{} . {}", address(*from), address(*to));
        let set =
            |directions: &BTreeSet<Direction>| directions.iter().map(pair).collect::<Vec<_>>().join(", ");
        let mut table =
            String::from("table bridge faults\ndelete table bridge faults\ntable bridge faults {\n");
        table += "  chain forward {\n    type filter hook forward priority 0; policy accept;\n";
        let cuts: BTreeSet<Direction> = self.cuts.values().flatten().copied().collect();
        if !cuts.is_empty() {
            let _ = writeln!(table, "    ip saddr . ip daddr {{ {} }} drop", set(&cuts));
        }
        for (percent, directions) in self.loss.values().filter(|(_, directions)| !directions.is_empty()) {
            let _ = writeln!(
                table,
                "    ip saddr . ip daddr {{ {} }} numgen random mod 100 < {percent} drop",
                set(directions)
            );
        }
        table += "  }\n}\n";
        table
    }
}

/// Both ways between each of `left` and each of `right`.
pub fn between(left: &[Place], right: &[Place]) -> BTreeSet<Direction> {
    let pairs = left.iter().flat_map(|one| right.iter().map(move |other| (*one, *other)));
    pairs.filter(|(one, other)| one != other).flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(place: Place) -> Ipv4Addr {
        let Place::Node(id) = place else { return Ipv4Addr::new(10, 0, 9, 9) };
        Ipv4Addr::new(10, 0, 0, u8::try_from(id).unwrap())
    }

    #[test]
    fn one_fault_mended_leaves_what_another_cut() {
        let mut links = Links::default();
        assert!(!links.table(address).contains("drop"));
        links.cut("leader", between(&[Place::Node(1)], &[Place::Node(2)]));
        links.cut("halves", between(&[Place::Node(1)], &[Place::Node(2), Place::Node(3)]));
        links.mend("halves");
        let table = links.table(address);
        assert!(table.contains("{ 10.0.0.1 . 10.0.0.2, 10.0.0.2 . 10.0.0.1 } drop"), "{table}");
        assert!(!table.contains("10.0.0.3"), "{table}");
        links.mend("leader");
        assert_eq!(links, Links::default());
    }

    #[test]
    fn loss_stands_after_the_cuts() {
        let mut links = Links::default();
        links.lose("loss", 30, BTreeSet::from([(Place::Node(1), Place::Harness)]));
        let table = links.table(address);
        assert!(table.contains("{ 10.0.0.1 . 10.0.9.9 } numgen random mod 100 < 30 drop"), "{table}");
    }

    #[test]
    fn nobody_is_cut_from_itself() {
        let all = [Place::Node(1), Place::Node(2)];
        assert_eq!(between(&all, &all).len(), 2);
    }
}
