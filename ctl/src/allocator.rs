//! The allocator of the process.
//!
//! Objects are trees of small values that come and go with every request: glibc's allocator took a
//! fifth of a write's time for them. jemalloc takes little, and gives memory back when a burst of
//! requests is over, with the next allocations: no thread of its own wakes for it.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Few arenas and small caches of threads, so that little lies about unused in each: a hundred pods that
/// start at once have as many threads that wait for the kernel, and what each of them cached would keep pages
/// from being given back. They are after half a second. `_RJEM_MALLOC_CONF` in the environment has the last
/// word.
// SAFETY: jemalloc declares this symbol as a C string to be defined by the program.
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONFIGURATION: &[u8; 139] =
    b"narenas:2,dirty_decay_ms:500,muzzy_decay_ms:0,tcache_max:1024,\
    lg_tcache_nslots_mul:-1,tcache_nslots_small_min:4,tcache_nslots_small_max:24\0";
