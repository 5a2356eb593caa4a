//! A vector in chunks: it grows without moving what it holds, so that growing a table of half a
//! million entries never needs twice its memory for a moment.

const CHUNK: usize = 4096;

/// A growable array of `T`, by index.
#[derive(Debug)]
pub struct Chunked<T> {
    chunks: Vec<Vec<T>>,
}

impl<T: Default> Chunked<T> {
    /// An empty array.
    pub fn new() -> Self {
        Chunked { chunks: Vec::new() }
    }

    /// The element at `index`, making the array long enough for it.
    pub fn grow(&mut self, index: u32) -> &mut T {
        let (chunk, at) = split(index);
        while self.chunks.len() <= chunk {
            let mut fresh = Vec::new();
            fresh.resize_with(CHUNK, T::default);
            self.chunks.push(fresh);
        }
        &mut self.chunks[chunk][at]
    }

    /// The element at `index`, if the array is that long.
    pub fn get(&self, index: u32) -> Option<&T> {
        let (chunk, at) = split(index);
        self.chunks.get(chunk)?.get(at)
    }

    /// The element at `index`, if the array is that long.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (chunk, at) = split(index);
        self.chunks.get_mut(chunk)?.get_mut(at)
    }
}

fn split(index: u32) -> (usize, usize) {
    let index = index as usize;
    (index / CHUNK, index % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_whole_chunks_and_keeps_what_it_holds() {
        let mut numbers = Chunked::<u64>::new();
        *numbers.grow(3) = 3;
        *numbers.grow(10_000) = 7;
        assert_eq!(numbers.get(3), Some(&3));
        assert_eq!(numbers.get(10_000), Some(&7));
        assert_eq!(numbers.get(9_999), Some(&0));
        assert_eq!(numbers.get(100_000), None);
        assert_eq!(numbers.chunks.len(), 3);
    }
}
