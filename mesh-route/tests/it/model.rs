//! Look-ups against the same rules spelled out one by one.

use http::{HeaderValue, Request};
use mesh_core::{
    FractionalPercent, RuntimeFraction,
    format::{Captures, RequestView},
};
use mesh_route::{
    Found, HeaderMatch, HeaderMatcher, NoRoute, PathMatch, PathSeparatedPrefix, QueryMatch,
    QueryParameterMatcher, Route, RouteAction, RouteConfiguration, RouteMatch, RouteTable,
    SafeRegex, StringMatcher, VirtualHost,
};
use proptest::{prelude::*, sample::select};

#[derive(Debug, Clone)]
enum Path {
    Prefix(String),
    Whole(String),
    Separated(String),
    Regex(String),
}

/// One route, as the model sees it.
#[derive(Debug, Clone)]
struct Rule {
    path: Path,
    case_sensitive: bool,
    header: Option<(u8, bool)>,
    query: Option<u8>,
    percent: Option<u32>,
}

#[derive(Debug, Clone)]
struct Ask {
    host: String,
    path: String,
    header: Option<u8>,
    query: Option<u8>,
    random: u64,
    /// A rule whose literal the path is made of, instead.
    aimed: Option<prop::sample::Index>,
}

fn literal() -> impl Strategy<Value = String> {
    prop::collection::vec(select(vec!["/", "a", "A", "b", "ab", "/a", "/b"]), 0..6)
        .prop_map(|parts| parts.concat())
}

fn path() -> impl Strategy<Value = Path> {
    let separated = literal().prop_map(|text| format!("/x{text}").trim_end_matches('/').to_owned());
    let tail = select(vec!["", ".*", "[ab]*", "?", "(/a)?", "|/b", "/?"]);
    let regex = (literal(), tail).prop_map(|(head, tail)| format!("/{head}{tail}"));
    prop_oneof![
        literal().prop_map(Path::Prefix),
        literal().prop_map(Path::Whole),
        separated.prop_map(Path::Separated),
        regex.prop_map(Path::Regex),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let header = prop::option::weighted(0.3, (0u8..3, any::<bool>()));
    let query = prop::option::weighted(0.2, 0u8..3);
    let percent = prop::option::weighted(0.2, 0u32..=100);
    (path(), any::<bool>(), header, query, percent).prop_map(
        |(path, case_sensitive, header, query, percent)| Rule {
            path,
            case_sensitive,
            header,
            query,
            percent,
        },
    )
}

fn domain() -> impl Strategy<Value = String> {
    let name = prop::collection::vec(select(vec!["a", "B", ".", "-", "a.b"]), 1..4);
    (name.prop_map(|parts| parts.concat()), 0..3).prop_map(|(name, kind)| match kind {
        0 => name,
        1 => format!("*{name}"),
        _ => format!("{name}*"),
    })
}

/// Hosts with their rules; no domain twice.
fn hosts() -> impl Strategy<Value = Vec<(Vec<String>, Vec<Rule>)>> {
    let domains =
        prop::collection::btree_map(domain().prop_map(|d| d.to_lowercase()), 0usize..3, 0..8);
    let rules = prop::collection::vec(prop::collection::vec(rule(), 0..16), 3);
    (domains, any::<bool>(), rules).prop_map(|(domains, any_host, rules)| {
        let mut hosts: Vec<(Vec<String>, Vec<Rule>)> =
            rules.into_iter().map(|rules| (Vec::new(), rules)).collect();
        for (domain, host) in domains {
            hosts[host].0.push(domain);
        }
        if any_host {
            hosts[0].0.push("*".to_owned());
        }
        hosts.retain(|(domains, _)| !domains.is_empty());
        hosts
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let host = prop::collection::vec(select(vec!["a", "B", ".", "-", "a.b"]), 0..5);
    (
        host,
        literal(),
        prop::option::of(0u8..3),
        prop::option::of(0u8..3),
        any::<u64>(),
        prop::option::of(any::<prop::sample::Index>()),
    )
        .prop_map(|(host, path, header, query, random, aimed)| Ask {
            aimed,
            host: host.concat(),
            path: format!("/x{path}").replacen("/x", if random % 2 == 0 { "/x" } else { "/" }, 1),
            header,
            query,
            random,
        })
}

impl Ask {
    /// Aims the path at one of the rules: exactly, or beyond.
    fn aim(&mut self, hosts: &[(Vec<String>, Vec<Rule>)]) {
        let rules: Vec<&Rule> = hosts.iter().flat_map(|(_, rules)| rules).collect();
        let Some(aimed) = self.aimed.filter(|_| !rules.is_empty()) else {
            return;
        };
        let (Path::Prefix(literal) | Path::Whole(literal) | Path::Separated(literal)) =
            &rules[aimed.index(rules.len())].path
        else {
            return;
        };
        if literal.starts_with('/') {
            let tail = ["", "", "/", "a"][(self.random % 4) as usize];
            self.path = format!("{literal}{tail}");
        }
    }
}

impl Rule {
    fn route(&self) -> Route<()> {
        let mut matches = RouteMatch::new(match &self.path {
            Path::Prefix(text) => PathMatch::Prefix(text.as_str().into()),
            Path::Whole(text) => PathMatch::Path(text.as_str().into()),
            Path::Separated(text) => {
                PathMatch::PathSeparatedPrefix(PathSeparatedPrefix::new(text.as_str()).unwrap())
            }
            Path::Regex(pattern) => PathMatch::SafeRegex(SafeRegex::new(pattern).unwrap()),
        });
        matches.case_sensitive = self.case_sensitive;
        matches.headers.extend(self.header.map(|(value, invert)| {
            let text = StringMatcher::exact(value.to_string());
            HeaderMatcher::new("x", HeaderMatch::Text(text))
                .unwrap()
                .inverted(invert)
        }));
        matches.query_parameters.extend(self.query.map(|value| {
            let text = StringMatcher::exact(value.to_string());
            QueryParameterMatcher::new("q", QueryMatch::Text(text)).unwrap()
        }));
        matches.runtime_fraction = self
            .percent
            .map(|percent| RuntimeFraction::fixed(FractionalPercent::percent(percent)));
        Route::new(matches, RouteAction::to("c"), ())
    }

    fn accepts(&self, ask: &Ask) -> bool {
        let fold = |text: &str| {
            if self.case_sensitive {
                text.to_owned()
            } else {
                text.to_lowercase()
            }
        };
        let path = fold(&ask.path);
        let path_passes = match &self.path {
            Path::Prefix(text) => path.starts_with(&fold(text)),
            Path::Whole(text) => path == fold(text),
            Path::Separated(text) => path == fold(text) || path.starts_with(&(fold(text) + "/")),
            Path::Regex(pattern) => regex::Regex::new(&format!("^(?:{pattern})$"))
                .unwrap()
                .is_match(&ask.path),
        };
        let header_passes = match (self.header, ask.header) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((want, invert)), Some(value)) => (want == value) != invert,
        };
        path_passes
            && header_passes
            && self.query.is_none_or(|want| ask.query == Some(want))
            && self
                .percent
                .is_none_or(|percent| ask.random % 100 < u64::from(percent))
    }
}

/// How well a domain fits: larger is better, `None` is not at all.
fn fit(domain: &str, host: &str) -> Option<(u8, usize)> {
    let host = host.to_lowercase();
    if domain == "*" {
        return Some((0, 0));
    }
    if let Some(suffix) = domain.strip_prefix('*') {
        return (host.ends_with(suffix) && host.len() > suffix.len()).then_some((2, suffix.len()));
    }
    if let Some(prefix) = domain.strip_suffix('*') {
        return (host.starts_with(prefix) && host.len() > prefix.len())
            .then_some((1, prefix.len()));
    }
    (host == domain).then_some((3, 0))
}

fn expected(hosts: &[(Vec<String>, Vec<Rule>)], ask: &Ask) -> Result<(usize, usize), NoRoute> {
    let best = hosts
        .iter()
        .enumerate()
        .flat_map(|(i, (domains, _))| {
            domains
                .iter()
                .map(move |domain| (fit(domain, &ask.host), i))
        })
        .filter(|(fit, _)| fit.is_some())
        .max();
    let (_, host) = best.ok_or(NoRoute::VirtualHost)?;
    let rule = hosts[host].1.iter().position(|rule| rule.accepts(ask));
    rule.map(|rule| (host, rule)).ok_or(NoRoute::Route)
}

fn build(hosts: &[(Vec<String>, Vec<Rule>)]) -> RouteTable<()> {
    let hosts = hosts.iter().enumerate().map(|(i, (domains, rules))| {
        let routes = rules.iter().map(Rule::route).collect();
        VirtualHost::new(i.to_string(), domains.clone(), routes)
    });
    let config = RouteConfiguration::new("rc", hosts.collect());
    RouteTable::new(config, &mut Captures::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn model_the_index_finds_what_a_walk_finds(
        hosts in hosts(),
        asks in prop::collection::vec(ask(), 1..20),
    ) {
        let table = build(&hosts);
        for mut ask in asks {
            ask.aim(&hosts);
            let query = ask.query.map(|q| format!("?q={q}")).unwrap_or_default();
            let mut request = Request::get(format!("{}{query}", ask.path)).header("host", &ask.host);
            if let Some(value) = ask.header {
                request = request.header("x", value.to_string());
            }
            let request = request.body(()).unwrap();
            let found = table.find(&RequestView::of(&request), ask.random).map(|found| match found {
                Found::Route(route) => {
                    (route.virtual_host().name().parse::<usize>().unwrap(), route.position())
                }
                Found::TlsRequired(_) => unreachable!("no host requires TLS"),
            });
            prop_assert_eq!(found, expected(&hosts, &ask), "{:?}", ask);
        }
    }

    #[test]
    fn no_host_and_no_path_makes_a_look_up_panic(
        hosts in hosts(),
        host in prop::collection::vec(any::<u8>(), 0..300),
        path in "[/a-zA-Z0-9;%#?&=é\u{10ffff}.]{0,60}",
        ignore_port in any::<bool>(),
    ) {
        let mut config = RouteConfiguration::new("rc", vec![]);
        config.ignore_port_in_host_matching = ignore_port;
        config.ignore_path_parameters_in_path_matching = ignore_port;
        config.virtual_hosts = hosts.iter().enumerate().map(|(i, (domains, rules))| {
            let routes = rules.iter().map(Rule::route).collect();
            VirtualHost::new(i.to_string(), domains.clone(), routes)
        }).collect();
        let table = RouteTable::new(config, &mut Captures::default()).unwrap();
        let mut request = Request::new(());
        if let Ok(host) = HeaderValue::from_bytes(&host) {
            request.headers_mut().insert("host", host);
        }
        let mut view = RequestView::of(&request);
        view.path = &path;
        if let Ok(Found::Route(route)) = table.find(&view, 7) {
            let _ = route.local_reply(&view);
        }
    }
}
