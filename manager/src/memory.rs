//! What the C library's allocator does with memory that was freed (mallopt(3), malloc_trim(3)).
//!
//! By its own rules it gives each thread a heap, and raises with each large buffer that is freed the size up to which
//! it keeps them: some MiB for each thread that ever had one. Giving them back at once is no way out: the pages of a
//! buffer of some MiB cost more than what is done with it. So there is one heap, it keeps such buffers, and what lies
//! unused is given back from time to time.

use std::time::Duration;

/// Heaps: what one thread has freed serves all. Threads seldom wait for it, as each has a cache of small buffers.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 1;

/// Larger buffers are given back at once: the most that `M_MMAP_THRESHOLD` takes on 64 bits. All that the daemon uses
/// are smaller.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 32 << 20;

/// What is kept at the end of the heap until the next [`give_back`].
#[cfg(target_env = "gnu")]
const SPARE: libc::c_int = 16 << 20;

/// How often [`give_back`] is worth its time, some milliseconds.
pub const GIVE_BACK: Duration = Duration::from_secs(20);

/// Lets the allocator keep buffers between two uses. To be called before there are threads.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
pub fn keep_buffers() {
    for (what, number) in [
        (libc::M_ARENA_MAX, HEAPS),
        (libc::M_MMAP_THRESHOLD, LARGE),
        (libc::M_TRIM_THRESHOLD, SPARE),
    ] {
        // SAFETY: it sets a number of the allocator, and no other thread allocates yet.
        unsafe {
            libc::mallopt(what, number);
        }
    }
}

/// Gives the kernel what no buffer uses at the moment.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "malloc_trim(3) has no safe wrapper")]
pub fn give_back() {
    // SAFETY: any thread may call it at any time; it moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries have nothing to set.
#[cfg(not(target_env = "gnu"))]
pub fn keep_buffers() {}

/// Other C libraries have nothing to give back.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
