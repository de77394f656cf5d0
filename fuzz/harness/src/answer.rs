//! The chunked coding of a long response.

use std::io::Write;

use copr_keygen::http::stream::StreamBody;

/// Writes `data` as a chunked response body and decodes it again as RFC 9112 (7.1) specifies. The first byte
/// is the separator: the writer flushes after each occurrence of it in the rest.
pub fn answer(data: &[u8]) {
    let Some((cut, body)) = data.split_first() else { return };
    let mut sent = Vec::new();
    let mut chunks = StreamBody::new(&mut sent, true);
    for part in body.split_inclusive(|byte| byte == cut) {
        let written = chunks.write_all(part);
        assert!(written.is_ok() && (!part.ends_with(&[*cut]) || chunks.flush().is_ok()));
    }
    assert!(chunks.finish().is_ok());
    assert_eq!(dechunk(&sent).as_deref(), Some(body));
}

/// Decodes the chunked body in `sent`. Returns `None` unless the chunks are well-formed, end with the last
/// chunk, and nothing follows.
fn dechunk(mut sent: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = sent.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&sent[..end]).ok()?, 16).ok()?;
        let (chunk, rest) = sent[end + 2..].split_at_checked(size)?;
        body.extend_from_slice(chunk);
        sent = rest.strip_prefix(b"\r\n")?;
        if size == 0 {
            return sent.is_empty().then_some(body);
        }
    }
}
