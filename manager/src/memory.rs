//! What the C library's allocator does with memory that was freed.

/// Larger buffers are given back at once. Pieces of images that are read for peers are smaller.
const LARGE: libc::c_int = 512 << 10;

/// Gives large buffers back to the kernel when they are freed, whichever thread had them. Otherwise the
/// allocator raises its own limit with the first of them, and keeps some MiB for each thread that ever
/// had one. To be called before there are threads.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
pub fn give_back_large_buffers() {
    // SAFETY: it sets a number of the allocator, and no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Other C libraries do not keep them.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_large_buffers() {}
