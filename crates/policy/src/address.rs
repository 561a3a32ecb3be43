//! Addresses that neither a gateway nor a node connects to on behalf of a policy: there are the metadata services of
//! clouds, which hand out credentials, and never a provider or a receiver of alerts.

use std::net::IpAddr;

/// Where AWS has its metadata service in IPv6: `fd00:ec2::/32`.
const AWS_SERVICES: [u16; 2] = [0xfd00, 0x0ec2];

/// Link-local and unspecified addresses, and those of AWS's own services.
pub fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_forbidden(IpAddr::V4(v4)),
            None => v6.is_unicast_link_local() || v6.is_unspecified() || v6.segments()[..2] == AWS_SERVICES,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_addresses() {
        for (address, forbidden) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.1.1", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("0.0.0.0", true),
            ("::", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("fd00:ec3::254", false),
            ("::1", false),
        ] {
            assert_eq!(is_forbidden(address.parse().unwrap()), forbidden, "{address}");
        }
    }
}
