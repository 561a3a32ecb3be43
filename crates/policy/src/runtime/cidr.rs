//! Address prefixes. IPv4 addresses inside of IPv6 (`::ffff:a.b.c.d`) count as the IPv4 addresses they are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// `10.0.0.0/8`, `2001:db8::/32`, or one address. Bits behind the prefix do not count: `10.1.2.3/8` is `10.0.0.0/8`.
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
    /// The prefix of `length` bits around an address. `None`: the address has fewer.
    pub fn around(address: IpAddr, length: u8) -> Option<Self> {
        let network = match address.to_canonical() {
            IpAddr::V4(address) => {
                let host_bits = 32u32.checked_sub(length.into())?;
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let host_bits = 128u32.checked_sub(length.into())?;
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Some(Self { network, length })
    }

    /// Whether the address lies inside. One of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::around(address, self.length) == Some(*self)
    }

    /// In bits.
    pub fn length(&self) -> u8 {
        self.length
    }
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
        let length: u8 = match length {
            // Not `+8`, which the parser would take.
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().filter(|length| *length <= width).ok_or_else(error)?
            }
            Some(_) => return Err(error()),
            None => width,
        };
        // `::ffff:10.0.0.0/104` is 10.0.0.0/8 in other words; a shorter prefix of those addresses is not one of IPv4.
        let length = match address.to_canonical() {
            IpAddr::V4(_) if address.is_ipv6() => length.checked_sub(96).ok_or_else(error)?,
            _ => length,
        };
        Self::around(address, length).ok_or_else(error)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}
