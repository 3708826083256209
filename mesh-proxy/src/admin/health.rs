use super::{Ask, Page};

pub(super) fn fail(ask: &Ask<'_>) -> Page {
    ask.process.mesh.server_health().fail();
    Page::text("OK\n")
}

pub(super) fn pass(ask: &Ask<'_>) -> Page {
    ask.process.mesh.server_health().pass();
    Page::text("OK\n")
}
