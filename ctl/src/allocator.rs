//! The allocator of the process.
//!
//! Objects are trees of small values that come and go with every request: glibc's allocator took a
//! fifth of a write's time for them. jemalloc takes little, and gives memory back when a burst of
//! requests is over, with the next allocations: no thread of its own wakes for it.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Few arenas, so that little lies about unused in each, and memory is given back after a second.
/// `MALLOC_CONF` in the environment has the last word.
// SAFETY: jemalloc declares this symbol as a C string to be defined by the program.
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONFIGURATION: &[u8; 47] = b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0\0";
