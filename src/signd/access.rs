//! Decides who may sign with which keys. The decision uses only the address or the user of a client: nothing
//! that a client sends is trusted.

use keystore::NameEmail;
use nix::unistd::{Uid, geteuid};

use crate::access_rule::{AccessRule, Clients};
use crate::error::{Error, Result};
use crate::server::Peer;
use crate::settings::Settings;
use crate::users;

/// The first port that users other than root may bind (ip(7)).
const FIRST_FREE_PORT: u16 = 1024;

/// The access rules of the settings `signd.allow` and `signd.reserved_ports`.
#[derive(Debug)]
pub struct Access {
    /// The rules, each with the user it applies to if it is about a Unix user.
    rules: Vec<(AccessRule, Option<Uid>)>,
    reserved_ports: bool,
}

impl Access {
    /// Loads the rules and looks up their users. Without rules, loopback addresses, root and the user of this
    /// process may sign with all keys.
    ///
    /// Fails with [`Error::Settings`] if a value is wrong, or if a user is unknown on this host.
    pub fn load(settings: &Settings) -> Result<Self> {
        let signd = &settings.signd;
        let rules = match &signd.allow.get()?[..] {
            [] => own_host()?,
            rules => rules.to_vec(),
        };
        let look_up = |rule: AccessRule| {
            let user = match &rule.clients {
                Clients::User(name) => {
                    let rule = format!("signd.allow, the rule for {:?}", format!("unix:{name}"));
                    Some(users::user(&rule, name)?)
                }
                Clients::Network(_) => None,
            };
            Ok((rule, user))
        };
        Ok(Self {
            rules: rules.into_iter().map(look_up).collect::<Result<_>>()?,
            reserved_ports: *signd.reserved_ports.get()?,
        })
    }

    /// Whether any rule applies to this client. Without one, the client must be refused before any of its
    /// request is read.
    pub fn may_connect(&self, client: &Peer) -> bool {
        self.rules_for(client).next().is_some()
    }

    /// Whether this client may sign as this identity. It does not matter whether the identity has a key.
    pub fn may_sign(&self, client: &Peer, name_email: &NameEmail) -> bool {
        self.rules_for(client).any(|rule| rule.covers(name_email))
    }

    /// Whether any rule applies to clients on other hosts.
    pub fn is_open_to_others(&self) -> bool {
        self.rules.iter().any(|(rule, _)| match &rule.clients {
            Clients::Network(network) => !network.is_loopback(),
            Clients::User(_) => false,
        })
    }

    fn rules_for(&self, client: &Peer) -> impl Iterator<Item = &AccessRule> {
        let is_about = move |(rule, user): &(AccessRule, Option<Uid>)| match (client, &rule.clients)
        {
            (Peer::Tcp(from), Clients::Network(network)) => {
                let port_is_fine = !self.reserved_ports || from.port() < FIRST_FREE_PORT;
                port_is_fine && network.contains(from.ip())
            }
            (Peer::Unix(from), Clients::User(_)) => *user == Some(Uid::from_raw(from.uid())),
            _ => false,
        };
        self.rules.iter().filter(move |rule| is_about(rule)).map(|(rule, _)| rule)
    }
}

fn own_host() -> Result<Vec<AccessRule>> {
    let own_user = format!("unix:{} *", geteuid());
    let rules = ["127.0.0.0/8 *", "::1 *", "unix:0 *", &own_user];
    rules.iter().map(|rule| rule.parse().map_err(Error::Settings)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Flags;
    use nix::sys::socket::UnixCredentials;

    const PROJECT: &str = "user#project@copr.example.org";

    fn load(variables: &[(&str, &str)]) -> Result<Access> {
        let flags = Flags { config: Some("/dev/null".into()), ..Flags::default() };
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Access::load(&Settings::load(flags, variables)?)
    }

    fn rules(allow: &str) -> Access {
        load(&[("COPR_KEYGEN_SIGND_ALLOW", allow)]).unwrap_or_else(|e| panic!("{allow}: {e}"))
    }

    fn tcp(text: &str) -> Peer {
        Peer::Tcp(text.parse().unwrap_or_else(|e| panic!("{text}: {e}")))
    }

    fn user(uid: u32) -> Peer {
        Peer::Unix(UnixCredentials::from(libc::ucred { pid: 1, uid, gid: 0 }))
    }

    fn identity(text: &str) -> NameEmail {
        NameEmail::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn without_rules_this_host_may_sign_with_all_keys() {
        let own = geteuid().as_raw();
        for allow in ["", " , \n"] {
            let access = rules(allow);
            for (client, expected) in [
                (tcp("127.0.0.1:5"), true),
                (tcp("127.255.0.1:50000"), true),
                (tcp("[::1]:5"), true),
                (tcp("[::ffff:127.0.0.1]:5"), true),
                (tcp("192.0.2.1:5"), false),
                (tcp("[::ffff:192.0.2.1]:5"), false),
                (tcp("[::2]:5"), false),
                (tcp("[fe80::1%1]:5"), false),
                (user(0), true),
                (user(own), true),
                (user(own + 1), false),
                (user(u32::MAX), false),
            ] {
                assert_eq!(access.may_connect(&client), expected, "{client:?}");
                assert_eq!(access.may_sign(&client, &identity(PROJECT)), expected, "{client:?}");
            }
            assert!(!access.is_open_to_others());
        }
    }

    #[test]
    fn every_rule_about_a_client_counts_and_only_those() {
        let access = rules(
            "192.0.2.0/24 user#*@copr.example.org, 192.0.2.7 @group#* x#*@*\n\
             2001:db8::/32 *,fe80::1 *, unix:4242 *@copr.example.org, unix:root @*",
        );
        let group = "@group#project@dev.example.org";
        for (client, projects, groups) in [
            (tcp("192.0.2.1:5"), true, false),
            (tcp("[::ffff:192.0.2.1]:5"), true, false),
            (tcp("192.0.2.7:5"), true, true),
            (tcp("[2001:db8::1]:5"), true, true),
            // The zone of the address makes no difference.
            (tcp("[fe80::1%3]:5"), true, true),
            (user(4242), true, false),
            (user(0), false, true),
        ] {
            assert!(access.may_connect(&client), "{client:?}");
            assert_eq!(access.may_sign(&client, &identity(PROJECT)), projects, "{client:?}");
            assert_eq!(access.may_sign(&client, &identity(group)), groups, "{client:?}");
        }
        // Clients on this host have no access of their own once there are rules.
        for stranger in [tcp("127.0.0.1:5"), tcp("[::1]:5"), tcp("192.0.3.1:5"), user(4243)] {
            assert!(!access.may_connect(&stranger), "{stranger:?}");
            assert!(!access.may_sign(&stranger, &identity(PROJECT)), "{stranger:?}");
        }
        assert!(access.is_open_to_others());
        assert!(!rules("127.0.0.0/8 *, ::1 *, unix:root *").is_open_to_others());
        assert!(rules("127.0.0.1 *, ::/0 *").is_open_to_others());
    }

    #[test]
    fn reserved_ports_are_asked_of_tcp_alone() -> Result<()> {
        for (allow, from) in [("", "127.0.0.1"), ("192.0.2.1 *", "192.0.2.1"), ("", "[::1]")] {
            let access = load(&[
                ("COPR_KEYGEN_SIGND_ALLOW", allow),
                ("COPR_KEYGEN_SIGND_RESERVED_PORTS", "true"),
            ])?;
            for (port, expected) in [(1, true), (1023, true), (1024, false), (65535, false)] {
                let client = tcp(&format!("{from}:{port}"));
                assert_eq!(access.may_connect(&client), expected, "{client:?}");
                assert_eq!(access.may_sign(&client, &identity(PROJECT)), expected, "{client:?}");
            }
            assert_eq!(access.may_connect(&user(0)), allow.is_empty());
        }
        Ok(())
    }

    #[test]
    fn a_user_must_be_known_unless_it_is_a_number() {
        for (allow, expected) in [
            (
                "unix:no-such-user *",
                "the rule for \"unix:no-such-user\": \"no-such-user\" is not known on",
            ),
            ("unix:4294967295 *", "\"4294967295\" is not known on this host"),
            ("unix:-1 *", "\"-1\" is not known on this host"),
            ("localhost *", "the rule \"localhost *\": "),
            ("127.0.0.1", "the rule \"127.0.0.1\": it names no identities"),
        ] {
            let Err(error) = load(&[("COPR_KEYGEN_SIGND_ALLOW", allow)]) else {
                panic!("{allow} was taken")
            };
            let message = error.to_string();
            assert!(message.contains(expected) && message.contains("signd.allow"), "{message}");
            assert_eq!((message.lines().count(), crate::error::exit_status(&error)), (1, 78));
        }
    }
}
