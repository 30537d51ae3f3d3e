//! What a session is bound to: the client's address prefix, and as a signal its user agent
//! (S53-S58, VR-62).

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;

/// Another network, as the log calls it.
const ADDRESS: &str = "address";
/// IPv4 instead of IPv6, or the other way round.
const FAMILY: &str = "address-family";
/// Another browser.
const USER_AGENT: &str = "user-agent";

/// How much of the address must stay the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// /24 and /64; a change between IPv4 and IPv6 is only logged.
    #[default]
    Subnet,
    /// The address itself.
    Exact,
    /// Nothing.
    Off,
}

/// What is done about a mismatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMismatch {
    /// Treat the request as one without a session; the session itself goes on.
    #[default]
    Reauthenticate,
    /// Only log.
    Log,
    /// End the session.
    Revoke,
}

/// The binding part of `[session]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingRules {
    /// Which part of the address.
    pub bind: Bind,
    /// For the address.
    pub on_mismatch: OnMismatch,
    /// For the user agent.
    pub on_user_agent_change: OnMismatch,
}

/// What the client looked like when the session began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its address.
    pub address: IpAddr,
    /// Its `User-Agent`, cut to 256 bytes, for listing and as a signal.
    pub user_agent: Option<Arc<str>>,
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Another address prefix: what to do.
    Address(OnMismatch),
    /// Another address family, or another user agent when it is only a signal.
    Signal(&'static str),
    /// Another user agent, and it is more than a signal.
    UserAgent(OnMismatch),
}

impl Mismatch {
    /// What differs, as the log calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address(_) => ADDRESS,
            Self::UserAgent(_) => USER_AGENT,
            Self::Signal(what) => what,
        }
    }
}

impl Binding {
    /// Bound to this client from now on.
    pub fn new(address: IpAddr, user_agent: Option<&str>) -> Self {
        Self { address: address.to_canonical(), user_agent: user_agent.map(|text| Arc::from(cut(text))) }
    }

    /// The first thing that differs, strongest first.
    pub fn compare(&self, rules: BindingRules, address: IpAddr, user_agent: Option<&str>) -> Option<Mismatch> {
        let place = self.compare_address(rules, address.to_canonical());
        if let Some(Mismatch::Address(_)) = place {
            return place;
        }
        let same_agent = self.user_agent.as_deref() == user_agent.map(cut);
        match rules.on_user_agent_change {
            _ if same_agent => place,
            OnMismatch::Log => place.or(Some(Mismatch::Signal(USER_AGENT))),
            action @ (OnMismatch::Reauthenticate | OnMismatch::Revoke) => Some(Mismatch::UserAgent(action)),
        }
    }

    fn compare_address(&self, rules: BindingRules, address: IpAddr) -> Option<Mismatch> {
        let difference = match rules.bind {
            Bind::Off => None,
            Bind::Exact => (self.address != address).then_some(ADDRESS),
            Bind::Subnet => apart(self.address, address),
        };
        match (difference?, rules.on_mismatch) {
            // Browsers change the family within a page load (Happy Eyeballs): only a signal.
            (signal @ FAMILY, _) | (signal, OnMismatch::Log) => Some(Mismatch::Signal(signal)),
            (_, action @ (OnMismatch::Reauthenticate | OnMismatch::Revoke)) => Some(Mismatch::Address(action)),
        }
    }

    /// All that differs between two clients, whatever is done about it, as the log calls it.
    pub fn changes(&self, other: &Self) -> Vec<&'static str> {
        let agent = (self.user_agent != other.user_agent).then_some(USER_AGENT);
        apart(self.address, other.address).into_iter().chain(agent).collect()
    }
}

/// The /24 or /64 that an address is in: as much as one client keeps, and one attacker may have.
pub fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from(u32::from(address) & 0xffff_ff00)),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
    }
}

/// What is different about two addresses; nothing within a prefix.
fn apart(one: IpAddr, other: IpAddr) -> Option<&'static str> {
    if one.is_ipv4() != other.is_ipv4() {
        return Some(FAMILY);
    }
    (prefix(one) != prefix(other)).then_some(ADDRESS)
}

/// The first 256 bytes, at a character boundary.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(256)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(bind: Bind, on_mismatch: OnMismatch, bound: &str, shown: &str) -> Option<Mismatch> {
        let rules = BindingRules { bind, on_mismatch, on_user_agent_change: OnMismatch::Log };
        Binding::new(bound.parse().unwrap(), None).compare(rules, shown.parse().unwrap(), None)
    }

    #[test]
    fn prefixes_and_families() {
        // S54, S55, VR-62
        let reauthenticate = Some(Mismatch::Address(OnMismatch::Reauthenticate));
        for (bind, bound, shown, expected) in [
            (Bind::Subnet, "192.0.2.1", "192.0.2.254", None),
            (Bind::Subnet, "192.0.2.1", "192.0.3.1", reauthenticate),
            (Bind::Subnet, "192.0.2.1", "::ffff:192.0.2.9", None),
            (Bind::Subnet, "2001:db8:0:1::1", "2001:db8:0:1:ffff::", None),
            (Bind::Subnet, "2001:db8:0:1::1", "2001:db8:0:2::1", reauthenticate),
            (Bind::Subnet, "192.0.2.1", "2001:db8::1", Some(Mismatch::Signal("address-family"))),
            (Bind::Exact, "127.0.0.1", "127.0.0.2", reauthenticate),
            (Bind::Exact, "127.0.0.1", "::ffff:127.0.0.1", None),
            (Bind::Off, "127.0.0.1", "203.0.113.5", None),
        ] {
            assert_eq!(compare(bind, OnMismatch::Reauthenticate, bound, shown), expected, "{bound} {shown}");
        }
    }

    #[test]
    fn another_family_is_only_a_signal_whatever_is_done_about_other_networks() {
        // VR-62
        for action in [OnMismatch::Log, OnMismatch::Reauthenticate, OnMismatch::Revoke] {
            for (bound, shown) in [("192.0.2.1", "2001:db8::1"), ("2001:db8::1", "192.0.2.1")] {
                assert_eq!(compare(Bind::Subnet, action, bound, shown), Some(Mismatch::Signal("address-family")));
                assert_eq!(compare(Bind::Off, action, bound, shown), None);
            }
        }
    }

    #[test]
    fn all_that_differs_between_two_clients_is_told() {
        let client = |address: &str, agent| Binding::new(address.parse().unwrap(), Some(agent));
        let here = client("192.0.2.1", "Firefox");
        for (there, expected) in [
            (client("192.0.2.200", "Firefox"), &[][..]),
            (client("::ffff:192.0.2.200", "Firefox"), &[]),
            (client("192.0.3.1", "Firefox"), &["address"]),
            (client("2001:db8::1", "Firefox"), &["address-family"]),
            (client("192.0.2.1", "curl"), &["user-agent"]),
            (client("192.0.3.1", "curl"), &["address", "user-agent"]),
        ] {
            assert_eq!(here.changes(&there), expected, "{there:?}");
        }
    }

    #[test]
    fn the_action_is_configured() {
        // S56
        assert_eq!(compare(Bind::Exact, OnMismatch::Log, "127.0.0.1", "127.0.0.2"), Some(Mismatch::Signal("address")));
        assert_eq!(
            compare(Bind::Exact, OnMismatch::Revoke, "127.0.0.1", "127.0.0.2"),
            Some(Mismatch::Address(OnMismatch::Revoke))
        );
    }

    #[test]
    fn another_user_agent_is_a_signal_or_more() {
        // S57
        let address = "127.0.0.1".parse().unwrap();
        let binding = Binding::new(address, Some("Firefox"));
        let rules = |on_user_agent_change| BindingRules {
            bind: Bind::Subnet,
            on_mismatch: OnMismatch::Reauthenticate,
            on_user_agent_change,
        };
        assert_eq!(binding.compare(rules(OnMismatch::Log), address, Some("Firefox")), None);
        assert_eq!(
            binding.compare(rules(OnMismatch::Log), address, Some("curl")),
            Some(Mismatch::Signal("user-agent"))
        );
        assert_eq!(
            binding.compare(rules(OnMismatch::Revoke), address, None),
            Some(Mismatch::UserAgent(OnMismatch::Revoke))
        );
    }

    #[test]
    fn long_user_agents_are_cut_alike() {
        let address = "127.0.0.1".parse().unwrap();
        let long = "\u{e9}".repeat(300);
        let rules =
            BindingRules { bind: Bind::Off, on_mismatch: OnMismatch::Log, on_user_agent_change: OnMismatch::Log };
        assert_eq!(Binding::new(address, Some(&long)).compare(rules, address, Some(&long)), None);
    }
}
