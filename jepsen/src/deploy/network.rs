//! A network of its own for one deployment: a bridge in a namespace, and a namespace on it for each node, each gateway and
//! the providers. One end is in the namespace of the harness, whose clients use it. All of it is called after the process
//! that made it, so that `sweep.rs` can remove what a dead one left.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;

use super::delay::Delay;
use super::links::{Direction, Links, Place};
use super::{sweep, tool};

const BRIDGE: &str = "br0";
/// What all of it needs.
const TOOLS: [&str; 3] = ["ip", "nft", "nsenter"];
/// Second numbers of `10.x.0.0/16` that are tried.
const SUBNETS: u32 = 128;
const SUBNET_FIRST: u32 = 64;

#[derive(Debug)]
pub struct Network {
    label: String,
    /// `10.<subnet>.0.0/16`.
    subnet: u8,
    places: Mutex<BTreeSet<Place>>,
    links: Mutex<Links>,
    slow: Mutex<BTreeSet<Place>>,
    delays: Mutex<Vec<Delay>>,
}

/// Why there can be no network of its own here, if so.
pub fn missing() -> Option<String> {
    if !tool::is_root() {
        return Some("namespaces need root".to_owned());
    }
    if let Some(tool) = tool::missing(&TOOLS) {
        return Some(format!("{tool} is not installed"));
    }
    // Root in a container need not be allowed to.
    static TRIED: OnceLock<Option<String>> = OnceLock::new();
    let refused = || Network::new().err().map(|error| format!("namespaces cannot be made: {error:#}"));
    TRIED.get_or_init(refused).clone()
}

impl Network {
    /// # Errors
    /// The kernel or a tool refuses; what was made is removed again.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let label = sweep::label(std::process::id(), number);
        let subnet = free_subnet(std::process::id().wrapping_add(number))?;
        let network = Self {
            label,
            subnet,
            places: Mutex::default(),
            links: Mutex::default(),
            slow: Mutex::default(),
            delays: Mutex::default(),
        };
        let bridge = network.bridge();
        batch(&format!("netns add {bridge}\n"))?;
        batch_in(&bridge, &format!("link add {BRIDGE} type bridge forward_delay 0\nlink set {BRIDGE} up\n"))?;
        network.add(Place::Harness)?;
        Ok(network)
    }

    fn bridge(&self) -> String {
        format!("{}-br", self.label)
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn address(&self, place: Place) -> Ipv4Addr {
        address(self.subnet, place)
    }

    /// The namespace of this place; none for the harness.
    pub fn namespace(&self, place: Place) -> Option<String> {
        (place != Place::Harness).then(|| format!("{}-{}", self.label, port(place)))
    }

    /// Gives it a namespace and an address.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add(&self, place: Place) -> Result<()> {
        let (bridge, port, address) = (self.bridge(), port(place), self.address(place));
        let link = format!("link add {port} netns {bridge} type veth peer name");
        if let Some(namespace) = self.namespace(place) {
            batch(&format!("netns add {namespace}\n{link} eth0 netns {namespace}\n"))?;
            let up = format!("addr add {address}/16 dev eth0\nlink set eth0 up\nlink set lo up\n");
            batch_in(&namespace, &up)?;
        } else {
            let name = &self.label;
            batch(&format!("{link} {name}\naddr add {address}/16 dev {name}\nlink set {name} up\n"))?;
        }
        batch_in(&bridge, &format!("link set {port} master {BRIDGE} up\n"))?;
        self.places.lock().insert(place);
        Ok(())
    }

    /// Whoever runs there must have ended.
    pub fn remove(&self, place: Place) {
        self.places.lock().remove(&place);
        if let Some(namespace) = self.namespace(place) {
            let _ = batch(&format!("netns del {namespace}\n"));
        }
    }

    /// # Errors
    /// nft refuses the rules.
    pub fn cut(&self, owner: &str, directions: BTreeSet<Direction>) -> Result<()> {
        self.change(|links| links.cut(owner, directions))
    }

    /// # Errors
    /// nft refuses the rules.
    pub fn lose(&self, owner: &str, percent: u8, directions: BTreeSet<Direction>) -> Result<()> {
        self.change(|links| links.lose(owner, percent, directions))
    }

    /// # Errors
    /// nft refuses the rules.
    pub fn mend(&self, owner: &str) -> Result<()> {
        self.change(|links| links.mend(owner))
    }

    fn change(&self, change: impl FnOnce(&mut Links)) -> Result<()> {
        // Held until the rules are in force: the last to change is the last to be applied.
        let mut links = self.links.lock();
        change(&mut links);
        let table = links.table(|place| self.address(place));
        let arguments = ["netns", "exec", &self.bridge(), "nft", "-f", "-"];
        tool::run_with("ip", &arguments, &table).map(drop)
    }

    /// No more than this much to and from the place, with a queue of 64 KiB.
    ///
    /// # Errors
    /// tc refuses.
    pub fn throttle(&self, place: Place, kbit: u32) -> Result<()> {
        self.slow.lock().insert(place);
        let rate = format!("{kbit}kbit");
        for (namespace, device) in self.ends(place) {
            let queue = ["root", "tbf", "rate", &rate, "burst", "16kb", "limit", "64kb"];
            let place = ["-n", &namespace, "qdisc", "replace", "dev", &device];
            tool::run("tc", &[&place[..], &queue[..]].concat())?;
        }
        Ok(())
    }

    pub fn unthrottle(&self, place: Place) {
        if self.slow.lock().remove(&place) {
            for (namespace, device) in self.ends(place) {
                // Nothing there is as good.
                let _ = tool::run("tc", &["-n", &namespace, "qdisc", "del", "dev", &device, "root"]);
            }
        }
    }

    fn ends(&self, place: Place) -> Vec<(String, String)> {
        let outer = (self.bridge(), port(place));
        self.namespace(place).map(|inner| (inner, "eth0".to_owned())).into_iter().chain([outer]).collect()
    }

    /// Everything that the place sends comes so much later, and up to `jitter_ms` more.
    ///
    /// # Errors
    /// The packets cannot be had.
    pub fn delay(&self, place: Place, delay_ms: u64, jitter_ms: u64) -> Result<()> {
        let namespace = self.namespace(place).context("the harness's own packets cannot be delayed")?;
        let delay = Delay::start(&namespace, delay_ms, jitter_ms)?;
        self.delays.lock().push(delay);
        Ok(())
    }

    pub fn undelay_all(&self) {
        self.delays.lock().clear();
    }

    /// Everybody reaches everybody, at once.
    ///
    /// # Errors
    /// nft refuses.
    pub fn mend_all(&self) -> Result<()> {
        let slow: Vec<Place> = self.slow.lock().iter().copied().collect();
        slow.into_iter().for_each(|place| self.unthrottle(place));
        self.undelay_all();
        self.change(Links::mend_all)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.undelay_all();
        sweep::remove_network(&self.label);
    }
}

/// As it is called on the bridge.
fn port(place: Place) -> String {
    match place {
        Place::Node(id) => format!("n{id}"),
        Place::Gateway(number) => format!("g{}", number + 1),
        Place::Providers => "providers".to_owned(),
        Place::Harness => "harness".to_owned(),
    }
}

fn address(subnet: u8, place: Place) -> Ipv4Addr {
    let last = |number: u64| u8::try_from(number % 250).unwrap_or_default() + 1;
    match place {
        Place::Node(id) => {
            Ipv4Addr::new(10, subnet, u8::try_from(id / 250 % 100).unwrap_or_default(), last(id))
        }
        Place::Gateway(number) => Ipv4Addr::new(10, subnet, 100, last(number as u64)),
        Place::Providers => Ipv4Addr::new(10, subnet, 101, 1),
        Place::Harness => Ipv4Addr::new(10, subnet, 102, 1),
    }
}

fn free_subnet(first: u32) -> Result<u8> {
    let used = tool::run("ip", &["-4", "-o", "addr", "show"])?;
    let tried = (0..SUBNETS).map(|step| SUBNET_FIRST + (first.wrapping_add(step)) % SUBNETS);
    let mut free = tried.filter(|subnet| !used.contains(&format!(" 10.{subnet}.")));
    let Some(subnet) = free.next() else { bail!("every 10.x.0.0/16 is in use here: see `ip addr`") };
    Ok(u8::try_from(subnet)?)
}

fn batch(commands: &str) -> Result<()> {
    tool::run_with("ip", &["-batch", "-"], commands).map(drop)
}

fn batch_in(namespace: &str, commands: &str) -> Result<()> {
    tool::run_with("ip", &["-n", namespace, "-batch", "-"], commands).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_ports_fit() {
        let nodes = (1..=600).map(Place::Node);
        let gateways = (0..20).map(Place::Gateway);
        let places: Vec<Place> = nodes.chain(gateways).chain([Place::Providers, Place::Harness]).collect();
        let addresses: BTreeSet<Ipv4Addr> = places.iter().map(|place| address(77, *place)).collect();
        assert_eq!(addresses.len(), places.len());
        // A name of a network interface has at most 15 bytes.
        assert!(places.iter().all(|place| port(*place).len() <= 15));
    }
}
