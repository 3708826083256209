use serde_json::json;

use super::{Ask, Page};

/// Resident bytes of this process; `None` where the system does not say.
pub(crate) fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

pub(super) fn page(_: &Ask<'_>) -> Page {
    let bytes = resident().unwrap_or_default().to_string();
    // The allocator tells no more; Envoy's other fields are there, at zero.
    Page::json(&json!({
        "allocated": bytes,
        "heap_size": bytes,
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": bytes,
    }))
}
