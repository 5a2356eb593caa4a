//! The pages of the program that only a burst of work needed: the start of the process, or of many pods.
//!
//! A page of the program stays mapped, and counts as resident, until the machine is short of memory. Half of
//! those of a node are of its start, and a quarter of the rest of the start of its pods. Unmapped, they are
//! the page cache's, which the kernel can give to others; what is used still is mapped again as it is touched,
//! without the disk.

use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// A process has started long before, and after this without an event a burst of them is over.
const SETTLED: Duration = Duration::from_secs(15);

/// Waits until the start is over, and lets go of the program's pages, once.
pub async fn shrink_after_start() {
    tokio::time::sleep(SETTLED).await;
    release_program();
}

/// Lets go of the program's pages after each burst of events, until there will be no more of them.
pub async fn shrink_after_bursts<E: Clone>(events: Receiver<E>) {
    after_bursts(events, SETTLED, release_program).await;
}

async fn after_bursts<E: Clone>(mut events: Receiver<E>, quiet: Duration, mut over: impl FnMut()) {
    while goes_on(events.recv().await) {
        while let Ok(next) = tokio::time::timeout(quiet, events.recv()).await {
            if !goes_on(next) {
                return;
            }
        }
        over();
    }
}

/// Whether more can come. Events that were missed are events.
fn goes_on<E>(received: Result<E, RecvError>) -> bool {
    !matches!(received, Err(RecvError::Closed))
}

fn release_program() {
    for segment in program_segments() {
        release(&segment);
    }
}

/// A part of the program as it was loaded.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    address: usize,
    bytes: usize,
}

/// The parts of this program and of its libraries that nobody writes: their pages are always as in the file.
fn program_segments() -> Vec<Segment> {
    let mut found = Vec::new();
    // SAFETY: the callback gets the pointer that is passed here, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(add_object), (&raw mut found).cast()) };
    found
}

/// Adds the segments of an object, and goes on to the next.
unsafe extern "C" fn add_object(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    found: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: `dl_iterate_phdr` passes a description that is valid during the call, and what
    // `program_segments` gave it.
    let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Segment>>()) };
    // SAFETY: the description says how many headers there are.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let unwritten = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0);
    found.extend(unwritten.map(|header| Segment {
        address: (info.dlpi_addr + header.p_vaddr) as usize,
        bytes: header.p_memsz as usize,
    }));
    0
}

/// Unmaps the pages that are wholly of the segment.
fn release(segment: &Segment) {
    let page = page_size();
    let begin = segment.address.next_multiple_of(page);
    let end = (segment.address + segment.bytes) / page * page;
    let Some(bytes) = end.checked_sub(begin) else {
        return;
    };
    // SAFETY: the pages are a private mapping of a file that was never written: the next access maps the
    // same bytes again.
    let outcome = unsafe { libc::madvise(begin as *mut _, bytes, libc::MADV_DONTNEED) };
    if outcome != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "the program stays mapped");
    }
}

fn page_size() -> usize {
    // SAFETY: no pointers; every system knows it.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;

    use tokio::sync::broadcast;

    use super::*;

    #[test]
    fn the_program_runs_on_without_its_pages() {
        let segments = program_segments();
        let code = page_size as *const () as usize;
        let has = |address: usize| {
            let mut all = segments.iter();
            all.any(|segment| (segment.address..segment.address + segment.bytes).contains(&address))
        };
        assert!(has(code), "{segments:?}");
        static WRITTEN: AtomicU8 = AtomicU8::new(1);
        assert!(!has(WRITTEN.as_ptr() as usize), "{segments:?}");
        segments.iter().for_each(release);
        assert_eq!(program_segments(), segments);
    }

    #[tokio::test]
    async fn a_burst_is_over_once_nothing_came_for_a_while() {
        let (events, told) = broadcast::channel(4);
        let (over, mut bursts) = tokio::sync::mpsc::unbounded_channel();
        let quiet = Duration::from_millis(20);
        let watching = tokio::spawn(after_bursts(told, quiet, move || over.send(()).unwrap()));
        // The channel forgets most of these.
        for event in 0..9 {
            events.send(event).unwrap();
        }
        assert_eq!(bursts.recv().await, Some(()));
        assert!(bursts.try_recv().is_err());
        events.send(9).unwrap();
        assert_eq!(bursts.recv().await, Some(()));
        drop(events);
        watching.await.unwrap();
    }
}
