//! Keys: the parts of a key become bytes whose order is the order of the
//! parts, and which no other key is a prefix of.
//!
//! A text part is its UTF-8 bytes with 0x00 written as 0x00 0xFF, then the
//! end mark 0x00 0x01. A number is eight bytes, big end first.

use crate::{Error, Kind, Result};

/// Bytes that an encoded key may have, table name included. sled holds 257
/// keys of inner nodes in one log message, which has to stay below the size
/// where sled would move it to a file of its own that nothing syncs.
pub const MAX_KEY: usize = 480;

const ESCAPE: u8 = 0x00;
const ESCAPED_NUL: u8 = 0xff;
const END: u8 = 0x01;

/// What can be a table's key: text, a number, or two or three texts.
pub trait Key: Sized + Clone + Ord + std::fmt::Debug + Send + 'static {
    /// Reads what [`KeyOf::encode_key`] wrote; [`Kind::DataLoss`] otherwise.
    fn decode(bytes: &[u8]) -> Result<Self>;
}

/// Something that names a key of type `K`, owned or borrowed: `"a"`,
/// `("ns", "id")`, `&(ns, id)`.
pub trait KeyOf<K: Key> {
    /// Appends the key's bytes.
    fn encode_key(&self, out: &mut Vec<u8>);
}

/// The leading parts of a key of type `K`: `()` for every key, `"ns"`,
/// `("ns", "overlayfs")`.
pub trait PrefixOf<K: Key> {
    /// Appends the bytes that all keys with this prefix begin with.
    fn encode_prefix(&self, out: &mut Vec<u8>);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        out.push(byte);
        if byte == ESCAPE {
            out.push(ESCAPED_NUL);
        }
    }
    out.extend_from_slice(&[ESCAPE, END]);
}

fn damaged() -> Error {
    Error::new(Kind::DataLoss, "a key of the store is damaged")
}

/// Takes one text off the front of `bytes`.
fn take_text(bytes: &mut &[u8]) -> Result<String> {
    let mut text = Vec::with_capacity(bytes.len());
    loop {
        match **bytes {
            [ESCAPE, END, ..] => {
                *bytes = &bytes[2..];
                return String::from_utf8(text).map_err(|_| damaged());
            }
            [ESCAPE, ESCAPED_NUL, ..] => {
                text.push(ESCAPE);
                *bytes = &bytes[2..];
            }
            [ESCAPE, ..] | [] => return Err(damaged()),
            [byte, ..] => {
                text.push(byte);
                *bytes = &bytes[1..];
            }
        }
    }
}

fn ended<T>(rest: &[u8], value: T) -> Result<T> {
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(damaged())
    }
}

impl Key for String {
    fn decode(mut bytes: &[u8]) -> Result<Self> {
        let text = take_text(&mut bytes)?;
        ended(bytes, text)
    }
}

impl Key for (String, String) {
    fn decode(mut bytes: &[u8]) -> Result<Self> {
        let key = (take_text(&mut bytes)?, take_text(&mut bytes)?);
        ended(bytes, key)
    }
}

impl Key for (String, String, String) {
    fn decode(mut bytes: &[u8]) -> Result<Self> {
        let key = (
            take_text(&mut bytes)?,
            take_text(&mut bytes)?,
            take_text(&mut bytes)?,
        );
        ended(bytes, key)
    }
}

impl Key for u64 {
    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| damaged())?))
    }
}

impl<A: AsRef<str> + ?Sized> KeyOf<String> for &A {
    fn encode_key(&self, out: &mut Vec<u8>) {
        put_text(self.as_ref(), out);
    }
}

impl<A: AsRef<str>, B: AsRef<str>> KeyOf<(String, String)> for (A, B) {
    fn encode_key(&self, out: &mut Vec<u8>) {
        put_text(self.0.as_ref(), out);
        put_text(self.1.as_ref(), out);
    }
}

impl<A: AsRef<str>, B: AsRef<str>> KeyOf<(String, String)> for &(A, B) {
    fn encode_key(&self, out: &mut Vec<u8>) {
        put_text(self.0.as_ref(), out);
        put_text(self.1.as_ref(), out);
    }
}

impl<A: AsRef<str>, B: AsRef<str>, C: AsRef<str>> KeyOf<(String, String, String)> for (A, B, C) {
    fn encode_key(&self, out: &mut Vec<u8>) {
        put_text(self.0.as_ref(), out);
        put_text(self.1.as_ref(), out);
        put_text(self.2.as_ref(), out);
    }
}

impl<A: AsRef<str>, B: AsRef<str>, C: AsRef<str>> KeyOf<(String, String, String)> for &(A, B, C) {
    fn encode_key(&self, out: &mut Vec<u8>) {
        put_text(self.0.as_ref(), out);
        put_text(self.1.as_ref(), out);
        put_text(self.2.as_ref(), out);
    }
}

impl KeyOf<u64> for u64 {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl KeyOf<u64> for &u64 {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl<K: Key> PrefixOf<K> for () {
    fn encode_prefix(&self, _: &mut Vec<u8>) {}
}

impl<A: AsRef<str> + ?Sized> PrefixOf<(String, String)> for &A {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        put_text(self.as_ref(), out);
    }
}

impl<A: AsRef<str> + ?Sized> PrefixOf<(String, String, String)> for &A {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        put_text(self.as_ref(), out);
    }
}

impl<A: AsRef<str>, B: AsRef<str>> PrefixOf<(String, String, String)> for (A, B) {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        put_text(self.0.as_ref(), out);
        put_text(self.1.as_ref(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<K: Key>(key: impl KeyOf<K>) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode_key(&mut out);
        out
    }

    const TEXTS: [&str; 9] = ["", "\0", "\0\0", "\0a", "\u{1}", "a", "a\0", "a\0b", "ab"];

    #[test]
    fn order_is_that_of_the_parts_and_nothing_is_ambiguous() {
        let mut keys: Vec<(String, String)> = Vec::new();
        for a in TEXTS {
            for b in TEXTS {
                keys.push((a.to_owned(), b.to_owned()));
            }
        }
        for a in &keys {
            assert_eq!(&<(String, String)>::decode(&bytes(a)).unwrap(), a);
            for b in &keys {
                assert_eq!(a.cmp(b), bytes(a).cmp(&bytes(b)), "{a:?} {b:?}");
                assert_eq!(bytes(a).starts_with(&bytes(b)), a == b);
            }
        }
    }

    #[test]
    fn a_prefix_takes_its_namespace_only() {
        let mut prefix = Vec::new();
        PrefixOf::<(String, String)>::encode_prefix(&"web", &mut prefix);
        assert!(bytes::<(String, String)>(("web", "a")).starts_with(&prefix));
        assert!(!bytes::<(String, String)>(("web2", "a")).starts_with(&prefix));
        assert!(!bytes::<(String, String)>(("web\0", "a")).starts_with(&prefix));
    }

    #[test]
    fn damaged_keys_are_refused() {
        for bytes in [
            &b""[..],
            b"a",
            b"a\0",
            b"a\0\x02",
            b"a\0\x01b",
            b"\xff\0\x01",
        ] {
            assert_eq!(
                String::decode(bytes).unwrap_err().kind(),
                Kind::DataLoss,
                "{bytes:?}"
            );
        }
        assert!(u64::decode(&[0; 7]).is_err());
    }
}
