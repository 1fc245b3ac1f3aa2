//! Starting writeback early, so that a later fsync has little left to do.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Tells the kernel to begin writing `length` bytes from `offset` of a file to
/// disk and returns without waiting. This is no barrier: only fsync is.
///
/// # Errors
/// What `sync_file_range` gives; callers may ignore it, as it only hints.
pub fn begin(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the
    // other arguments are numbers, and no memory of ours is touched.
    let result = unsafe {
        libc::sync_file_range(
            fd,
            offset as i64,
            length as i64,
            libc::SYNC_FILE_RANGE_WRITE,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
