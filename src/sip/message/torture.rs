//! Messages that test parsers, each with its verdict: what is read of it, or which error. They follow the ideas of RFC 4475 (and
//! RFC 5118 for IPv6), case by case, in messages of our own; the names are those of its cases.
//!
//! An overheard message was meant for somebody else, who decides whether it is valid. So most of what RFC 4475 calls invalid is
//! read here as its receiver might read it, and the answer tells what he made of it.

mod invalid;
mod ipv6;
mod valid;

use super::*;

/// Lines joined with CRLF, closed by an empty line; then the body.
fn text(lines: &[&str], body: &str) -> String {
    lines.join("\r\n") + "\r\n\r\n" + body
}

fn parse(message: &str) -> Message<'_> {
    match Message::parse(message.as_bytes()) {
        Ok(m) => {
            assert_eq!(m.bytes(), message.as_bytes(), "the original bytes are kept");
            m
        }
        Err(e) => panic!("{e}: {message}"),
    }
}

fn all<'a>(m: &Message<'a>, n: Name) -> Vec<&'a str> {
    m.values(n).map(|v| std::str::from_utf8(v).unwrap()).collect()
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
