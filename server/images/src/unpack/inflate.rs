//! Compression of layers, recognised by the first bytes: gzip (also of
//! several members), zstd (also of several frames), or none.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// A layer's bytes, decompressed.
pub enum Inflate<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

/// zstd windows above 2^27 bytes (128 MiB) are refused: the window is memory.
const MAX_WINDOW_LOG: u32 = 27;

impl<R: BufRead> Inflate<R> {
    /// Looks at the first bytes of `source`. They must be in one block; see
    /// [`Chunks`](crate::unpack::chunks::Chunks).
    pub fn new(mut source: R) -> io::Result<Self> {
        let start = source.fill_buf()?;
        if start.starts_with(&[0x1f, 0x8b]) {
            return Ok(Self::Gzip(Box::new(MultiGzDecoder::new(source))));
        }
        // A zstd frame, or a skippable one (RFC 8878, 3.1).
        let skippable =
            start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
        if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            return Ok(Self::Zstd(Box::new(decoder)));
        }
        Ok(Self::Plain(source))
    }
}

impl<R: BufRead> std::fmt::Debug for Inflate<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}
