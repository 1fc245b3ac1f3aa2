//! PAX records, as far as layers use them, and the maps of sparse files.

use std::io;

/// Where the pieces of a sparse file lie: (offset, length), in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SparseMap(pub Vec<(u64, u64)>);

/// More pieces than this are refused; they are all in memory.
const MAX_PIECES: usize = 1 << 20;

impl SparseMap {
    pub(crate) fn push(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.0.last().map_or(0, |(offset, length)| offset + length);
        if offset < end || offset.checked_add(length).is_none() || self.0.len() >= MAX_PIECES {
            return Err(broken(
                "the pieces of a sparse file overlap or are too many",
            ));
        }
        self.0.push((offset, length));
        Ok(())
    }

    /// Checks that the pieces are what the data has and lie in the file.
    pub(crate) fn check(&self, data: u64, size: u64) -> io::Result<()> {
        let sum: u64 = self.0.iter().map(|(_, length)| length).sum();
        let end = self.0.last().map_or(0, |(offset, length)| offset + length);
        if sum != data || end > size {
            return Err(broken("the map of a sparse file does not fit its data"));
        }
        Ok(())
    }
}

/// What the PAX records before an entry say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse_major: Option<u64>,
    pub(crate) sparse_name: Option<Vec<u8>>,
    pub(crate) sparse_size: Option<u64>,
    pub(crate) sparse_map: SparseMap,
    sparse_offset: Option<u64>,
}

fn broken(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl Pax {
    pub(crate) fn parse(mut records: &[u8]) -> io::Result<Self> {
        let mut pax = Self::default();
        while !records.is_empty() && records[0] != 0 {
            let (key, value, rest) = record(records)?;
            pax.take(key, value)?;
            records = rest;
        }
        Ok(pax)
    }

    pub(crate) fn is_sparse(&self) -> bool {
        self.sparse_major.is_some() || self.sparse_size.is_some()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(signed(value)?),
            b"gid" => self.gid = Some(signed(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.major" => self.sparse_major = Some(number(value)?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse_size = Some(number(value)?),
            b"GNU.sparse.offset" => self.sparse_offset = Some(number(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self
                    .sparse_offset
                    .take()
                    .ok_or_else(|| broken("a sparse piece without offset"))?;
                self.sparse_map.push(offset, number(value)?)?;
            }
            b"GNU.sparse.map" => {
                let numbers: Vec<&[u8]> = value.split(|b| *b == b',').collect();
                for pair in numbers.chunks(2) {
                    let [offset, length] = pair else {
                        return Err(broken("a sparse map with an odd count of numbers"));
                    };
                    self.sparse_map.push(number(offset)?, number(length)?)?;
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Splits off one record, "<length> <key>=<value>\n".
fn record(records: &[u8]) -> io::Result<(&[u8], &[u8], &[u8])> {
    let malformed = || broken("a malformed PAX record");
    let space = records
        .iter()
        .take(20)
        .position(|b| *b == b' ')
        .ok_or_else(malformed)?;
    let length = usize::try_from(number(&records[..space])?).map_err(|_| malformed())?;
    if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
        return Err(malformed());
    }
    let body = &records[space + 1..length - 1];
    let equals = body.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
    Ok((&body[..equals], &body[equals + 1..], &records[length..]))
}

fn number(text: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| broken("a PAX number that is none"))
}

fn signed(text: &[u8]) -> io::Result<i64> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| broken("a PAX number that is none"))
}

/// "1234.5678" as seconds and nanoseconds, rounded down for negative times.
fn time(text: &[u8]) -> io::Result<(i64, u32)> {
    let text = std::str::from_utf8(text).map_err(|_| broken("a PAX time that is none"))?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = signed(whole.as_bytes())?;
    let mut nanos = 0u32;
    for n in 0..9 {
        let digit = match fraction.as_bytes().get(n) {
            Some(digit @ b'0'..=b'9') => u32::from(digit - b'0'),
            Some(_) => return Err(broken("a PAX time that is none")),
            None => 0,
        };
        nanos = nanos * 10 + digit;
    }
    if text.starts_with('-') && nanos > 0 {
        return Ok((seconds.saturating_sub(1), 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_parse_and_hostile_ones_do_not() {
        let pax =
            Pax::parse(b"20 path=with=equals\n30 mtime=1700000000.250000000\n").unwrap_or_default();
        assert_eq!(pax.path.as_deref(), Some(&b"with=equals"[..]));
        assert_eq!(pax.mtime, Some((1_700_000_000, 250_000_000)));
        for bad in [
            &b"99 path=x\n"[..],
            b"x path=x\n",
            b"3 a\n",
            b"0 a=b\n",
            b"8 path=xx",
            b"18446744073709551615 a=b\n",
        ] {
            assert!(
                Pax::parse(bad).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    #[test]
    fn times_before_1970() {
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"-3").unwrap(), (-3, 0));
        assert_eq!(time(b"5.000000001999").unwrap(), (5, 1));
    }

    #[test]
    fn sparse_maps_are_checked() {
        let mut map = SparseMap::default();
        map.push(0, 10).unwrap();
        assert!(map.push(5, 1).is_err());
        assert!(map.push(u64::MAX, 2).is_err());
        map.push(20, 5).unwrap();
        assert!(map.check(15, 25).is_ok());
        assert!(map.check(15, 24).is_err());
        assert!(map.check(16, 30).is_err());
    }
}
