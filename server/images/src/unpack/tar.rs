//! Reads a tar stream entry by entry, without trusting any of it.
//!
//! Understands what layers are made of: ustar, GNU (long names, base-256
//! numbers, sparse files) and PAX (names, numbers, times, xattrs, sparse files
//! 0.0, 0.1 and 1.0). It owns the framing only; what an entry does to a
//! directory is `extract`'s business. The `tar` crate is not used for reading
//! because it takes extension headers of any size into memory and hands out
//! data through one more copy.

use std::io::{self, BufRead};

use crate::unpack::pax::{Pax, SparseMap};

const BLOCK: usize = 512;
/// Extension headers (PAX records, long names, sparse maps) above this are
/// refused: real ones have some hundred bytes, and all of it is in memory.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
    /// A type that no layer has; the flag as it stands.
    Unknown(u8),
}

/// One entry, all extensions applied.
#[derive(Debug, Clone)]
pub struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of the file; for a sparse one with its holes.
    pub size: u64,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data in the stream belongs, for a sparse file.
    pub sparse: Option<SparseMap>,
}

/// A tar stream.
#[derive(Debug)]
pub struct Tar<R> {
    source: R,
    /// Bytes of the present entry's data that were not read yet.
    data: u64,
    /// Padding behind them.
    padding: u64,
    ended: bool,
}

fn broken(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<R: BufRead> Tar<R> {
    pub fn new(source: R) -> Self {
        Self {
            source,
            data: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry; `None` at the end of the archive. Data of the entry
    /// before that was not read is skipped.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut pax = Pax::default();
        let mut long_name = None;
        let mut long_link = None;
        loop {
            self.skip(self.data + self.padding)?;
            (self.data, self.padding) = (0, 0);
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let header = Header(&block);
            let flag = block[156];
            let size = match pax.size {
                // A size in PAX records is that of the entry they describe.
                Some(size) if !matches!(flag, b'x' | b'g' | b'L' | b'K' | b'X') => size,
                _ => header.size()?,
            };
            match flag {
                b'x' | b'X' => pax = Pax::parse(&self.extension(size)?)?,
                b'L' => long_name = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.extension(size)?).to_vec()),
                // Global records: comments of git archive; nothing for us.
                b'g' => drop(self.extension(size)?),
                _ => {
                    return self
                        .entry(&header, size, pax, long_name, long_link)
                        .map(Some);
                }
            }
        }
    }

    /// Hands all data of the present entry to `sink`, in blocks as they come.
    pub fn data(&mut self, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        while self.data > 0 {
            let block = self.source.fill_buf()?;
            if block.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let take = block
                .len()
                .min(usize::try_from(self.data).unwrap_or(usize::MAX));
            sink(&block[..take])?;
            self.source.consume(take);
            self.data -= take as u64;
        }
        Ok(())
    }

    /// Reads whatever follows the end of the archive.
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            let n = self.source.fill_buf()?.len();
            if n == 0 {
                return Ok(());
            }
            self.source.consume(n);
        }
    }

    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            let here = self.source.fill_buf()?.len();
            if here == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let take = here.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.source.consume(take);
            bytes -= take as u64;
        }
        Ok(())
    }

    /// The next header block; `None` at a zero block or at the end of the
    /// stream between two entries.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let here = self.source.fill_buf()?;
            if here.is_empty() {
                self.ended = true;
                return match filled {
                    0 => Ok(None),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            let take = here.len().min(BLOCK - filled);
            block[filled..filled + take].copy_from_slice(&here[..take]);
            self.source.consume(take);
            filled += take;
        }
        if block == [0; BLOCK] {
            self.ended = true;
            return Ok(None);
        }
        Header(&block).check()?;
        Ok(Some(block))
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(broken(format!(
                "an extension header of {size} bytes (at most {MAX_EXTENSION} are taken)"
            )));
        }
        (self.data, self.padding) = (size, padding(size));
        let mut bytes = Vec::with_capacity(size as usize);
        self.data(|block| {
            bytes.extend_from_slice(block);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        size: u64,
        mut pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Entry> {
        let path = pax
            .path
            .take()
            .or(long_name)
            .unwrap_or_else(|| header.path());
        let link = pax
            .link
            .take()
            .or(long_link)
            .unwrap_or_else(|| until_nul(&header.0[157..257]).to_vec());
        let kind = header.kind(&path);
        // Old tars give links and directories a size that no data follows.
        let has_data = matches!(kind, EntryKind::File | EntryKind::Unknown(_));
        let size = if has_data { size } else { 0 };
        (self.data, self.padding) = (size, padding(size));
        let mut entry = Entry {
            path,
            link,
            kind,
            mode: (header.number(100..108)? & 0o7777) as u32,
            uid: id(pax.uid.map_or_else(|| header.number(108..116), Ok)?)?,
            gid: id(pax.gid.map_or_else(|| header.number(116..124), Ok)?)?,
            mtime: pax
                .mtime
                .map_or_else(|| header.number(136..148).map(|s| (s, 0)), Ok)?,
            size,
            device: (0, 0),
            xattrs: std::mem::take(&mut pax.xattrs),
            sparse: None,
        };
        if matches!(kind, EntryKind::Char | EntryKind::Block) {
            entry.device = (id(header.number(329..337)?)?, id(header.number(337..345)?)?);
        }
        if header.0[156] == b'S' {
            self.gnu_sparse(header, &mut entry)?;
        } else if kind == EntryKind::File && pax.is_sparse() {
            self.pax_sparse(pax, &mut entry)?;
        }
        Ok(entry)
    }

    /// The old GNU form: the map in the header and in blocks behind it.
    fn gnu_sparse(&mut self, header: &Header<'_>, entry: &mut Entry) -> io::Result<()> {
        let mut map = SparseMap::default();
        let mut add = |block: &[u8], start: usize, count: usize| -> io::Result<()> {
            for n in 0..count {
                let at = start + 24 * n;
                if block[at] == 0 {
                    break;
                }
                map.push(
                    size_of_field(&block[at..at + 12])?,
                    size_of_field(&block[at + 12..at + 24])?,
                )?;
            }
            Ok(())
        };
        add(header.0, 386, 4)?;
        let mut more = header.0[482] != 0;
        while more {
            let mut block = [0u8; BLOCK];
            io::Read::read_exact(&mut self.source, &mut block)?;
            add(&block, 0, 21)?;
            more = block[504] != 0;
        }
        entry.size = size_of_field(&header.0[483..495])?;
        map.check(self.data, entry.size)?;
        entry.sparse = Some(map);
        Ok(())
    }

    /// The PAX forms: the map in records, or (1.0) in front of the data.
    fn pax_sparse(&mut self, mut pax: Pax, entry: &mut Entry) -> io::Result<()> {
        if let Some(name) = pax.sparse_name.take() {
            entry.path = name;
        }
        let mut map = std::mem::take(&mut pax.sparse_map);
        if pax.sparse_major == Some(1) {
            map = self.sparse_map_from_data()?;
        }
        entry.size = pax
            .sparse_size
            .ok_or_else(|| broken("a sparse file without its size"))?;
        map.check(self.data, entry.size)?;
        entry.sparse = Some(map);
        Ok(())
    }

    fn sparse_map_from_data(&mut self) -> io::Result<SparseMap> {
        let mut used = 0u64;
        let mut number = |this: &mut Self| -> io::Result<u64> {
            let mut value = 0u64;
            loop {
                used += 1;
                if used > this.data || used > MAX_EXTENSION {
                    return Err(broken("the map of a sparse file does not end"));
                }
                let mut byte = [0u8];
                io::Read::read_exact(&mut this.source, &mut byte)?;
                match byte[0] {
                    b'\n' => return Ok(value),
                    digit @ b'0'..=b'9' => {
                        value = value
                            .checked_mul(10)
                            .and_then(|v| v.checked_add(u64::from(digit - b'0')))
                            .ok_or_else(|| broken("a number in a sparse map is too large"))?;
                    }
                    _ => return Err(broken("a sparse map has something else than numbers")),
                }
            }
        };
        let count = number(self)?;
        let mut map = SparseMap::default();
        for _ in 0..count {
            let offset = number(self)?;
            map.push(offset, number(self)?)?;
        }
        let rest = padding(used);
        if used + rest > self.data {
            return Err(broken("the map of a sparse file is longer than its data"));
        }
        self.skip(rest)?;
        self.data -= used + rest;
        Ok(map)
    }
}

/// A header block; fields by their place in it (POSIX.1, pax, "ustar
/// Interchange Format").
struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn check(&self) -> io::Result<()> {
        let told = self.number(148..156)?;
        let field = 148..156;
        let sum = |signed: bool| -> i64 {
            let value = |(at, byte): (usize, &u8)| match field.contains(&at) {
                true => i64::from(b' '),
                false if signed => i64::from(*byte as i8),
                false => i64::from(*byte),
            };
            self.0.iter().enumerate().map(value).sum()
        };
        if told != sum(false) && told != sum(true) {
            return Err(broken(
                "a header's checksum is wrong: this is no tar, or a damaged one",
            ));
        }
        Ok(())
    }

    fn number(&self, range: std::ops::Range<usize>) -> io::Result<i64> {
        parse_number(&self.0[range])
    }

    fn size(&self) -> io::Result<u64> {
        size_of_field(&self.0[124..136])
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let ustar = &self.0[257..263] == b"ustar\0";
        let prefix = until_nul(&self.0[345..500]);
        if ustar && !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
        name.to_vec()
    }

    fn kind(&self, path: &[u8]) -> EntryKind {
        match self.0[156] {
            // Before POSIX a directory was a file whose name ends in a slash.
            b'0' | 0 if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::Char,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => EntryKind::Unknown(other),
        }
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

fn id(number: i64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| broken(format!("an owner or device number of {number}")))
}

fn size_of_field(field: &[u8]) -> io::Result<u64> {
    u64::try_from(parse_number(field)?).map_err(|_| broken("a negative size"))
}

/// Octal digits, or GNU's base-256 when the first bit is set.
fn parse_number(field: &[u8]) -> io::Result<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (n, byte) in field.iter().enumerate() {
            let byte = if n == 0 && !negative {
                byte & 0x7f
            } else {
                *byte
            };
            value = (value << 8) | i128::from(byte);
            if i64::try_from(value).is_err() {
                return Err(broken("a number that is too large"));
            }
        }
        return Ok(value as i64);
    }
    let text = field.iter().copied().skip_while(|b| *b == b' ' || *b == 0);
    let mut value: i64 = 0;
    for byte in text.take_while(|b| *b != b' ' && *b != 0) {
        if !(b'0'..=b'7').contains(&byte) {
            return Err(broken(
                "a number field has something else than octal digits",
            ));
        }
        value = value
            .checked_mul(8)
            .and_then(|v| v.checked_add(i64::from(byte - b'0')))
            .ok_or_else(|| broken("a number that is too large"))?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(parse_number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(parse_number(b"   755 \0").unwrap(), 0o755);
        assert_eq!(parse_number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(parse_number(&[0x80, 0, 0, 0, 0, 0, 1, 0]).unwrap(), 256);
        assert_eq!(parse_number(&[0xff; 12]).unwrap(), -1);
        assert!(parse_number(&[0xbf; 12]).is_err());
        assert!(parse_number(b"12x\0").is_err());
    }

    #[test]
    fn gnu_tar_with_everything_reads() {
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(180);
        std::fs::create_dir_all(dir.path().join("d").join(&long)).unwrap();
        std::fs::write(dir.path().join("d").join(&long).join(&long), b"hello").unwrap();
        let sparse = std::fs::File::create(dir.path().join("sparse")).unwrap();
        std::os::unix::fs::FileExt::write_at(&sparse, b"middle", 1 << 20).unwrap();
        sparse.set_len(3 << 20).unwrap();
        for format in [
            vec!["--format=gnu"],
            vec!["--format=pax"],
            vec!["--format=gnu", "-S"],
            vec!["--format=pax", "-S", "--sparse-version=0.0"],
            vec!["--format=pax", "-S", "--sparse-version=0.1"],
            vec!["--format=pax", "-S", "--sparse-version=1.0"],
        ] {
            let output = std::process::Command::new("tar")
                .args(&format)
                .arg("-C")
                .arg(dir.path())
                .args(["-cf", "-", "d", "sparse"])
                .output()
                .unwrap();
            let mut tar = Tar::new(&output.stdout[..]);
            let mut names = Vec::new();
            while let Some(entry) = tar.next_entry().unwrap() {
                let mut data = Vec::new();
                tar.data(|block| {
                    data.extend_from_slice(block);
                    Ok(())
                })
                .unwrap();
                if entry.path.ends_with(b"sparse") {
                    assert_eq!(entry.path, b"sparse");
                    assert_eq!(entry.size, 3 << 20, "{format:?}");
                    assert_eq!(entry.sparse.is_some(), format.contains(&"-S"));
                    assert!(data.len() < 1 << 20 || entry.sparse.is_none());
                } else if entry.kind == EntryKind::File {
                    assert_eq!(data, b"hello");
                }
                names.push(entry.path);
            }
            assert_eq!(names.len(), 4, "{format:?}");
            assert_eq!(names[2], format!("d/{long}/{long}").into_bytes());
        }
    }

    #[test]
    fn hostile_headers_are_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_cksum();
        let error = Tar::new(&header.as_bytes()[..]).next_entry().unwrap_err();
        assert!(error.to_string().contains("extension header"));

        let mut garbage = [b'x'; 1024];
        garbage[148..156].copy_from_slice(b"0000000\0");
        assert!(Tar::new(&garbage[..]).next_entry().is_err());

        let mut header = tar::Header::new_gnu();
        header.set_size(600);
        header.set_path("short").unwrap();
        header.set_cksum();
        let mut stream = header.as_bytes().to_vec();
        stream.extend_from_slice(&[0; 100]);
        let mut tar = Tar::new(&stream[..]);
        tar.next_entry().unwrap();
        assert_eq!(
            tar.data(|_| Ok(())).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
