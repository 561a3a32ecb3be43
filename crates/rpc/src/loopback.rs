//! Whether an address can be reached from other machines: without TLS only what cannot be is listened on, unless the operator
//! says otherwise. One rule for every port.

use std::io;
use std::net::ToSocketAddrs as _;

/// Whether a port may be opened there: over TLS, on this machine only, or because the operator insists.
///
/// # Errors
/// It is no address, or a name that nobody knows.
pub fn may_listen(address: &str, over_tls: bool, insecure: bool) -> io::Result<bool> {
    Ok(over_tls || insecure || is_loopback(address)?)
}

/// Whether all that `host:port` resolves to is on this machine. Asks the resolver for a name; called at start only.
///
/// # Errors
/// It is no address, or a name that nobody knows.
fn is_loopback(address: &str) -> io::Result<bool> {
    let mut addresses = address.to_socket_addrs()?.peekable();
    if addresses.peek().is_none() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses.all(|address| address.ip().to_canonical().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_counts() {
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("localhost:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(is_loopback(address).unwrap(), loopback, "{address}");
        }
        assert!(is_loopback("nothing").is_err());
        for (over_tls, insecure, may) in [(false, false, false), (true, false, true), (false, true, true)] {
            assert_eq!(may_listen("0.0.0.0:1", over_tls, insecure).unwrap(), may);
            assert!(may_listen("127.0.0.1:1", over_tls, insecure).unwrap());
        }
    }
}
