//! The seal: a sum over everything in the store, changed with every commit.
//!
//! sled takes a damaged message in its log for the torn end of it, and then
//! quietly gives old pages or none. Each record still reads well, so nothing
//! but a fact about all of them together can tell. The seal is that fact: the
//! number of commits, and the sum of a hash of each entry. A commit adds the
//! hashes of what it writes and takes away those of what it replaces.
//!
//! The hash guards against accidents, not against people who can write to the
//! file.

use crate::{
    Error, Kind, Result,
    backend::{Backend, Batch},
    values,
};

/// What the store must add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    /// Commits since the store was made.
    pub(crate) commits: u64,
    /// Sum of the hashes of all entries but this one.
    pub(crate) sum: u128,
}

/// The key of the seal's own entry.
pub(crate) fn key() -> [u8; 5] {
    [values::STORE, b's', b'e', b'a', b'l']
}

impl Seal {
    /// The seal that the store has; `None` when it has none.
    pub(crate) fn read(backend: &Backend) -> Result<Option<Self>> {
        let Some(entry) = backend.get(&key())? else {
            return Ok(None);
        };
        let damaged = || Error::new(Kind::DataLoss, "the store's seal is damaged");
        let (commits, sum) = entry.split_at_checked(8).ok_or_else(damaged)?;
        Ok(Some(Self {
            commits: u64::from_be_bytes(commits.try_into().map_err(|_| damaged())?),
            sum: u128::from_be_bytes(sum.try_into().map_err(|_| damaged())?),
        }))
    }

    /// The seal after `batch`, which is added to the batch.
    pub(crate) fn close(self, batch: &mut Batch) -> Self {
        let next = Self {
            commits: self.commits + 1,
            sum: self.sum.wrapping_add(batch.difference()),
        };
        let mut entry = next.commits.to_be_bytes().to_vec();
        entry.extend_from_slice(&next.sum.to_be_bytes());
        batch.put_unsealed(&key(), entry);
        next
    }
}

/// The hash of an entry.
pub(crate) fn hash(key: &[u8], value: &[u8]) -> u128 {
    let mut state = Lanes {
        a: 0x243f_6a88_85a3_08d3 ^ key.len() as u64,
        b: 0x1319_8a2e_0370_7344 ^ value.len() as u64,
    };
    state.take(key);
    state.take(value);
    u128::from(mix(state.a)) << 64 | u128::from(mix(state.b ^ state.a.rotate_left(32)))
}

struct Lanes {
    a: u64,
    b: u64,
}

impl Lanes {
    fn take(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.take_word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.take_word(u64::from_le_bytes(last));
    }

    fn take_word(&mut self, word: u64) {
        self.a = (self.a ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        self.b = (self.b.rotate_left(23) ^ word).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    }
}

/// splitmix64's last step: every bit of the input changes half of the output.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hashes_differ_and_never_change() {
        let mut seen = BTreeSet::new();
        let long = vec![b'x'; 4096];
        for (key, value) in [
            (&b""[..], &b""[..]),
            (b"a", b""),
            (b"", b"a"),
            (b"a", b"\0"),
            (b"a\0", b""),
            (b"ab", b"c"),
            (b"a", b"bc"),
            (b"key", &long),
            (b"key", &long[1..]),
        ] {
            assert!(seen.insert(hash(key, value)), "{key:?} {value:?}");
        }
        // The hash is on disk: another one would call every store damaged.
        assert_eq!(hash(b"key", b"value"), HASH_OF_KEY_VALUE);
    }

    const HASH_OF_KEY_VALUE: u128 = 101_205_261_530_698_292_730_706_527_981_066_268_449;
}
