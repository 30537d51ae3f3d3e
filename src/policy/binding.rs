//! What a session is bound to: the client's address prefix, and as a signal its user agent
//! (S53-S58, VR-62).

use std::net::IpAddr;
use std::sync::Arc;

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
            OnMismatch::Log => place.or(Some(Mismatch::Signal("user-agent"))),
            action @ (OnMismatch::Reauthenticate | OnMismatch::Revoke) => Some(Mismatch::UserAgent(action)),
        }
    }

    fn compare_address(&self, rules: BindingRules, address: IpAddr) -> Option<Mismatch> {
        let same = match (rules.bind, self.address, address) {
            (Bind::Off, _, _) => true,
            (Bind::Exact, bound, shown) => bound == shown,
            (Bind::Subnet, IpAddr::V4(bound), IpAddr::V4(shown)) => bound.octets()[..3] == shown.octets()[..3],
            (Bind::Subnet, IpAddr::V6(bound), IpAddr::V6(shown)) => bound.segments()[..4] == shown.segments()[..4],
            // Browsers change the family within a page load (Happy Eyeballs): only a signal.
            (Bind::Subnet, IpAddr::V4(_) | IpAddr::V6(_), _) => return Some(Mismatch::Signal("address-family")),
        };
        match rules.on_mismatch {
            _ if same => None,
            OnMismatch::Log => Some(Mismatch::Signal("address")),
            action @ (OnMismatch::Reauthenticate | OnMismatch::Revoke) => Some(Mismatch::Address(action)),
        }
    }
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
