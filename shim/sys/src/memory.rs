//! The allocator's habits: a process that idles for months should not keep what it needed for a moment.

/// Tells glibc's malloc to use one arena, to give free memory at the top of the heap back from 64 KiB on, and to take
/// blocks of 64 KiB and more straight from the kernel, so that they vanish when freed. Call it first in `main`.
pub fn frugal() {
    tune(1, 64 * 1024, 4 * 1024);
}

/// The same for a program with several busy threads: two arenas, and 256 KiB instead of 64.
pub fn moderate() {
    tune(2, 256 * 1024, 64 * 1024);
}

#[cfg_attr(not(target_env = "gnu"), allow(unused_variables))]
fn tune(arenas: libc::c_int, threshold: libc::c_int, pad: libc::c_int) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only stores tunables under malloc's own lock; every value is in its documented range.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
        libc::mallopt(libc::M_TRIM_THRESHOLD, threshold);
        libc::mallopt(libc::M_MMAP_THRESHOLD, threshold);
        libc::mallopt(libc::M_TOP_PAD, pad);
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

/// Where this process's code and constants are in its memory.
#[derive(Debug)]
pub struct Code {
    ranges: Vec<(usize, usize)>,
}

impl Code {
    /// Looks at all that is loaded now.
    pub fn find() -> Code {
        let mut code = Code { ranges: Vec::new() };
        // SAFETY: the callback gets the pointer to `code`, which outlives the call, and nobody else has it meanwhile.
        unsafe {
            libc::dl_iterate_phdr(Some(note_object), (&raw mut code).cast());
        }
        code
    }

    /// Takes all of it out of this process's page tables. It stays in the page cache, comes back by minor faults as
    /// it is used, and until then counts for nobody: an idle process needs next to none of its megabytes.
    pub fn forget(&self) {
        for (begin, length) in &self.ranges {
            // SAFETY: the range is a private mapping of a file that nobody has written through, so that the kernel
            // brings back the same bytes. The vDSO, which is none, makes the call fail and stays.
            unsafe {
                libc::madvise(*begin as *mut libc::c_void, *length, libc::MADV_DONTNEED);
            }
        }
    }
}

/// Notes the read-only segments of one loaded object.
unsafe extern "C" fn note_object(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    code: *mut libc::c_void,
) -> libc::c_int {
    const PAGE: usize = 4096;
    // SAFETY: the loader passes a valid description for the time of the call, and [`Code::find`] its own value.
    let (object, code) = unsafe { (&*object, &mut *code.cast::<Code>()) };
    if object.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the loader's table has so many entries and stays as long as the object is loaded.
    let headers =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    for header in headers {
        // What is relocated, and so differs from the file, is in writable segments, also where it is made read-only
        // later.
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let start = (object.dlpi_addr + header.p_vaddr) as usize;
            let begin = start & !(PAGE - 1);
            code.ranges
                .push((begin, start + header.p_memsz as usize - begin));
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_code_comes_back() {
        static TABLE: [u64; 1024] = [7; 1024];
        Code::find().forget();
        trim();
        assert_eq!(std::hint::black_box(&TABLE).iter().sum::<u64>(), 7 * 1024);
        assert_eq!("still".to_uppercase(), "STILL");
    }
}
