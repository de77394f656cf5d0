//! Reading heads and bodies of requests, from bytes and from a stream.

use std::cell::Cell;

use super::*;

fn head(text: &str) -> Result<Option<(Head, usize)>, Error> {
    parse_head(text.as_bytes())
}

#[test]
fn reads_method_path_and_length() {
    let text = "POST /gen_key?x=1 HTTP/1.1\r\nHost: h\r\ncontent-LENGTH: 17\r\n\r\nbody";
    let parsed = head(text).ok().flatten();
    assert!(parsed.is_some_and(|(head, length)| {
        head.method == Method::Post
            && head.path == "/gen_key"
            && head.query.as_deref() == Some("x=1")
            && head.content_length == 17
            && length == text.len() - 4
    }));
    assert!(matches!(head("GET / HTTP/1.1\r\nHo"), Ok(None)));
}

#[test]
fn only_a_client_of_http_1_1_can_ask_for_100_continue() {
    for (version, expects_continue) in [("1.0", false), ("1.1", true)] {
        let text = format!("POST / HTTP/{version}\r\nExpect: 100-Continue\r\nExpect: x\r\n\r\n");
        let parsed = head(&text).ok().flatten();
        assert!(parsed.is_some_and(|(head, _)| head.expects_continue == expects_continue));
    }
}

#[test]
fn targets_may_be_absolute() {
    for (target, path, query) in [
        ("/ping", "/ping", None),
        ("/ping?", "/ping", Some("")),
        ("/ping?a=http://x/y", "/ping", Some("a=http://x/y")),
        ("/ping?a?b", "/ping", Some("a?b")),
        ("http://host:5003/ping?x", "/ping", Some("x")),
        ("HTTP://host", "/", None),
        ("https://host/ping", "/ping", None),
        ("http://host?a=/ping", "/", Some("a=/ping")),
        ("http://host#/ping", "#/ping", None),
        ("ftp://host/ping", "ftp://host/ping", None),
        ("*", "*", None),
    ] {
        assert_eq!(split(target), (path, query));
    }
}

#[test]
fn refuses_what_two_readers_could_read_differently() {
    let post = |headers: &str| head(&format!("POST / HTTP/1.1\r\n{headers}\r\n"));
    for headers in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x10\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length:\r\n",
        "Content-Length : 1\r\n",
        "Authorization: Bearer a\r\nauthorization: Bearer a\r\n",
        "A: b\0c\r\n",
        "A: b\x01c\r\n",
        "A\0: b\r\n",
        " folded: x\r\n",
        "A: b\r\n folded\r\n",
    ] {
        assert!(matches!(post(headers), Err(Error::Malformed(_))), "{headers:?}");
    }
    for text in [
        "GET / HTTP/2.0\r\n\r\n",
        "GET /\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0",
        "GET /a b HTTP/1.1\r\n\r\n",
        "G\0T / HTTP/1.1\r\n\r\n",
    ] {
        assert!(matches!(head(text), Err(Error::Malformed(_))), "{text:?}");
    }
}

#[test]
fn absurd_lengths_stay_too_large() {
    for length in ["65537", "4611686018427387904", "99999999999999999999999999999"] {
        let text = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        let parsed = head(&text).ok().flatten();
        assert!(parsed.is_some_and(|(head, _)| head.content_length > BODY_MAX));
    }
}

/// Sends one byte at a time.
struct Dripping<'a>(Cell<&'a [u8]>);
struct Sip<'a, 'b>(&'a Cell<&'b [u8]>);

impl Wire for Dripping<'_> {
    fn until(&self, _: Instant) -> impl Read + Write {
        Sip(&self.0)
    }
}

impl Read for Sip<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((first, rest)) = self.0.get().split_first() else { return Ok(0) };
        buffer[0] = *first;
        self.0.set(rest);
        Ok(1)
    }
}

impl Write for Sip<'_, '_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn single_bytes_cost_no_more_than_their_number() {
    let empty_lines = "\r\n".repeat(HEAD_MAX / 2);
    let value = format!("GET / HTTP/1.1\r\n{}A: ", "A:\n".repeat(60));
    let value = format!("{value:b<HEAD_MAX$}");
    for endless in [empty_lines, value] {
        let started = Instant::now();
        assert!(matches!(
            read_one(&format!("{endless}x")),
            Err(NoRequest::Refused(Error::HeadTooLarge { .. }, None))
        ));
        // Parsing again after every byte would take several seconds.
        let took = started.elapsed();
        println!("{took:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    let text = "\r\n\nPOST /a HTTP/1.1\nContent-Length: 2\r\n\r\nab";
    let whole = read_one(text);
    assert!(whole.is_ok_and(|read| read.head.path == "/a" && read.body == b"ab"));
    assert!(matches!(
        read_one("GET / HTTP/9.9\n"),
        Err(NoRequest::Refused(Error::Malformed(_), None))
    ));
}

fn read_one(text: &str) -> Result<Request, NoRequest> {
    read(&Dripping(Cell::new(text.as_bytes())), Instant::now(), |_| Ok(()))
}

#[test]
fn headers_are_counted() {
    let text = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
    assert!(matches!(head(&text), Err(Error::HeadTooLarge { .. })));
}
