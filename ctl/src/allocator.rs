//! The allocator of the process.
//!
//! Objects are trees of small values that come and go with every request: glibc's allocator took a
//! fifth of a write's time for them. jemalloc takes little, and gives memory back when a burst of
//! requests is over, on the next allocations: no thread of its own wakes for it.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
