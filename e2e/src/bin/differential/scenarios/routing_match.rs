//! Which virtual host and which route.

use anyhow::Result;

use crate::ask::get;
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const PATHS: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - {name: prefix, match: {prefix: /prefix}, route: {cluster: a}}
      - {name: exact, match: {path: /exact}, route: {cluster: a}}
      - {name: nocase, match: {path: /NoCase, case_sensitive: false}, route: {cluster: a}}
      - {name: nocase-prefix, match: {prefix: /Low/, case_sensitive: false}, route: {cluster: a}}
      - {name: regex, match: {safe_regex: {regex: '/re/[0-9]+'}}, route: {cluster: a}}
      - {name: separated, match: {path_separated_prefix: /api}, route: {cluster: a}}
      - {name: first, match: {prefix: /order}, route: {cluster: a}}
      - {name: second, match: {prefix: /order/longer}, route: {cluster: a}}
      - {name: never, match: {prefix: /chance, runtime_fraction: {default_value: {numerator: 0}}}, route: {cluster: a}}
      - {name: always, match: {prefix: /chance, runtime_fraction: {default_value: {numerator: 100}}}, route: {cluster: a}}
"#;

const HEADERS: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - {name: exact, match: {prefix: /, headers: [{name: x-exact, string_match: {exact: one}}]}, route: {cluster: a}}
      - {name: nocase, match: {prefix: /, headers: [{name: x-nocase, string_match: {exact: one, ignore_case: true}}]}, route: {cluster: a}}
      - {name: prefix, match: {prefix: /, headers: [{name: x-prefix, string_match: {prefix: one}}]}, route: {cluster: a}}
      - {name: suffix, match: {prefix: /, headers: [{name: x-suffix, string_match: {suffix: one}}]}, route: {cluster: a}}
      - {name: contains, match: {prefix: /, headers: [{name: x-contains, string_match: {contains: one}}]}, route: {cluster: a}}
      - {name: regex, match: {prefix: /, headers: [{name: x-regex, string_match: {safe_regex: {regex: 'o.e'}}}]}, route: {cluster: a}}
      - {name: range, match: {prefix: /, headers: [{name: x-range, range_match: {start: -5, end: 10}}]}, route: {cluster: a}}
      - {name: present, match: {prefix: /, headers: [{name: x-present, present_match: true}]}, route: {cluster: a}}
      - {name: absent, match: {prefix: /absent, headers: [{name: x-absent, present_match: false}]}, route: {cluster: a}}
      - {name: not-present, match: {prefix: /invert, headers: [{name: x-invert, present_match: true, invert_match: true}]}, route: {cluster: a}}
      - {name: not-one, match: {prefix: /not, headers: [{name: x-not, string_match: {exact: one}, invert_match: true}]}, route: {cluster: a}}
      - {name: empty, match: {prefix: /empty, headers: [{name: x-empty, string_match: {exact: ''}, treat_missing_header_as_empty: true}]}, route: {cluster: a}}
      - {name: empty-not-one, match: {prefix: /enot, headers: [{name: x-enot, string_match: {exact: one}, invert_match: true, treat_missing_header_as_empty: true}]}, route: {cluster: a}}
      - {name: method, match: {prefix: /pseudo, headers: [{name: ':method', string_match: {exact: DELETE}}]}, route: {cluster: a}}
      - {name: authority, match: {prefix: /pseudo, headers: [{name: ':authority', string_match: {exact: special.example}}]}, route: {cluster: a}}
      - {name: both, match: {prefix: /both, headers: [{name: x-1, present_match: true}, {name: x-2, present_match: true}]}, route: {cluster: a}}
"#;

const QUERIES: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - {name: exact, match: {prefix: /, query_parameters: [{name: exact, string_match: {exact: one}}]}, route: {cluster: a}}
      - {name: nocase, match: {prefix: /, query_parameters: [{name: nocase, string_match: {exact: one, ignore_case: true}}]}, route: {cluster: a}}
      - {name: regex, match: {prefix: /, query_parameters: [{name: regex, string_match: {safe_regex: {regex: '[0-9]+'}}}]}, route: {cluster: a}}
      - {name: present, match: {prefix: /, query_parameters: [{name: present, present_match: true}]}, route: {cluster: a}}
      - {name: two, match: {prefix: /, query_parameters: [{name: k1, present_match: true}, {name: k2, present_match: true}]}, route: {cluster: a}}
"#;

const DOMAINS: &str = r#"
    virtual_hosts:
    - {name: exact, domains: [foo.example, 'port.example:8080', '[::1]'], routes: [{name: exact, match: {prefix: /}, route: {cluster: a}}]}
    - {name: suffix, domains: ['*.foo.example'], routes: [{name: suffix, match: {prefix: /}, route: {cluster: a}}]}
    - {name: longer, domains: ['*.bar.foo.example'], routes: [{name: longer, match: {prefix: /}, route: {cluster: a}}]}
    - {name: dash, domains: ['*-dash.example'], routes: [{name: dash, match: {prefix: /}, route: {cluster: a}}]}
    - {name: prefix, domains: ['foo.*'], routes: [{name: prefix, match: {prefix: /}, route: {cluster: a}}]}
    - {name: prefix2, domains: ['foo.bar.*'], routes: [{name: prefix2, match: {prefix: /}, route: {cluster: a}}]}
    - {name: none, domains: [none.example], routes: []}
"#;

const ANY: &str = "
    virtual_hosts:
    - {name: any, domains: ['*'], routes: [{name: any, match: {prefix: /}, route: {cluster: a}}]}
";

pub(super) fn groups() -> Vec<Group> {
    let with = |name: &'static str, routes: &'static str| Hcm {
        name,
        routes,
        ..Hcm::default()
    };
    let ignoring = "
        ignore_port_in_host_matching: true
        virtual_hosts:
        - {name: foo, domains: [foo.example], routes: [{name: foo, match: {prefix: /}, route: {cluster: a}}]}
    ";
    let by_header = "
        vhost_header: x-host
        virtual_hosts:
        - {name: foo, domains: [foo.example], routes: [{name: foo, match: {prefix: /}, route: {cluster: a}}]}
    ";
    let bootstrap = Bootstrap::default()
        .listener(&with("paths", PATHS))
        .listener(&with("headers", HEADERS))
        .listener(&with("queries", QUERIES))
        .listener(&with("domains", DOMAINS))
        .listener(&with("ignoring", ignoring))
        .listener(&with("byheader", by_header))
        .listener(&with("any", ANY))
        .cluster("a", &["a"], "");
    vec![group(
        bootstrap,
        [
            ("routing/match_paths", match_paths),
            ("routing/match_headers", match_headers),
            ("routing/match_repeated_headers", match_repeated_headers),
            ("routing/match_missing_headers", match_missing_headers),
            ("routing/match_queries", match_queries),
            ("routing/match_domains", match_domains),
            (
                "routing/match_domains_without_ports",
                match_domains_without_ports,
            ),
            ("routing/match_virtual_hosts_by_header", match_by_header),
            ("routing/match_fraction", match_fraction),
        ],
    )]
}

fn match_paths(run: &mut Run<'_>) -> Result<()> {
    for (path, status) in [
        ("/prefix", 200),
        ("/prefixes", 200),
        ("/prefix/a?b", 200),
        ("/PREFIX", 404),
        ("/exact", 200),
        ("/exact?query", 200),
        ("/exact/", 404),
        ("/nocase", 200),
        ("/NOCASE?q", 200),
        ("/lOw/x", 200),
        ("/re/123", 200),
        ("/re/123?q=1", 200),
        ("/re/123/", 404),
        ("/x/re/123", 404),
        ("/api", 200),
        ("/api/", 200),
        ("/api/x", 200),
        ("/api?x", 200),
        ("/apix", 404),
        ("/order/longer", 200),
        ("/%70refix", 404),
        ("/", 404),
    ] {
        run.send(get(path).on("paths").expect(status))?;
    }
    run.counters(&["http.paths.no_route", "http.paths.downstream_rq_4xx"])
}

fn match_headers(run: &mut Run<'_>) -> Result<()> {
    for (name, value, status) in [
        ("x-exact", "one", 200),
        ("x-exact", "One", 404),
        ("X-EXACT", "one", 200),
        ("x-nocase", "ONE", 200),
        ("x-prefix", "one-two", 200),
        ("x-prefix", "two-one", 404),
        ("x-suffix", "two-one", 200),
        ("x-contains", "a one b", 200),
        ("x-regex", "one", 200),
        ("x-regex", "ones", 404),
        ("x-range", "-5", 200),
        ("x-range", "9", 200),
        ("x-range", "10", 404),
        ("x-range", "-6", 404),
        ("x-range", "5.0", 404),
        ("x-range", "junk", 404),
        ("x-present", "", 200),
        ("x-present", "anything", 200),
    ] {
        run.send(get("/").on("headers").header(name, value).expect(status))?;
    }
    let ask = crate::ask::request("DELETE", "/pseudo").on("headers");
    run.send(ask.expect(200))?;
    run.send(
        get("/pseudo")
            .host("special.example")
            .on("headers")
            .expect(200),
    )?;
    run.send(get("/pseudo").on("headers").expect(404))?;
    run.send(get("/both").on("headers").header("x-1", "a").expect(404))?;
    let ask = get("/both")
        .on("headers")
        .header("x-1", "a")
        .header("x-2", "a");
    run.send(ask.expect(200))?;
    Ok(())
}

fn match_repeated_headers(run: &mut Run<'_>) -> Result<()> {
    for (name, first, second, status) in [
        ("x-exact", "one", "one", 200),
        ("x-exact", "one", "two", 200),
        ("x-exact", "two", "one", 200),
        ("x-exact", "two", "two", 404),
        ("x-prefix", "one", "two", 200),
        ("x-prefix", "two", "one", 200),
        ("x-suffix", "two", "one", 200),
        ("x-contains", "two", "one", 200),
        ("x-range", "5", "5", 200),
    ] {
        let ask = get("/")
            .on("headers")
            .header(name, first)
            .header(name, second);
        run.send(ask.expect(status))?;
    }
    Ok(())
}

fn match_missing_headers(run: &mut Run<'_>) -> Result<()> {
    for (path, header, status) in [
        ("/absent", "", 200),
        ("/absent", "x-absent", 404),
        ("/invert", "", 200),
        ("/invert", "x-invert", 404),
        ("/not", "", 404),
        ("/not", "x-not", 200),
        ("/empty", "", 200),
        ("/empty", "x-empty", 404),
        ("/enot", "", 200),
        ("/enot", "x-enot", 200),
    ] {
        let mut ask = get(path).on("headers");
        if !header.is_empty() {
            ask = ask.header(header, "two");
        }
        run.send(ask.expect(status))?;
    }
    Ok(())
}

fn match_queries(run: &mut Run<'_>) -> Result<()> {
    for (path, status) in [
        ("/?exact=one", 200),
        ("/?exact=two", 404),
        ("/?Exact=one", 404),
        ("/?a=b&exact=one", 200),
        ("/?exact=one&exact=two", 200),
        ("/?exact=two&exact=one", 404),
        ("/?exact=o%6ee", 404),
        ("/?nocase=ONE", 200),
        ("/?regex=123", 200),
        ("/?regex=12a", 404),
        ("/?present", 200),
        ("/?present=", 200),
        ("/?presents=1", 404),
        ("/?k1&k2", 200),
        ("/?k1", 404),
        ("/?k2=&k1=1", 200),
        ("/?exact=one#f", 400),
        ("/?;exact=one", 404),
        ("/?&exact=one", 200),
    ] {
        run.send(get(path).on("queries").expect(status))?;
    }
    Ok(())
}

fn match_domains(run: &mut Run<'_>) -> Result<()> {
    for (host, status) in [
        ("foo.example", 200),
        ("FOO.Example", 200),
        ("foo.example:80", 200),
        ("a.foo.example", 200),
        ("a.b.foo.example", 200),
        (".foo.example", 404),
        ("a.bar.foo.example", 200),
        ("x-dash.example", 200),
        ("-dash.example", 404),
        ("foo.other", 200),
        ("foo.bar.other", 200),
        ("foo.", 404),
        ("port.example:8080", 200),
        ("port.example", 404),
        ("port.example:80", 404),
        ("[::1]", 200),
        ("none.example", 404),
        ("unknown.example", 404),
        ("foo.example.", 200),
    ] {
        run.send(get("/").host(host).on("domains").expect(status))?;
    }
    Ok(())
}

fn match_domains_without_ports(run: &mut Run<'_>) -> Result<()> {
    for (host, status) in [
        ("foo.example", 200),
        ("foo.example:8080", 200),
        ("foo.examples", 404),
    ] {
        run.send(get("/").host(host).on("ignoring").expect(status))?;
    }
    Ok(())
}

fn match_by_header(run: &mut Run<'_>) -> Result<()> {
    let ask = get("/").host("bar.example").header("x-host", "foo.example");
    run.send(ask.on("byheader").expect(200))?;
    run.send(get("/").host("foo.example").on("byheader").expect(404))?;
    Ok(())
}

fn match_fraction(run: &mut Run<'_>) -> Result<()> {
    for _ in 0..5 {
        run.send(get("/chance").on("paths").expect(200))?;
    }
    run.send(get("/").on("any").expect(200))?;
    Ok(())
}
