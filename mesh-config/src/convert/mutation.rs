//! Headers that are added and removed, at whatever level.

use envoy_types::pb::envoy::config::core::v3::{
    self as pb, header_value_option::HeaderAppendAction,
};
use http::HeaderName;
use mesh_core::format::Format;
use mesh_route::{AppendAction, HeaderAdd, HeaderMutation, HeaderMutations};

use super::{context::Context, value};
use crate::language::{At, MessageSupport, Support::Enforced};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.core.v3.HeaderValueOption",
        fields: &[
            ("header", Enforced),
            ("append", Enforced),
            ("append_action", Enforced),
            ("keep_empty_value", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.HeaderValue",
        fields: &[
            ("key", Enforced),
            ("value", Enforced),
            ("raw_value", Enforced),
        ],
    },
];

/// The four lists of one level.
pub(super) struct Lists<'a> {
    pub(super) request_add: &'a [pb::HeaderValueOption],
    pub(super) request_remove: &'a [String],
    pub(super) response_add: &'a [pb::HeaderValueOption],
    pub(super) response_remove: &'a [String],
}

/// The lists of any message that has them: their names are the same everywhere.
macro_rules! lists {
    ($from:expr) => {
        $crate::convert::mutation::Lists {
            request_add: &$from.request_headers_to_add,
            request_remove: &$from.request_headers_to_remove,
            response_add: &$from.response_headers_to_add,
            response_remove: &$from.response_headers_to_remove,
        }
    };
}
pub(super) use lists;

pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, lists: &Lists<'_>) -> HeaderMutations {
    let one = |add_field, add, remove_field, remove| {
        let added = additions(cx, &at.field(add_field), add);
        let added = added.into_iter().map(Addition::into_header_add).collect();
        let removed = removals(cx, &at.field(remove_field), remove);
        cx.ok(&at.field(remove_field), HeaderMutation::new(added, removed))
            .unwrap_or_default()
    };
    HeaderMutations {
        request: one(
            "request_headers_to_add",
            lists.request_add,
            "request_headers_to_remove",
            lists.request_remove,
        ),
        response: one(
            "response_headers_to_add",
            lists.response_add,
            "response_headers_to_remove",
            lists.response_remove,
        ),
    }
}

/// The lists of something that only asks.
pub(super) fn requests(
    cx: &Context<'_>,
    at: &At<'_>,
    add: &[pb::HeaderValueOption],
    remove: &[String],
) -> HeaderMutation {
    let lists = Lists {
        request_add: add,
        request_remove: remove,
        response_add: &[],
        response_remove: &[],
    };
    convert(cx, at, &lists).request
}

/// Headers of one list, which are only added.
pub(super) fn metadata(
    cx: &Context<'_>,
    at: &At<'_>,
    add: &[pb::HeaderValueOption],
) -> HeaderMutation {
    let added = additions(cx, at, add);
    let added = added.into_iter().map(Addition::into_header_add).collect();
    cx.ok(at, HeaderMutation::new(added, Vec::new()))
        .unwrap_or_default()
}

fn removals(cx: &Context<'_>, at: &At<'_>, names: &[String]) -> Vec<HeaderName> {
    let names = names.iter().enumerate();
    let names = names.filter_map(|(index, name)| removal(cx, &at.index(index), name));
    names.collect()
}

pub(super) fn removal(cx: &Context<'_>, at: &At<'_>, name: &str) -> Option<HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        cx.invalid(at, "pseudo headers and host may not be removed");
        return None;
    }
    value::header_name(cx, at, name)
}

/// One header that is added, and how.
pub(super) struct Addition {
    pub(super) add: HeaderAdd,
    pub(super) action: AppendAction,
    pub(super) keep_empty_value: bool,
}

impl Addition {
    pub(super) fn into_header_add(self) -> HeaderAdd {
        self.add
            .append_action(self.action)
            .keep_empty_value(self.keep_empty_value)
    }
}

pub(super) fn additions(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[pb::HeaderValueOption],
) -> Vec<Addition> {
    let options = from.iter().enumerate();
    options
        .filter_map(|(index, option)| addition(cx, &at.index(index), option))
        .collect()
}

pub(super) fn addition(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::HeaderValueOption,
) -> Option<Addition> {
    let header = from.header.as_ref()?;
    let at_header = at.field("header");
    let text = match (header.value.as_str(), header.raw_value.as_slice()) {
        ("", raw) => cx.ok(&at_header.field("raw_value"), std::str::from_utf8(raw))?,
        (text, _) => text,
    };
    let format = cx.ok(&at_header.field("value"), Format::parse(text))?;
    for operator in format.always_unset() {
        cx.unsupported(
            &at_header.field("value"),
            "envoy.config.core.v3.HeaderValue.value",
            Some(operator),
        );
    }
    let add = cx.ok(&at_header, HeaderAdd::new(&header.key, format))?;
    let action = match from.append {
        Some(_) if from.append_action() != HeaderAppendAction::AppendIfExistsOrAdd => {
            cx.invalid(
                &at.field("append"),
                "append and append_action cannot both be set",
            );
            return None;
        }
        Some(append) if append.value => AppendAction::AppendIfExistsOrAdd,
        Some(_) => AppendAction::OverwriteIfExistsOrAdd,
        None => match from.append_action() {
            HeaderAppendAction::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
            HeaderAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
            HeaderAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
            HeaderAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
        },
    };
    Some(Addition {
        add,
        action,
        keep_empty_value: from.keep_empty_value,
    })
}
