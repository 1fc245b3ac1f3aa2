//! The allocator's habits: a process that idles for months should not keep what it needed for a moment.

/// Tells glibc's malloc to use one arena, to give free memory at the top of the heap back from 64 KiB on, and to take
/// blocks of 64 KiB and more straight from the kernel, so that they vanish when freed. Call it first in `main`.
pub fn frugal() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only stores tunables under malloc's own lock; every value is in its documented range.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 4 * 1024);
    }
}

/// Gives every free page of the heap back to the kernel. Costs microseconds on a small heap.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes malloc's own locks and only releases pages that no allocation covers.
    unsafe {
        libc::malloc_trim(0);
    }
}
