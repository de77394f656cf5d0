//! Options in `gpg-agent.conf` for an agent that signs for many clients at once. This module writes them, and
//! finds those that an existing configuration lacks.

/// The number of bytes that gpg-agent hashes to turn a passphrase into a key (`s2k-count`). Passphrases here
/// are 256 random bits, so a higher count would cost time and add no security.
pub const S2K_COUNT: &str = "65536";

/// A line of `gpg-agent.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentOption {
    name: &'static str,
    value: Option<&'static str>,
}

impl AgentOption {
    /// An option without a value.
    pub const fn flag(name: &'static str) -> Self {
        Self { name, value: None }
    }

    /// An option with a value.
    pub const fn with(name: &'static str, value: &'static str) -> Self {
        Self { name, value: Some(value) }
    }

    /// Returns the option as a line of `gpg-agent.conf`, without the line feed.
    pub fn line(self) -> String {
        match self.value {
            Some(value) => format!("{} {value}", self.name),
            None => self.name.into(),
        }
    }
}

/// The options of an agent that signs for many clients at once with protected keys.
///
/// gpg-agent decrypts a protected key into secure memory. It has 64 KiB of that, enough for about eight
/// RSA-4096 keys. With one more client, signatures fail with "Cannot allocate memory". `auto-expand-secmem`
/// makes libgcrypt add areas of the size given here, each enough for more than a hundred keys. Unlike the first
/// area, they are not locked into memory, so the unit of signd has `MemorySwapMax=0`. An agent reads the option
/// only when it starts, not on SIGHUP (GnuPG 2.2.40 and 2.4.7).
pub const FOR_MANY_CLIENTS: [AgentOption; 3] = [
    AgentOption::flag("allow-loopback-pinentry"),
    AgentOption::with("s2k-count", S2K_COUNT),
    AgentOption::with("auto-expand-secmem", "0x100000"),
];

/// Returns the text of a `gpg-agent.conf` with these options.
pub fn agent_configuration<'a>(options: impl IntoIterator<Item = &'a AgentOption>) -> String {
    options.into_iter().map(|option| format!("{}\n", option.line())).collect()
}

/// Returns the options of [`FOR_MANY_CLIENTS`] that `configuration` does not mention. An option with another
/// value, or its opposite (`no-…`), counts as mentioned: an operator has decided on it.
pub fn missing_for_many_clients(configuration: &[u8]) -> Vec<AgentOption> {
    let mut missing = FOR_MANY_CLIENTS.to_vec();
    for line in configuration.split(|byte| *byte == b'\n') {
        let name = line.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let name = name.strip_prefix(b"no-").unwrap_or(name);
        missing.retain(|option| option.name.as_bytes() != name);
    }
    missing
}

/// Returns `configuration` unchanged, with these options appended.
pub fn with_options(configuration: &[u8], options: &[AgentOption]) -> Vec<u8> {
    let mut text = configuration.to_vec();
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text.extend(agent_configuration(options).into_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(configuration: &[u8]) -> Vec<&'static str> {
        missing_for_many_clients(configuration).iter().map(|option| option.name).collect()
    }

    #[test]
    fn only_what_nobody_has_decided_is_missing() {
        let all = ["allow-loopback-pinentry", "s2k-count", "auto-expand-secmem"];
        assert_eq!(missing(b""), all);
        assert_eq!(
            missing(b"# auto-expand-secmem 1\n#s2k-count 1\nauto-expand-secmemx\n\xff\n"),
            all
        );
        assert_eq!(missing(b"  s2k-count\t1024\r\nauto-expand-secmem"), all[..1]);
        assert_eq!(missing(b"no-allow-loopback-pinentry\ns2k-count 1\n"), all[2..]);
        assert_eq!(missing(agent_configuration(&FOR_MANY_CLIENTS).as_bytes()), [""; 0]);
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        for (before, after) in [
            (&b""[..], &b"s2k-count 65536\n"[..]),
            (b"# mine\nx", b"# mine\nx\ns2k-count 65536\n"),
            (b"\xff\r\n", b"\xff\r\ns2k-count 65536\n"),
        ] {
            assert_eq!(with_options(before, &FOR_MANY_CLIENTS[1..2]), after);
        }
    }
}
