//! Memory that was freed. glibc gives it back to the system as soon as 128 KiB are free at the end of a heap, and
//! takes it again for the next answer: each time the system clears the pages. What one answer leaves is what the
//! next one needs.

use std::hint::black_box;

/// The size of a block from which it learns better (mallopt(3), `M_MMAP_THRESHOLD`): blocks up to this are taken from
/// a heap from then on, and only when twice as much is free at the end of one, it goes back. Each worker has a heap.
const LESSON: usize = 4 * 1024 * 1024;

/// Has the allocator keep what was freed for a while. One that does not learn like this does as before: another than
/// glibc's on 64 bits, or if the environment has settings for it.
pub fn keep_some() {
    drop(black_box(Vec::<u8>::with_capacity(LESSON)));
}
