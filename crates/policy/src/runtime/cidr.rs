//! Address prefixes. IPv4 addresses inside of IPv6 (`::ffff:a.b.c.d`) count as the IPv4 addresses they are.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

/// A text that is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is no address prefix; wanted something like 10.0.0.0/8 or 2001:db8::/32")]
pub struct CidrError {
    text: String,
}

impl Cidr {
    /// Whether the address lies inside. One of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                masked(network.to_bits().into(), 32, self.length)
                    == masked(address.to_bits().into(), 32, self.length)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                masked(network.to_bits(), 128, self.length) == masked(address.to_bits(), 128, self.length)
            }
            _ => false,
        }
    }
}

/// The first `length` of `width` bits; the others do not count.
fn masked(bits: u128, width: u8, length: u8) -> u128 {
    bits.checked_shr(u32::from(width - length)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError { text: text.chars().take(64).collect() };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            // Not `+8`, which the parser would take.
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().filter(|length| *length <= width).ok_or_else(error)?
            }
            Some(_) => return Err(error()),
            None => width,
        };
        // `::ffff:10.0.0.0/104` is 10.0.0.0/8 in other words.
        match address.to_canonical() {
            IpAddr::V4(inner) if address.is_ipv6() && length >= 96 => {
                Ok(Self { network: IpAddr::V4(inner), length: length - 96 })
            }
            _ => Ok(Self { network: address, length }),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}
