use std::{fmt, sync::Arc};

use http::{HeaderMap, header::HeaderName, header::HeaderValue};

use crate::RequestView;

/// Adds headers whose values depend on the request: the seam for header formatters.
pub trait AddHeaders: Send + Sync {
    /// Changes `headers`, which belong to the request itself or to its response.
    fn add(&self, request: &RequestView<'_>, headers: &mut HeaderMap);
}

impl<F: Fn(&RequestView<'_>, &mut HeaderMap) + Send + Sync> AddHeaders for F {
    fn add(&self, request: &RequestView<'_>, headers: &mut HeaderMap) {
        self(request, headers);
    }
}

/// Headers that a decision adds.
#[derive(Clone, Default)]
pub enum HeadersToAdd {
    /// None.
    #[default]
    None,
    /// These, behind those that are there.
    Fixed(Arc<[(HeaderName, HeaderValue)]>),
    /// Whatever this adds.
    With(Arc<dyn AddHeaders>),
}

impl HeadersToAdd {
    /// Headers with fixed values, behind those that are there.
    pub fn fixed(headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Self {
        let headers: Arc<[_]> = headers.into_iter().collect();
        if headers.is_empty() {
            Self::None
        } else {
            Self::Fixed(headers)
        }
    }

    /// Headers that depend on the request.
    pub fn with(add: impl AddHeaders + 'static) -> Self {
        Self::With(Arc::new(add))
    }

    /// Whether there is nothing to add.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Adds to `headers`.
    pub fn add(&self, request: &RequestView<'_>, headers: &mut HeaderMap) {
        match self {
            Self::None => {}
            Self::Fixed(list) => {
                for (name, value) in list.iter() {
                    headers.append(name.clone(), value.clone());
                }
            }
            Self::With(add) => add.add(request, headers),
        }
    }
}

impl fmt::Debug for HeadersToAdd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Fixed(list) => f.debug_tuple("Fixed").field(list).finish(),
            Self::With(_) => f.write_str("With(..)"),
        }
    }
}
