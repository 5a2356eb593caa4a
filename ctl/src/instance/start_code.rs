//! The code that only the start needed.
//!
//! To start is to run most of the program once, and what was run stays mapped: two thirds of the
//! memory of an idle cluster were code that will hardly run again. The pages are the file's and
//! clean. To let go of them costs one minor fault for each neighbourhood that is needed again.

use nix::libc;

// Where the program's file lies in memory, up to the end of its code; the linker defines both.
unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}

/// Unmaps the pages of constants and code that were read so far.
pub fn let_go() {
    // SAFETY: sysconf reads a constant.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let first = (&raw const __executable_start) as usize;
    let end = (&raw const etext) as usize / page * page;
    let start = first.next_multiple_of(page);
    if start >= end {
        return;
    }
    // SAFETY: the range holds read-only private mappings of the program's file and nothing else,
    // whose pages the kernel reads again when they are touched; their content cannot differ.
    let outcome =
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    if outcome != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "the start's code stays in memory");
    }
}
