//! Splits a stream of certificates, as `gpg --export` writes it, into single certificates. Only the headers of
//! the packets are parsed (RFC 9580, 4.2), never their content. gpg itself cannot split a stream. Exporting the
//! certificates one by one would make gpg read the whole keyring for each of them.

use std::io::{self, BufRead, Read};

/// The maximum size of a certificate in bytes. A longer one is not that of a build system's key, and is not
/// read into memory.
const CERTIFICATE_MAX: usize = 8 * 1024 * 1024;

/// The maximum number of packets that [`packets`] returns. No key of a build system has more, and packets in
/// memory take many times their encoded size.
const PACKETS_MAX: usize = 4096;

/// The packet type of a primary public key, which begins a certificate.
const PUBLIC_KEY: u8 = 6;
/// The packet type of a signature.
const SIGNATURE: u8 = 2;

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The packet type (RFC 9580, 5).
    pub kind: u8,
    /// The content, without the header.
    pub body: Vec<u8>,
}

/// Splits `bytes` into its packets. Fails if there are more than 4096 of them.
pub fn packets(bytes: &[u8]) -> io::Result<Vec<Packet>> {
    let mut reader = Certificates::new(bytes);
    let mut found = Vec::new();
    let mut whole = Vec::new();
    while let Some(Header { kind, length }) = reader.read_packet(&mut whole, CERTIFICATE_MAX)? {
        if found.len() == PACKETS_MAX {
            return Err(io::Error::other(format!("more than {PACKETS_MAX} packets")));
        }
        found.push(Packet { kind, body: whole.split_off(length) });
        whole.clear();
    }
    Ok(found)
}

/// The header of a packet.
struct Header {
    /// The type of the packet.
    kind: u8,
    /// The number of bytes of the header.
    length: usize,
}

/// One certificate of the stream, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCertificate {
    /// The offset of its first byte in the stream.
    pub offset: u64,
    /// All its packets.
    pub bytes: Vec<u8>,
    /// How many of the packets are signatures.
    pub signatures: usize,
}

/// An iterator over the certificates of a stream. It ends after the first error, because it is then unknown
/// where the next packet begins.
#[derive(Debug)]
pub struct Certificates<R> {
    stream: R,
    /// The offset of the next byte of the stream.
    offset: u64,
    /// The certificate that is being read, with its packets so far.
    begun: Option<RawCertificate>,
    ended: bool,
}

impl<R: BufRead> Certificates<R> {
    /// Iterates over the certificates in `stream`, from its current position.
    pub fn new(stream: R) -> Self {
        Self { stream, offset: 0, begun: None, ended: false }
    }

    fn read_next(&mut self) -> io::Result<Option<RawCertificate>> {
        loop {
            let offset = self.offset;
            let mut packet = Vec::new();
            let room = CERTIFICATE_MAX - self.begun.as_ref().map_or(0, |begun| begun.bytes.len());
            let read = self.read_packet(&mut packet, room).map_err(|e| at(offset, &e))?;
            let Some(Header { kind, .. }) = read else { return Ok(self.begun.take()) };
            match &mut self.begun {
                Some(begun) if kind != PUBLIC_KEY => {
                    begun.bytes.append(&mut packet);
                    begun.signatures += usize::from(kind == SIGNATURE);
                }
                None if kind != PUBLIC_KEY => {
                    let found = format!("a packet of type {kind} where a public key should begin");
                    return Err(at(offset, &io::Error::other(found)));
                }
                begun => {
                    let next = RawCertificate { offset, bytes: packet, signatures: 0 };
                    if let Some(whole) = begun.replace(next) {
                        return Ok(Some(whole));
                    }
                }
            }
        }
    }

    /// Reads a packet, appends all of it to `packet` and returns its header, or `None` at the end of the
    /// stream. Fails if the content is longer than `room` bytes.
    fn read_packet(&mut self, packet: &mut Vec<u8>, room: usize) -> io::Result<Option<Header>> {
        if self.stream.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let tag = self.take(packet, 1)?;
        let (kind, length) = match tag {
            // The old format: the two low bits of the tag give the number of bytes of the length.
            0x80..=0xbf => {
                let length = match tag & 3 {
                    3 => return Err(io::Error::other("a packet of indeterminate length")),
                    width => self.take(packet, 1 << width)?,
                };
                ((tag >> 2) & 15, length)
            }
            0xc0..=0xff => {
                let length = match self.take(packet, 1)? {
                    short @ 0..=191 => short,
                    middle @ 192..=223 => ((middle - 192) << 8) + self.take(packet, 1)? + 192,
                    255 => self.take(packet, 4)?,
                    _ => return Err(io::Error::other("a packet of partial length")),
                };
                (tag & 63, length)
            }
            _ => return Err(io::Error::other("no packet begins here")),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if packet.len().saturating_add(length) > room {
            let words = format!("a certificate of more than {CERTIFICATE_MAX} bytes");
            return Err(io::Error::other(words));
        }
        let header = packet.len();
        let read = (&mut self.stream).take(length as u64).read_to_end(packet)?;
        self.offset += read as u64;
        if read < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // `kind` is below 64 in both formats, so it always fits.
        Ok(Some(Header { kind: u8::try_from(kind).unwrap_or(u8::MAX), length: header }))
    }

    /// Reads a big-endian number of one, two or four bytes and appends those bytes to `packet`.
    fn take(&mut self, packet: &mut Vec<u8>, width: usize) -> io::Result<u32> {
        let mut bytes = [0; 4];
        let bytes = &mut bytes[..width];
        self.stream.read_exact(bytes)?;
        self.offset += width as u64;
        packet.extend_from_slice(bytes);
        Ok(bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte)))
    }
}

impl<R: BufRead> Iterator for Certificates<R> {
    type Item = io::Result<RawCertificate>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read_next().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

fn at(offset: u64, error: &io::Error) -> io::Error {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "a packet that is cut off".into(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("at byte {offset}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(bytes: &[u8]) -> Result<Vec<RawCertificate>, String> {
        let all: io::Result<Vec<_>> = Certificates::new(bytes).collect();
        all.map_err(|e| e.to_string())
    }

    #[test]
    fn every_form_of_header_is_cut_at_the_right_byte() -> Result<(), String> {
        // Old format with one, two and four bytes of length; new format with one, two and five.
        let key = |header: &[u8], length: usize| [header, &vec![7; length]].concat();
        let first = [key(&[0x98, 3], 3), key(&[0xb4, 1], 1), key(&[0x89, 1, 0], 256)].concat();
        let second = [key(&[0x9a, 0, 0, 0, 2], 2), key(&[0xc2, 191], 191)].concat();
        let third = [key(&[0xc6, 192, 0], 192), key(&[0xcd, 223, 255], 8383)].concat();
        let fourth = [key(&[0xc6, 255, 0, 0, 0, 1], 1), key(&[0x88, 0], 0)].concat();
        let stream = [&first[..], &second, &third, &fourth].concat();
        let found = split(&stream)?;
        let bytes: Vec<_> = found.iter().map(|one| &one.bytes).collect();
        assert_eq!(bytes, [&first, &second, &third, &fourth]);
        let counts: Vec<_> = found.iter().map(|one| one.signatures).collect();
        assert_eq!(counts, [1, 1, 0, 1]);
        assert_eq!(found[1].offset, first.len() as u64);
        assert_eq!(split(b""), Ok(vec![]));
        Ok(())
    }

    #[test]
    fn anything_else_is_named_with_its_place() {
        let good = [0x98, 1, 7];
        for (bad, words) in [
            (&[0x9b, 1][..], "at byte 3: a packet of indeterminate length"),
            (&[0xc2, 224, 1], "at byte 3: a packet of partial length"),
            (&[0x42, 1], "at byte 3: no packet begins here"),
            (&[0x98], "at byte 3: a packet that is cut off"),
            (&[0x98, 2, 1], "at byte 3: a packet that is cut off"),
            (&[0x9a, 255, 255, 255, 255], "at byte 3: a certificate of more than 8388608 bytes"),
        ] {
            assert_eq!(split(&[&good, bad].concat()).err().as_deref(), Some(words), "{bad:?}");
        }
        let signature_first = split(&[0x88, 1, 7]).err();
        assert!(signature_first.is_some_and(|e| e.starts_with("at byte 0: a packet of type 2")));
        // The iterator yields what came before an error, and nothing after it.
        let mut stream = Certificates::new(&[0x98, 1, 7, 0x98, 1, 8, 0, 0x98, 1, 9][..]);
        assert!(stream.next().is_some_and(|one| one.is_ok_and(|one| one.bytes == good)));
        assert!(stream.next().is_some_and(|one| one.is_err()) && stream.next().is_none());
    }

    #[test]
    fn very_many_packets_are_not_taken_apart() {
        let packets = |count| packets(&[0x88, 0].repeat(count)).map(|packets| packets.len()).ok();
        assert_eq!([packets(4096), packets(4097)], [Some(4096), None]);
    }

    #[test]
    fn a_certificate_of_the_largest_size_is_read_and_a_longer_one_refused() -> Result<(), String> {
        let body = CERTIFICATE_MAX - 5;
        let header = [&[0x9a][..], &u32::try_from(body).unwrap_or(0).to_be_bytes()].concat();
        let largest = [&header, &vec![7; body][..]].concat();
        assert_eq!(split(&largest)?.len(), 1);
        let error = split(&[&largest[..], &[0x88, 0]].concat()).err().unwrap_or_default();
        assert!(error.contains("a certificate of more than"), "{error}");
        Ok(())
    }

    #[test]
    fn a_certificate_of_endless_small_packets_is_refused() {
        let mut stream = vec![0x98, 1, 7];
        for _ in 0..=CERTIFICATE_MAX / (16 * 1024 * 1024 / 256) / 256 + 130 {
            stream.extend([0xc2, 255, 0, 1, 0, 0]);
            stream.extend(vec![0; 65536]);
        }
        let error = split(&stream).err().unwrap_or_default();
        assert!(error.contains("a certificate of more than"), "{error}");
    }
}
