//! Parser torture tests, each with its verdict: the values read, or the error. They follow RFC 4475 (and RFC 5118 for
//! IPv6) case by case, with its case names and our own messages.
//!
//! A captured message is addressed to another receiver, and that receiver decides whether it is valid. So the parser
//! reads most of what RFC 4475 calls invalid, in the way its receiver might. The response shows what the receiver made
//! of it.

mod invalid;
mod ipv6;
mod valid;

use super::*;

/// Lines joined with CRLF, an empty line, and the body.
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
