//! CORS.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::{Ask, get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const POLICY: &str =
    "'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";

fn says(policy: &str) -> String {
    format!("typed_per_filter_config: {{cors: {{{POLICY}, {policy}}}}}")
}

const EXACT: &str =
    "allow_origin_string_match: [{exact: 'https://good.example'}, {suffix: .fine.example}]";

pub(super) fn groups() -> Vec<Group> {
    let all = format!(
        "{EXACT}, allow_methods: 'GET,PUT', allow_headers: 'x-a, x-b', expose_headers: 'x-c', max_age: '600', allow_credentials: true, allow_private_network_access: true"
    );
    let routes = [
        ("all", says(&all)),
        ("plain", says(EXACT)),
        ("any", says("allow_origin_string_match: [{exact: '*'}]")),
        ("strict", says(&format!("{EXACT}, forward_not_matching_preflights: false"))),
        (
            "off",
            says(&format!("{EXACT}, filter_enabled: {{default_value: {{numerator: 0}}}}")),
        ),
        (
            "shadow",
            says(&format!(
                "{EXACT}, filter_enabled: {{default_value: {{numerator: 0}}}}, shadow_enabled: {{default_value: {{numerator: 100}}}}"
            )),
        ),
        (
            "strictall",
            says(&format!("{all}, forward_not_matching_preflights: false")),
        ),
        // The rest comes from the virtual host.
        ("methods", says("allow_methods: DELETE")),
        ("silent", String::new()),
        (
            "disabled",
            "typed_per_filter_config: {cors: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}".to_owned(),
        ),
    ];
    let mut text =
        "virtual_hosts:\n- name: all\n  domains: ['test.example']\n  routes:\n".to_owned();
    for (name, says) in &routes {
        let says = if says.is_empty() {
            String::new()
        } else {
            format!(", {says}")
        };
        for (suffix, to) in [
            ("", "route: {cluster: a}"),
            (
                "-here",
                "direct_response: {status: 200, body: {inline_string: here}}",
            ),
            ("-lost", "route: {cluster: none}"),
        ] {
            text +=
                &format!("  - {{match: {{path_separated_prefix: /{name}{suffix}}}, {to}{says}}}\n");
        }
    }
    text += &format!(
        "  {}\n- name: nothing\n  domains: ['*']\n  routes: [{{match: {{prefix: /}}, route: {{cluster: a}}}}]\n",
        says(
            "allow_origin_string_match: [{safe_regex: {regex: 'https://host[.].*'}}], max_age: '5', expose_headers: x-d"
        )
    );
    let bootstrap = Bootstrap::default()
        .listener(&Hcm {
            routes: &text,
            filters: "
                - name: cors
                  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}
            ",
            ..Hcm::default()
        })
        .cluster("a", &["a"], "")
        .cluster("none", &[], "");
    vec![group(
        bootstrap,
        [
            ("cors/requests", requests),
            ("cors/preflights", preflights),
            ("cors/levels", levels),
            ("cors/answers_of_upstreams", answers),
        ],
    )]
}

const ORIGINS: [&str; 5] = [
    "https://good.example",
    "https://GOOD.example",
    "http://x.fine.example",
    "https://host.example",
    "null",
];

fn from(ask: Ask, origin: &str) -> Ask {
    ask.header("Origin", origin)
}

fn preflight(path: &str, origin: &str) -> Ask {
    from(request("OPTIONS", path), origin).header("Access-Control-Request-Method", "GET")
}

fn count(run: &mut Run<'_>) -> Result<()> {
    run.counters(&[
        "http.main.cors.origin_valid",
        "http.main.cors.origin_invalid",
    ])
}

fn requests(run: &mut Run<'_>) -> Result<()> {
    for path in [
        "/all",
        "/plain",
        "/any",
        "/off",
        "/shadow",
        "/all-here",
        "/all-lost",
        "/disabled",
        "/strict",
    ] {
        for origin in ORIGINS {
            run.send(from(get(path), origin))?;
        }
    }
    run.send(get("/all"))?;
    run.send(from(get("/all"), ""))?;
    run.send(from(get("/all"), "https://good.example").host("other.example"))?;
    run.send(from(get("/nowhere"), "https://good.example"))?;
    count(run)
}

fn preflights(run: &mut Run<'_>) -> Result<()> {
    for path in [
        "/all",
        "/plain",
        "/any",
        "/strict",
        "/off",
        "/shadow",
        "/all-here",
        "/all-lost",
        "/disabled",
    ] {
        for origin in ORIGINS {
            run.send(preflight(path, origin))?;
        }
    }
    let two = preflight("/strict", "https://good.example");
    run.send(from(two, "https://good.example"))?;
    for origin in ORIGINS {
        let private = preflight("/strictall", origin);
        run.send(private.header("Access-Control-Request-Private-Network", "true"))?;
    }
    // Without a method, or with another one, it is no preflight.
    run.send(from(request("OPTIONS", "/all"), "https://good.example"))?;
    run.send(
        from(get("/all"), "https://good.example").header("Access-Control-Request-Method", "GET"),
    )?;
    let empty = from(request("OPTIONS", "/all"), "https://good.example");
    run.send(empty.header("Access-Control-Request-Method", ""))?;
    let private = preflight("/all", "https://good.example");
    run.send(private.header("Access-Control-Request-Private-Network", "true"))?;
    let plain = preflight("/plain", "https://good.example");
    run.send(plain.header("Access-Control-Request-Private-Network", "true"))?;
    count(run)
}

fn levels(run: &mut Run<'_>) -> Result<()> {
    for path in ["/methods", "/silent", "/methods-here", "/silent-lost"] {
        for origin in ["https://host.example", "https://good.example"] {
            run.send(from(get(path), origin))?;
            run.send(preflight(path, origin))?;
        }
    }
    count(run)
}

fn answers(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/all",
        [(); 2].map(|()| {
            Reply::ok("x")
                .header("Access-Control-Allow-Origin", "*")
                .header("Access-Control-Expose-Headers", "x-own")
                .header("Access-Control-Allow-Credentials", "false")
        }),
    );
    run.send(from(get("/all"), "https://good.example"))?;
    run.send(from(get("/all"), "https://bad.example"))?;
    Ok(())
}
