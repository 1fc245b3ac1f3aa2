//! A reader's backlog: bytes in order, 256 KiB of them in memory, then up to 256 MiB in a file that has no name.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is kept in memory.
pub(crate) const MEMORY: usize = 256 * 1024;
/// What is kept in the file.
pub(crate) const FILE: u64 = 256 * 1024 * 1024;
/// What is read back from the file at a time.
const CHUNK: usize = 64 * 1024;

/// A byte queue.
#[derive(Debug)]
pub(crate) struct Spool {
    memory: VecDeque<u8>,
    /// Where the file goes: a real disk, since the bundle's file system is memory too.
    directory: PathBuf,
    file: Option<File>,
    read: u64,
    written: u64,
}

impl Spool {
    /// An empty queue that spills to `directory`.
    pub(crate) fn new(directory: &Path) -> Spool {
        Spool {
            memory: VecDeque::new(),
            directory: directory.to_owned(),
            file: None,
            read: 0,
            written: 0,
        }
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.read == self.written
    }

    /// Appends all of the parts or, when there is no room (or no file to be had), none.
    pub(crate) fn push(&mut self, parts: [&[u8]; 2]) -> bool {
        let length = parts[0].len() + parts[1].len();
        if self.read == self.written && self.memory.len() + length <= MEMORY {
            self.memory.extend(parts[0]);
            self.memory.extend(parts[1]);
            return true;
        }
        if self.written + length as u64 > FILE {
            return false;
        }
        self.spill(parts).is_ok()
    }

    fn spill(&mut self, parts: [&[u8]; 2]) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(unnamed(&self.directory)?),
        };
        let mut at = self.written;
        for part in parts {
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        self.written = at;
        Ok(())
    }

    /// The bytes to send next; empty only when the queue is.
    ///
    /// # Errors
    /// The file system's: what was spilled cannot be read back.
    pub(crate) fn front(&mut self) -> io::Result<&[u8]> {
        if self.memory.is_empty() {
            self.refill()?;
        }
        Ok(self.memory.as_slices().0)
    }

    /// Forgets the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.memory.drain(..count);
        if self.memory.is_empty() && self.memory.capacity() > CHUNK {
            self.memory = VecDeque::new();
        }
    }

    fn refill(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let count = usize::try_from(self.written - self.read)
            .unwrap_or(CHUNK)
            .min(CHUNK);
        let mut chunk = vec![0; count];
        file.read_exact_at(&mut chunk, self.read)?;
        self.read += count as u64;
        self.memory = chunk.into();
        if self.read == self.written {
            // Gives the disk space back, and the whole room again.
            (self.file, self.read, self.written) = (None, 0, 0);
        }
        Ok(())
    }
}

fn unnamed(directory: &Path) -> io::Result<File> {
    let open = |directory: &Path| {
        let flags = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).unwrap_or(0);
        OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(directory)
    };
    open(directory)
        .or_else(|_| open(Path::new("/var/tmp")))
        .or_else(|_| open(&std::env::temp_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_in_order_through_memory_and_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path());
        let piece: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
        let mut expected = Vec::new();
        let mut got = Vec::new();
        for round in 0..100 {
            assert!(spool.push([&[round], &piece]));
            expected.push(round);
            expected.extend_from_slice(&piece);
            if round % 7 == 0 {
                let front = spool.front().unwrap().to_vec();
                spool.consume(front.len());
                got.extend(front);
            }
        }
        assert!(spool.memory.len() <= MEMORY && spool.file.is_some());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        while !spool.is_empty() {
            let front = spool.front().unwrap().to_vec();
            spool.consume(front.len());
            got.extend(front);
        }
        assert!(got == expected);
        assert!(spool.file.is_none());
    }

    #[test]
    fn too_much_is_refused_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path());
        assert!(spool.push([&[], &[0; MEMORY]]));
        spool.written = FILE - 10;
        assert!(!spool.push([&[1; 5], &[2; 6]]));
        assert_eq!(spool.written, FILE - 10);
    }
}
