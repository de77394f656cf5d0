//! Access rules as settings write them: which clients may ask for which identities. Parsing a rule does not
//! look up its user; the service does so when it starts. Host names are not accepted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use glob::Pattern;
use keystore::NameEmail;

use crate::pattern::{matches_some_identity, parse_pattern};

/// An access rule, written `CLIENTS PATTERN...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// The clients that the rule applies to.
    pub clients: Clients,
    patterns: Vec<Pattern>,
}

/// The clients that a rule applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Clients that connect over TCP from an address in this network.
    Network(Network),
    /// Clients on a Unix socket that run as this user, given by name or number.
    User(String),
}

/// A network: all addresses that share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The first address of the network. Never an IPv4-mapped IPv6 address.
    first: IpAddr,
    /// The length of the prefix, in bits.
    bits: u32,
}

/// The result of parsing a part of a rule; the error says what is wrong with the text.
type Read<T> = Result<T, String>;

impl AccessRule {
    /// Whether the clients of this rule may ask for the identity `name_email`.
    pub fn covers(&self, name_email: &NameEmail) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name_email.as_str()))
    }
}

impl Network {
    /// Whether the network contains `address`. An IPv4-mapped IPv6 address counts as the IPv4 address; `::/0`
    /// contains no IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same_bits = match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(other)) => {
                (first.to_bits() ^ other.to_bits()).leading_zeros()
            }
            (IpAddr::V6(first), IpAddr::V6(other)) => {
                (first.to_bits() ^ other.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        same_bits >= self.bits
    }

    /// Returns the same network as an IPv4 network if its addresses are IPv4-mapped IPv6 addresses.
    fn canonical(self) -> Self {
        match (self.first.to_canonical(), self.bits.checked_sub(width(self.first) - 32)) {
            (first @ IpAddr::V4(_), Some(bits)) => Self { first, bits },
            _ => self,
        }
    }

    /// Returns the network of the same size that contains `first`, by clearing the bits after the prefix.
    fn masked(self) -> Self {
        let bits = self.bits;
        let first = match self.first {
            IpAddr::V4(first) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                Ipv4Addr::from_bits(first.to_bits() & mask).into()
            }
            IpAddr::V6(first) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                Ipv6Addr::from_bits(first.to_bits() & mask).into()
            }
        };
        Self { first, bits }
    }

    /// Whether the network contains all IPv4 addresses or all IPv6 addresses.
    pub fn is_everything(&self) -> bool {
        self.bits == 0
    }

    /// Whether the network contains loopback addresses only.
    pub fn is_loopback(&self) -> bool {
        // All bits of `first` after the prefix are zero. If `first` is a loopback address, the prefix therefore
        // contains the bits that make it one.
        self.first.is_loopback()
    }
}

impl FromStr for AccessRule {
    type Err = String;

    fn from_str(text: &str) -> Read<Self> {
        parse(text).map_err(|why| format!("the rule {:?}: {why}", text.trim()))
    }
}

fn parse(text: &str) -> Read<AccessRule> {
    let mut words = text.split_whitespace();
    let clients = words.next().unwrap_or_default().parse()?;
    let patterns: Vec<_> = words.map(identities).collect::<Read<_>>()?;
    if patterns.is_empty() {
        return Err(
            "it names no identities; add a pattern like '*#*@copr.example.org', or *".into()
        );
    }
    Ok(AccessRule { clients, patterns })
}

fn identities(text: &str) -> Read<Pattern> {
    let pattern = parse_pattern(text)?;
    if !matches_some_identity(&pattern) {
        return Err(format!(
            "no identity matches {text:?}; one looks like user#project@copr.example.org"
        ));
    }
    Ok(pattern)
}

impl FromStr for Clients {
    type Err = String;

    fn from_str(text: &str) -> Read<Self> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: must be followed by the name or number of a user".into()),
            Some(user) => Ok(Self::User(user.into())),
            None => text.parse().map(Self::Network),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Read<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        if address.contains('%') {
            return Err(format!("leave out what is behind % in {text:?}: any interface will do"));
        }
        let first: IpAddr = address.parse().map_err(|_| {
            format!(
                "{text:?} must be an IP address, a network like 192.0.2.0/24, or unix:USER; names of \
                 hosts are not looked up"
            )
        })?;
        let is_number = |bits: &&str| bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => width(first),
            Some(bits) => {
                let bits = Some(bits).filter(is_number).and_then(|bits| bits.parse().ok());
                bits.filter(|bits| *bits <= width(first)).ok_or_else(|| {
                    format!("behind the / there must be a number from 0 to {}", width(first))
                })?
            }
        };
        let network = Self { first, bits }.canonical();
        let begin = network.masked();
        if begin.first != network.first {
            return Err(format!("{text} is no network; {begin} is, and {address} is one client"));
        }
        if network.first.is_unspecified() && network.bits == width(network.first) {
            return Err(format!(
                "no client has the address {0}; {0}/0 is all of them",
                network.first
            ));
        }
        Ok(network)
    }
}

/// Returns the length of an address in bits.
fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn refused(rule: &str) -> String {
        match rule.parse::<AccessRule>() {
            Err(why) => why,
            Ok(rule) => panic!("{rule:?} was taken"),
        }
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_other() {
        for (text, inside, outside) in [
            ("192.0.2.1", "192.0.2.1 ::ffff:192.0.2.1", "192.0.2.0 192.0.2.2 ::192.0.2.1 ::1"),
            ("192.0.2.0/24", "192.0.2.0 192.0.2.255 ::ffff:192.0.2.9", "192.0.1.255 192.0.3.0"),
            ("192.0.2.4/30", "192.0.2.4 192.0.2.7", "192.0.2.3 192.0.2.8"),
            ("0.0.0.0/0", "0.0.0.1 255.255.255.255 ::ffff:1.2.3.4", "::1 2001:db8::1"),
            ("::ffff:192.0.2.0/120", "192.0.2.7 ::ffff:192.0.2.7", "192.0.3.0"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("::ffff:0:0/96", "192.0.2.1 ::ffff:0.0.0.1", "::1 2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9:: 32.1.13.184"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("::/0", "::1 ffff::", "192.0.2.1 ::ffff:192.0.2.1"),
            ("::1", "::1", "127.0.0.1 ::2"),
            ("127.0.0.0/8", "127.1.2.3 ::ffff:127.0.0.1", "128.0.0.0 ::1"),
        ] {
            let network = network(text);
            for inside in inside.split(' ') {
                assert!(network.contains(address(inside)), "{text} {inside}");
            }
            for outside in outside.split(' ') {
                assert!(!network.contains(address(outside)), "{text} {outside}");
            }
            assert_eq!(network.to_string().parse(), Ok(network), "{text}");
        }
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.0.0.0/8", true),
            ("::ffff:127.0.0.0/104", true),
            ("::1", true),
            ("126.0.0.0/7", false),
            ("::/127", false),
            ("0.0.0.0/0", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(network(text).is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn a_rule_is_for_the_identities_of_its_patterns() -> Result<(), String> {
        let rule: AccessRule =
            "  192.0.2.0/24\tuser#*@copr.example.org   @group#*@[cd].example.org ".parse()?;
        assert_eq!(rule.clients, Clients::Network(network("192.0.2.0/24")));
        for (text, expected) in [
            ("user#project@copr.example.org", true),
            ("User#project@copr.example.org", false),
            ("@user#project@copr.example.org", false),
            ("@group#a.b-c@d.example.org", true),
            ("group#a@d.example.org", false),
            ("@group#a@e.example.org", false),
        ] {
            let name_email = NameEmail::parse(text).map_err(|e| e.to_string())?;
            assert_eq!(rule.covers(&name_email), expected, "{text}");
        }
        for (text, user) in [("unix:copr *", "copr"), ("unix:0 *#*", "0"), ("unix:a.b *", "a.b")] {
            assert_eq!(text.parse::<AccessRule>()?.clients, Clients::User(user.into()));
        }
        Ok(())
    }

    #[test]
    fn a_rule_that_can_never_hold_is_refused_in_one_sentence() {
        for (rule, expected) in [
            ("127.0.0.1", "names no identities"),
            ("unix:copr", "names no identities"),
            ("unix: *", "name or number of a user"),
            ("localhost *", "names of hosts are not looked up"),
            ("* *", "must be an IP address"),
            ("copr *", "must be an IP address"),
            ("[::1] *", "must be an IP address"),
            ("127.0.0.1:5167 *", "must be an IP address"),
            ("127.0.0.01 *", "must be an IP address"),
            ("127.1 *", "must be an IP address"),
            ("/8 *", "must be an IP address"),
            ("\u{1b}[31m *", "must be an IP address"),
            ("fe80::1%eth0 *", "leave out what is behind % in \"fe80::1%eth0\""),
            ("fe80::1%\u{1b} *", "leave out what is behind %"),
            ("fe80::%2/10 *", "leave out what is behind %"),
            ("192.0.2.1/24 *", "192.0.2.0/24 is, and 192.0.2.1 is one client"),
            ("2001:db8::1/32 *", "2001:db8::/32 is, and"),
            ("::ffff:192.0.2.1/120 *", "192.0.2.0/24 is, and"),
            ("::ffff:0:0/95 *", "::fffe:0:0/95 is, and"),
            ("10.0.0.0/33 *", "a number from 0 to 32"),
            ("::/129 *", "a number from 0 to 128"),
            ("10.0.0.0/ *", "a number from 0 to 32"),
            ("10.0.0.0/+8 *", "a number from 0 to 32"),
            ("10.0.0.0/255.0.0.0 *", "a number from 0 to 32"),
            ("10.0.0.0/8/8 *", "a number from 0 to 32"),
            ("0.0.0.0 *", "0.0.0.0/0 is all of them"),
            ("::ffff:0.0.0.0 *", "0.0.0.0/0 is all of them"),
            ("::/128 *", "::/0 is all of them"),
            ("192.0.2.1 [x", "the pattern must be"),
            ("192.0.2.1 * a#b", "no identity matches \"a#b\""),
            ("192.0.2.1 ::1 *", "no identity matches \"::1\""),
        ] {
            let why = refused(rule);
            assert!(why.starts_with(&format!("the rule {rule:?}: ")), "{why}");
            assert!(why.contains(expected), "{rule:?}: {why}");
            assert!(!why.contains(char::is_control), "{why:?}");
        }
    }

    proptest! {
        #[test]
        fn bits_decide(first: u32, other: u32, flipped in 0_u32..32, bits in 0_u32..=32) {
            let network = Network { first: Ipv4Addr::from_bits(first).into(), bits }.masked();
            prop_assert!(network.contains(Ipv4Addr::from_bits(first).into()));
            let near = Ipv4Addr::from_bits(first ^ (1 << (31 - flipped)));
            prop_assert_eq!(network.contains(near.into()), flipped >= bits);
            prop_assert_eq!(network.contains(near.to_ipv6_mapped().into()), flipped >= bits);
            let size = 1_u64 << (32 - bits);
            let same = u64::from(first) / size == u64::from(other) / size;
            prop_assert_eq!(network.contains(Ipv4Addr::from_bits(other).into()), same);
            // The same network of IPv4-mapped IPv6 addresses has a prefix that is 96 bits longer.
            let mapped = Ipv4Addr::from_bits(first).to_ipv6_mapped().into();
            let mapped = Network { first: mapped, bits: bits + 96 }.canonical().masked();
            prop_assert_eq!(mapped, network);
        }

        #[test]
        fn bits_of_ipv6_decide(first: u128, flipped in 0_u32..128, bits in 0_u32..=128) {
            let network = Network { first: Ipv6Addr::from_bits(first).into(), bits }.masked();
            let near = IpAddr::from(Ipv6Addr::from_bits(first ^ (1 << (127 - flipped))));
            prop_assume!(near.to_canonical() == near);
            prop_assert_eq!(network.contains(near), flipped >= bits);
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "[0-9a-f:.%/]{0,24}|[0-9.]{7,9}/[0-9]{1,3}") {
            if let Ok(network) = text.parse::<Network>() {
                prop_assert_eq!(network.to_string().parse(), Ok(network));
                prop_assert_eq!(network.masked(), network);
            }
        }
    }
}
