//! Parses the lines that gpg prints on its status descriptor (doc/DETAILS of GnuPG, "Format of the --status-fd
//! output").

use crate::error::Shortage;
use crate::fingerprint::Fingerprint;

/// The number of "No space left on device" in libgpg-error.
const GPG_ERR_ENOSPC: u32 = 32859;
/// The number of "Disk quota exceeded" in libgpg-error.
const GPG_ERR_EDQUOT: u32 = 32802;

/// The results that a gpg process has reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The fingerprints of the primary keys that gpg created.
    pub created: Vec<Fingerprint>,
    /// The fingerprints of the certificates that gpg imported, including those that changed nothing.
    pub imported: Vec<Fingerprint>,
    /// The shortage that gpg reported: a full file system or an exhausted quota.
    pub shortage: Option<Shortage>,
}

impl Status {
    /// Parses the status lines in `output` and skips everything else.
    pub fn parse(output: &[u8]) -> Self {
        let created = lines(output, "KEY_CREATED").filter_map(|words| match words[..] {
            ["P" | "B", fingerprint, ..] => Fingerprint::parse(fingerprint),
            _ => None,
        });
        let imported = lines(output, "IMPORT_OK").filter_map(|words| match words[..] {
            [_, fingerprint] => Fingerprint::parse(fingerprint),
            _ => None,
        });
        let mut failures = lines(output, "ERROR").chain(lines(output, "FAILURE"));
        let shortage = failures.find_map(|words| match error_code(words.get(1)?) {
            GPG_ERR_ENOSPC => Some(Shortage::Space),
            GPG_ERR_EDQUOT => Some(Shortage::Quota),
            _ => None,
        });
        Self { created: created.collect(), imported: imported.collect(), shortage }
    }
}

/// Returns the error number of a printed code, without the upper half, which names the source (libgpg-error).
pub fn error_code(printed: &str) -> u32 {
    printed.parse::<u32>().unwrap_or_default() & 0xffff
}

/// Returns the words after `keyword` in each status line with that keyword.
pub fn lines<'a>(output: &'a [u8], keyword: &str) -> impl Iterator<Item = Vec<&'a str>> {
    let lines = output.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(move |line| {
        let mut words = line.strip_prefix("[GNUPG:] ")?.split(' ');
        (words.next() == Some(keyword)).then(|| words.collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_words_behind_a_keyword() {
        let output =
            b"x\n[GNUPG:] SUCCESS keyedit.passwd\n\xff\n[GNUPG:] SUCCESSFUL x\nSUCCESS y\n";
        let found: Vec<_> = lines(output, "SUCCESS").collect();
        assert_eq!(found, [["keyedit.passwd"]]);
    }

    #[test]
    fn reads_created_keys_and_full_disks() {
        let fingerprint = "C736DB1B28C783E150C8F0BCF189EC9B614804D3";
        let output = format!(
            "[GNUPG:] KEY_CONSIDERED {fingerprint} 0\n[GNUPG:] KEY_CREATED P {fingerprint}\n"
        );
        let status = Status::parse(output.as_bytes());
        assert_eq!(status.created, Fingerprint::parse(fingerprint).into_iter().collect::<Vec<_>>());
        assert!(status.shortage.is_none());
        assert!(Status::parse(b"[GNUPG:] ERROR key_generate 33587291\n").shortage.is_some());
    }

    #[test]
    fn passes_over_everything_else() {
        for output in [
            &b""[..],
            b"\xff\xfe\n",
            b"KEY_CREATED P C736DB1B28C783E150C8F0BCF189EC9B614804D3",
            b"[GNUPG:] KEY_CREATED",
            b"[GNUPG:] KEY_CREATED P ../../etc/passwd\n",
            b"[GNUPG:] KEY_CREATED S C736DB1B28C783E150C8F0BCF189EC9B614804D3\n",
            b"[GNUPG:] ERROR x 99999999999999999999\n[GNUPG:] ERROR\n",
        ] {
            assert_eq!(Status::parse(output), Status::default());
        }
    }
}
