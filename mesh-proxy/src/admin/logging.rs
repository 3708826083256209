use http::StatusCode;

use super::{Ask, Page};
use crate::logging;

pub(super) fn page(ask: &Ask<'_>) -> Page {
    if let Some(level) = ask.parameter("level") {
        let Some(number) = logging::parse(&level) else {
            return Page::error(
                StatusCode::BAD_REQUEST,
                format!(
                    "unknown level {level:?}; levels are trace, debug, info, warning, error, critical, off\n"
                ),
            );
        };
        logging::set(number);
        tracing::info!(level, "the log level was set");
    }
    Page::text(format!("active loggers:\n  mesh: {}\n", logging::name()))
}
