//! Tests on strings, headers and query parameters, wherever they stand.

use envoy_types::pb::envoy::{
    config::route::v3 as pb,
    r#type::matcher::v3::{self as ty, string_matcher::MatchPattern},
};
use mesh_route::{
    HeaderMatch, HeaderMatcher, QueryMatch, QueryParameterMatcher, RegexRewrite, SafeRegex,
    StringMatcher,
};

use super::context::Context;
use crate::language::{
    At, MessageSupport,
    Support::{Enforced, Meaningless},
};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.route.v3.HeaderMatcher",
        fields: &[
            ("name", Enforced),
            ("exact_match", Enforced),
            ("safe_regex_match", Enforced),
            ("range_match", Enforced),
            ("present_match", Enforced),
            ("prefix_match", Enforced),
            ("suffix_match", Enforced),
            ("contains_match", Enforced),
            ("string_match", Enforced),
            ("invert_match", Enforced),
            ("treat_missing_header_as_empty", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.QueryParameterMatcher",
        fields: &[
            ("name", Enforced),
            ("string_match", Enforced),
            ("present_match", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.type.matcher.v3.StringMatcher",
        fields: &[
            ("exact", Enforced),
            ("prefix", Enforced),
            ("suffix", Enforced),
            ("safe_regex", Enforced),
            ("contains", Enforced),
            ("custom", Enforced),
            ("ignore_case", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.type.matcher.v3.RegexMatcher",
        fields: &[
            ("regex", Enforced),
            // RE2's dialect is the only one, and programs have a bound of their own.
            ("google_re2", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.type.matcher.v3.RegexMatchAndSubstitute",
        fields: &[("pattern", Enforced), ("substitution", Enforced)],
    },
    MessageSupport {
        message: "envoy.type.v3.Int64Range",
        fields: &[("start", Enforced), ("end", Enforced)],
    },
];

/// All of them, unless one is wrong.
pub(super) fn headers(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[pb::HeaderMatcher],
) -> Vec<HeaderMatcher> {
    let matchers = from.iter().enumerate();
    matchers
        .filter_map(|(index, from)| header(cx, &at.index(index), from))
        .collect()
}

pub(super) fn header(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::HeaderMatcher,
) -> Option<HeaderMatcher> {
    use pb::header_matcher::HeaderMatchSpecifier as Specifier;
    let test = match &from.header_match_specifier {
        None => HeaderMatch::Present(true),
        Some(Specifier::PresentMatch(present)) => HeaderMatch::Present(*present),
        Some(Specifier::RangeMatch(range)) => HeaderMatch::Range {
            start: range.start,
            end: range.end,
        },
        Some(Specifier::ExactMatch(text)) => HeaderMatch::Text(StringMatcher::exact(text.as_str())),
        Some(Specifier::PrefixMatch(text)) => {
            let matcher = StringMatcher::prefix(text.as_str());
            HeaderMatch::Text(cx.ok(&at.field("prefix_match"), matcher)?)
        }
        Some(Specifier::SuffixMatch(text)) => {
            let matcher = StringMatcher::suffix(text.as_str());
            HeaderMatch::Text(cx.ok(&at.field("suffix_match"), matcher)?)
        }
        Some(Specifier::ContainsMatch(text)) => {
            let matcher = StringMatcher::contains(text.as_str());
            HeaderMatch::Text(cx.ok(&at.field("contains_match"), matcher)?)
        }
        Some(Specifier::SafeRegexMatch(from)) => {
            let regex = regex(cx, &at.field("safe_regex_match"), from)?;
            HeaderMatch::Text(StringMatcher::safe_regex(regex))
        }
        Some(Specifier::StringMatch(from)) => {
            HeaderMatch::Text(string(cx, &at.field("string_match"), from)?)
        }
    };
    let matcher = cx.ok(&at.field("name"), HeaderMatcher::new(&from.name, test))?;
    Some(
        matcher
            .inverted(from.invert_match)
            .missing_as_empty(from.treat_missing_header_as_empty),
    )
}

pub(super) fn query_parameters(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[pb::QueryParameterMatcher],
) -> Vec<QueryParameterMatcher> {
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;
    let matchers = from.iter().enumerate().filter_map(|(index, from)| {
        let at = at.index(index);
        let test = match &from.query_parameter_match_specifier {
            None => QueryMatch::Present(true),
            Some(Specifier::PresentMatch(present)) => QueryMatch::Present(*present),
            Some(Specifier::StringMatch(from)) => {
                QueryMatch::Text(string(cx, &at.field("string_match"), from)?)
            }
        };
        let matcher = QueryParameterMatcher::new(from.name.as_str(), test);
        cx.ok(&at.field("name"), matcher)
    });
    matchers.collect()
}

pub(super) fn string(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &ty::StringMatcher,
) -> Option<StringMatcher> {
    let matcher = match from.match_pattern.as_ref()? {
        MatchPattern::Exact(text) => StringMatcher::exact(text.as_str()),
        MatchPattern::Prefix(text) => {
            cx.ok(&at.field("prefix"), StringMatcher::prefix(text.as_str()))?
        }
        MatchPattern::Suffix(text) => {
            cx.ok(&at.field("suffix"), StringMatcher::suffix(text.as_str()))?
        }
        MatchPattern::Contains(text) => cx.ok(
            &at.field("contains"),
            StringMatcher::contains(text.as_str()),
        )?,
        MatchPattern::SafeRegex(from) => {
            StringMatcher::safe_regex(regex(cx, &at.field("safe_regex"), from)?)
        }
        MatchPattern::Custom(_) => {
            cx.invalid(&at.field("custom"), "custom matchers are not supported");
            return None;
        }
    };
    cx.ok(
        &at.field("ignore_case"),
        matcher.ignore_case(from.ignore_case),
    )
}

pub(super) fn regex(cx: &Context<'_>, at: &At<'_>, from: &ty::RegexMatcher) -> Option<SafeRegex> {
    cx.regex(&at.field("regex"), &from.regex)
}

pub(super) fn regex_rewrite(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &ty::RegexMatchAndSubstitute,
) -> Option<RegexRewrite> {
    let pattern = from.pattern.as_ref().map_or("", |pattern| &pattern.regex);
    cx.ok(at, RegexRewrite::new(pattern, &from.substitution))
}
