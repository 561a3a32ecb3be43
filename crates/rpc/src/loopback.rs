//! Whether an address can be reached from other machines: without TLS only what cannot be is listened on, unless the operator
//! says otherwise. One rule for every port.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

/// Listens where that may be done: over TLS, on this machine only, or because the operator insists. `None`: it may not be.
/// A name is looked up once, so that what was judged is what is listened on; to be called at start only.
///
/// # Errors
/// It is no address, or a name that nobody knows, or the port is taken.
pub fn listen(
    address: &impl ToSocketAddrs,
    over_tls: bool,
    insecure: bool,
) -> io::Result<Option<TcpListener>> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    if over_tls || insecure || addresses.iter().all(is_loopback) {
        TcpListener::bind(&addresses[..]).map(Some)
    } else {
        Ok(None)
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A name that means another address each time somebody asks.
    struct Fickle(Cell<bool>);

    impl ToSocketAddrs for Fickle {
        type Iter = std::option::IntoIter<SocketAddr>;

        fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
            let address = if self.0.replace(true) { "0.0.0.0:0" } else { "127.0.0.1:0" };
            Ok(Some(address.parse().unwrap()).into_iter())
        }
    }

    #[test]
    fn what_was_looked_at_is_what_is_listened_on() {
        let listener = listen(&Fickle(Cell::new(false)), false, false).unwrap().unwrap();
        assert!(listener.local_addr().unwrap().ip().is_loopback());
        assert!(listen(&Fickle(Cell::new(true)), false, false).unwrap().is_none());
    }

    #[test]
    fn only_this_machine_counts() {
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("[::ffff:0.0.0.0]:1", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(is_loopback(&address.parse().unwrap()), loopback, "{address}");
        }
        let listens = |address, over_tls, insecure| listen(&address, over_tls, insecure).unwrap().is_some();
        assert!(listens("localhost:0", false, false));
        for (over_tls, insecure, may) in [(false, false, false), (true, false, true), (false, true, true)] {
            assert_eq!(listens("0.0.0.0:0", over_tls, insecure), may);
            assert!(listens("127.0.0.1:0", over_tls, insecure));
        }
        assert!(listen(&"nothing", true, true).is_err());
    }
}
