use http::{HeaderMap, HeaderName, HeaderValue, header, request};
use mesh_core::{
    Facts, RequestInfo,
    format::{Captures, Format, FormatContext, RequestView},
};
use smallvec::SmallVec;

use crate::{RouteConfigError, inline};

/// The most headers that one level adds, and the most that it removes; more is a config error.
pub const MUTATIONS_MAX: usize = 1000;
/// The longest value template in bytes; a longer one is a config error.
pub const VALUE_MAX: usize = 16_384;

/// What one level (route, virtual host, …) does to requests and to responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMutations {
    /// Envoy: `request_headers_to_add`, `request_headers_to_remove`.
    pub request: HeaderMutation,
    /// Envoy: `response_headers_to_add`, `response_headers_to_remove`.
    pub response: HeaderMutation,
}

impl HeaderMutations {
    pub(crate) fn bind(&mut self, captures: &mut Captures) {
        // Request headers are at hand when a request is changed, and gone when its response is.
        self.response.bind(captures);
    }
}

/// Removes headers, then adds some: one level, one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMutation {
    remove: Vec<HeaderName>,
    add: Vec<HeaderAdd>,
}

impl HeaderMutation {
    pub(crate) const EMPTY: Self = Self {
        remove: Vec::new(),
        add: Vec::new(),
    };

    /// Removes `remove`, then adds `add`.
    ///
    /// # Errors
    /// When either is longer than [`MUTATIONS_MAX`], or `Host` would be removed.
    pub fn new(add: Vec<HeaderAdd>, remove: Vec<HeaderName>) -> Result<Self, RouteConfigError> {
        if add.len().max(remove.len()) > MUTATIONS_MAX {
            return Err(RouteConfigError::new(format!(
                "more than {MUTATIONS_MAX} header mutations"
            )));
        }
        for name in &remove {
            refuse_protected(name)?;
        }
        Ok(Self { remove, add })
    }

    /// Whether nothing happens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// What is added.
    #[must_use]
    pub fn added(&self) -> &[HeaderAdd] {
        &self.add
    }

    /// Changes a request on its way, whose head values may quote.
    pub fn apply_to_request(&self, parts: &mut request::Parts, info: &RequestInfo) {
        info.with(|facts| self.apply_to_request_with(parts, info, facts));
    }

    pub(crate) fn apply_to_request_with(
        &self,
        parts: &mut request::Parts,
        info: &RequestInfo,
        facts: &Facts,
    ) {
        self.remove_from(&mut parts.headers);
        let view = RequestView::of_parts(parts);
        let context = FormatContext::new(info).with_request(view);
        let values = self.evaluate(&parts.headers, &context, facts);
        apply(values, &mut parts.headers, inline::is_inline);
    }

    pub(crate) fn bind(&mut self, captures: &mut Captures) {
        for add in &mut self.add {
            captures.bind(&mut add.value);
        }
    }

    /// Removes what is to be removed: the first half.
    pub(crate) fn remove_from(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
    }

    /// The values as they are now, each with how it goes in: the middle, which only reads.
    pub(crate) fn evaluate<'a>(
        &'a self,
        headers: &HeaderMap,
        context: &FormatContext<'_>,
        facts: &Facts,
    ) -> Evaluated<'a> {
        let mut buffer = Vec::new();
        let mut values = Evaluated::new();
        for add in &self.add {
            let overwrite = match add.append_action {
                AppendAction::AppendIfExistsOrAdd => false,
                AppendAction::AddIfAbsent if headers.contains_key(&add.name) => continue,
                AppendAction::AddIfAbsent => false,
                AppendAction::OverwriteIfExists if !headers.contains_key(&add.name) => continue,
                AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => true,
            };
            let value = match &add.constant {
                Some(value) => value.clone(),
                None => {
                    buffer.clear();
                    add.value.write_with(context, facts, &mut buffer);
                    // What cannot be in a header was put there by a peer: leave the header out.
                    let Ok(value) = HeaderValue::from_bytes(&buffer) else {
                        continue;
                    };
                    value
                }
            };
            if !value.is_empty() || add.keep_empty_value {
                values.push((&add.name, value, overwrite));
            }
        }
        values
    }
}

/// Values that were worked out before any header changes.
pub(crate) type Evaluated<'a> = SmallVec<[(&'a HeaderName, HeaderValue, bool); 4]>;

/// Puts the values in, overwriting first: the second half.
pub(crate) fn apply(values: Evaluated<'_>, headers: &mut HeaderMap, is_inline: Inline) {
    for (name, value, _) in values.iter().filter(|(_, _, overwrite)| *overwrite) {
        headers.insert(*name, value.clone());
    }
    for (name, value, _) in values.into_iter().filter(|(_, _, overwrite)| !overwrite) {
        append(headers, name, value, is_inline);
    }
}

/// Which headers are joined with commas.
pub(crate) type Inline = fn(&HeaderName) -> bool;

/// Appends a value, to the same line where Envoy keeps one line.
pub(crate) fn append(
    headers: &mut HeaderMap,
    name: &HeaderName,
    value: HeaderValue,
    is_inline: Inline,
) {
    if is_inline(name) && headers.contains_key(name) {
        let old = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let joined = inline::join(old.chain([value.as_bytes()]));
        // Both parts were header values, and so is a comma.
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.insert(name, joined);
        }
        return;
    }
    // The map refuses more than it can hold (32,768); the header is then left out.
    let _ = headers.try_append(name, value);
}

/// One header that a level adds.
///
/// # Envoy
/// `core.v3.HeaderValueOption`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderAdd {
    name: HeaderName,
    value: Format,
    /// The value, if it is the same for every request.
    constant: Option<HeaderValue>,
    append_action: AppendAction,
    keep_empty_value: bool,
}

/// What happens when the header is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppendAction {
    /// The value is added to those that are there.
    #[default]
    AppendIfExistsOrAdd,
    /// Nothing, if it is there.
    AddIfAbsent,
    /// The value replaces those that are there.
    OverwriteIfExistsOrAdd,
    /// The value replaces those that are there; without any, nothing happens.
    OverwriteIfExists,
}

impl HeaderAdd {
    /// Adds `name: value`, appending, and not when the value turns out empty.
    ///
    /// # Errors
    /// When the name is a pseudo header, `Host`, `Content-Length` or `Transfer-Encoding` (rewrites and
    /// the codec own these), or when the value is too long or holds characters that a header must not.
    pub fn new(name: &str, value: Format) -> Result<Self, RouteConfigError> {
        if name.starts_with(':') {
            return Err(RouteConfigError::new(format!(
                "{name:?}: pseudo headers may not be modified"
            )));
        }
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| RouteConfigError::new(format!("{name:?} is not a header name")))?;
        refuse_protected(&name)?;
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(&name) {
            return Err(RouteConfigError::new(format!(
                "\"{name}\" frames the message and may not be added"
            )));
        }
        let length: usize = value.literals().map(str::len).sum();
        if length > VALUE_MAX {
            return Err(RouteConfigError::new(format!(
                "the value of \"{name}\" is longer than {VALUE_MAX} bytes"
            )));
        }
        if value
            .literals()
            .any(|text| HeaderValue::from_str(text).is_err())
        {
            return Err(RouteConfigError::new(format!(
                "the value of \"{name}\" holds characters that a header must not"
            )));
        }
        Ok(Self {
            constant: value.as_literal().and_then(|text| text.parse().ok()),
            name,
            value: value.omit_empty_values(true),
            append_action: AppendAction::default(),
            keep_empty_value: false,
        })
    }

    /// Envoy: `append_action`.
    #[must_use]
    pub const fn append_action(mut self, action: AppendAction) -> Self {
        self.append_action = action;
        self
    }

    /// Whether an empty value is added too; off by default. Envoy: `keep_empty_value`.
    #[must_use]
    pub const fn keep_empty_value(mut self, keep: bool) -> Self {
        self.keep_empty_value = keep;
        self
    }

    /// The header's name.
    #[must_use]
    pub const fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The template of its value.
    #[must_use]
    pub const fn value(&self) -> &Format {
        &self.value
    }
}

fn refuse_protected(name: &HeaderName) -> Result<(), RouteConfigError> {
    if *name == header::HOST {
        return Err(RouteConfigError::new(
            "\"host\" may not be modified: use a host rewrite",
        ));
    }
    Ok(())
}
