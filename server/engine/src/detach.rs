//! The keys that detach from a terminal, such as "ctrl-p,ctrl-q".

use bytes::Bytes;

use crate::{Error, Result};

/// Looks for a sequence of keys in what is typed. Bytes that may begin it are
/// held back until it is clear that they don't.
#[derive(Debug, Clone)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

/// What is left of typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) bytes: Bytes,
    pub(crate) detached: bool,
}

impl DetachKeys {
    /// Reads "ctrl-p,ctrl-q" or "a,b"; None when empty.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        let keys = text.split(',').map(key).collect::<Option<Vec<_>>>();
        match keys {
            Some(keys) => Ok(Some(Self { keys, matched: 0 })),
            None => Err(Error::invalid(format!(
                "Invalid detach keys ({text}): use single characters or ctrl-<a to z, @, [, \\, ], ^, _>, joined by commas"
            ))),
        }
    }

    /// Takes typed bytes; what comes before the keys is passed on.
    pub(crate) fn filter(&mut self, bytes: &[u8]) -> Typed {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Typed {
                        bytes: out.into(),
                        detached: true,
                    };
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if *byte == self.keys[0] {
                self.matched = 1;
                // A sequence of one key would have matched above.
                continue;
            }
            out.push(*byte);
        }
        Typed {
            bytes: out.into(),
            detached: false,
        }
    }
}

fn key(text: &str) -> Option<u8> {
    if let Some(letter) = text.strip_prefix("ctrl-") {
        let [byte] = letter.as_bytes() else {
            return None;
        };
        return match byte {
            b'a'..=b'z' => Some(byte - b'a' + 1),
            b'@' => Some(0),
            b'[' => Some(27),
            b'\\' => Some(28),
            b']' => Some(29),
            b'^' => Some(30),
            b'_' => Some(31),
            _ => None,
        };
    }
    match text.as_bytes() {
        [byte] => Some(*byte),
        b"DEL" => Some(127),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &mut DetachKeys, bytes: &[u8]) -> (Vec<u8>, bool) {
        let typed = keys.filter(bytes);
        (typed.bytes.to_vec(), typed.detached)
    }

    #[test]
    fn the_default_keys() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap().unwrap();
        assert_eq!(typed(&mut keys, b"ab\x10\x11cd"), (b"ab".to_vec(), true));
        assert_eq!(typed(&mut keys, b"\x10"), (Vec::new(), false));
        assert_eq!(typed(&mut keys, b"\x11"), (Vec::new(), true));
        assert_eq!(typed(&mut keys, b"\x10x"), (b"\x10x".to_vec(), false));
        assert_eq!(typed(&mut keys, b"\x10\x10\x11"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn spellings() {
        assert!(DetachKeys::parse("").unwrap().is_none());
        assert!(DetachKeys::parse("a,b,c").is_ok());
        assert!(DetachKeys::parse("ctrl-^,ctrl-@").is_ok());
        for bad in ["ctrl-", "ctrl-A", "ab", "a,,b", ","] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }
}
