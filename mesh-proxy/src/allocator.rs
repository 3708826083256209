use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

/// What every block of mimalloc is aligned to that is no smaller. `MI_MAX_ALIGN_SIZE` in its `types.h`.
const ALIGNED: usize = 16;

/// mimalloc without the detour by which its crate asks for alignment that every block has anyway: a third of an
/// allocation's instructions.
pub(crate) struct Mimalloc;

// SAFETY: whatever is not given straight to mimalloc's own function, whose blocks are aligned to `ALIGNED`, goes to
// its crate's `GlobalAlloc`; both take and give back each other's blocks.
#[expect(unsafe_code, reason = "an allocator is one by an unsafe trait")]
unsafe impl GlobalAlloc for Mimalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED && layout.size() >= layout.align() {
            // SAFETY: it takes any size.
            unsafe { libmimalloc_sys::mi_malloc(layout.size()).cast() }
        } else {
            // SAFETY: the caller's promise is the one that is asked for.
            unsafe { MiMalloc.alloc(layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}
