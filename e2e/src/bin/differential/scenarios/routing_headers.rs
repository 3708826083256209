//! Header mutation by routes, virtual hosts and route configurations.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::get;
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const LEVELS: &str = r#"
    request_headers_to_add:
    - {header: {key: x-level, value: config}}
    - {header: {key: x-own, value: config}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    request_headers_to_remove: [x-gone-config]
    response_headers_to_add:
    - {header: {key: x-level, value: config}}
    - {header: {key: x-own, value: config}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    response_headers_to_remove: [x-gone-config]
    virtual_hosts:
    - name: all
      domains: ['*']
      request_headers_to_add:
      - {header: {key: x-level, value: host}}
      - {header: {key: x-own, value: host}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
      request_headers_to_remove: [x-gone-host]
      response_headers_to_add:
      - {header: {key: x-level, value: host}}
      - {header: {key: x-own, value: host}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
      response_headers_to_remove: [x-gone-host]
      routes:
      - name: redirect
        match: {prefix: /redirect}
        redirect: {path_redirect: /x}
        response_headers_to_add: [{header: {key: x-level, value: route}}]
      - name: dead
        match: {prefix: /dead}
        route: {cluster: dead}
        response_headers_to_add: [{header: {key: x-level, value: route}}]
      - name: route
        match: {prefix: /}
        route:
          weighted_clusters:
            clusters:
            - name: a
              weight: 1
              request_headers_to_add:
              - {header: {key: x-level, value: cluster}}
              - {header: {key: x-own, value: cluster}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
              response_headers_to_add:
              - {header: {key: x-level, value: cluster}}
        request_headers_to_add:
        - {header: {key: x-level, value: route}}
        - {header: {key: x-own, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
        request_headers_to_remove: [x-gone-route]
        response_headers_to_add:
        - {header: {key: x-level, value: route}}
        - {header: {key: x-own, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
        response_headers_to_remove: [x-gone-route]
"#;

const ACTIONS: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - name: route
        match: {prefix: /}
        route: {cluster: a, prefix_rewrite: /rewritten, host_rewrite_literal: rewritten.example}
        request_headers_to_add:
        - {header: {key: x-append, value: new}, append_action: APPEND_IF_EXISTS_OR_ADD}
        - {header: {key: x-absent, value: new}, append_action: ADD_IF_ABSENT}
        - {header: {key: x-overwrite, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
        - {header: {key: x-exists, value: new}, append_action: OVERWRITE_IF_EXISTS}
        - {header: {key: user-agent, value: new}, append_action: APPEND_IF_EXISTS_OR_ADD}
        - {header: {key: X-Upper, value: new}}
        - {header: {key: x-empty, value: ''}}
        - {header: {key: x-kept-empty, value: ''}, keep_empty_value: true}
        request_headers_to_remove: [x-remove, X-Remove-Upper, x-append-removed]
        response_headers_to_add:
        - {header: {key: x-append, value: new}, append_action: APPEND_IF_EXISTS_OR_ADD}
        - {header: {key: x-absent, value: new}, append_action: ADD_IF_ABSENT}
        - {header: {key: x-overwrite, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
        - {header: {key: x-exists, value: new}, append_action: OVERWRITE_IF_EXISTS}
        - {header: {key: set-cookie, value: new=1}}
        - {header: {key: server, value: mine}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
        response_headers_to_remove: [x-remove, x-envoy-upstream-service-time]
"#;

const FORMATS: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - name: formats
        match: {prefix: /}
        route: {cluster: a}
        request_headers_to_add:
        - {header: {key: x-req, value: '%REQ(x-in)%'}}
        - {header: {key: x-missing, value: '%REQ(x-none)%'}}
        - {header: {key: x-alternative, value: '%REQ(x-none?x-in)%'}}
        - {header: {key: x-cut, value: '%REQ(x-in):2%'}}
        - {header: {key: x-path, value: '%REQ(:path)% %REQ(:method)% %REQ(:authority)%'}}
        - {header: {key: x-percent, value: '100%% sure'}}
        - {header: {key: x-remote, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}
        - {header: {key: x-protocol, value: '%PROTOCOL%'}}
        - {header: {key: x-route, value: '%ROUTE_NAME%'}}
        - {header: {key: x-mixed, value: 'a-%REQ(x-in)%-b'}}
        response_headers_to_add:
        - {header: {key: x-code, value: '%RESPONSE_CODE%'}}
        - {header: {key: x-resp, value: '%RESP(x-from)%'}}
        - {header: {key: x-up, value: '%UPSTREAM_HOST%'}}
        - {header: {key: x-cluster, value: '%UPSTREAM_CLUSTER%'}}
        - {header: {key: x-flags, value: '%RESPONSE_FLAGS%'}}
        - {header: {key: x-attempts, value: '%UPSTREAM_REQUEST_ATTEMPT_COUNT%'}}
"#;

pub(super) fn groups() -> Vec<Group> {
    let with = |name: &'static str, routes: &'static str| Hcm {
        name,
        routes,
        ..Hcm::default()
    };
    let specific = format!(
        "most_specific_header_mutations_wins: true\n{}",
        unindent(LEVELS)
    );
    let bootstrap = Bootstrap::default()
        .listener(&with("levels", LEVELS))
        .listener(&Hcm {
            name: "specific",
            routes: &specific,
            ..Hcm::default()
        })
        .listener(&with("actions", ACTIONS))
        .listener(&with("formats", FORMATS))
        .cluster("a", &["a"], "")
        .cluster("dead", &["dead"], "");
    vec![group(
        bootstrap,
        [
            ("routing/header_levels", |run| levels(run, "levels")),
            ("routing/header_levels_most_specific", |run| {
                levels(run, "specific")
            }),
            ("routing/header_actions", actions),
            (
                "routing/header_actions_on_absent_headers",
                actions_on_absent,
            ),
            ("routing/header_formats", formats),
            ("routing/headers_of_local_replies", local_replies),
        ],
    )]
}

fn unindent(text: &str) -> String {
    text.lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n")
}

fn levels(run: &mut Run<'_>, listener: &str) -> Result<()> {
    let gone = ["x-gone-config", "x-gone-host", "x-gone-route"];
    let reply = gone
        .iter()
        .fold(Reply::ok("x"), |reply, name| reply.header(name, "1"));
    run.up["a"].on(
        "/",
        [reply
            .header("x-own", "upstream")
            .header("x-level", "upstream")],
    );
    let ask = gone.iter().fold(get("/levels").on(listener), |ask, name| {
        ask.header(name, "1")
    });
    run.send(
        ask.header("x-own", "client")
            .header("x-level", "client")
            .expect(200)
            .ordered(),
    )?;
    Ok(())
}

const NAMES: [&str; 6] = [
    "x-append",
    "x-absent",
    "x-overwrite",
    "x-exists",
    "x-remove",
    "x-append",
];

fn actions(run: &mut Run<'_>) -> Result<()> {
    let reply = NAMES
        .iter()
        .fold(Reply::ok("x"), |reply, name| reply.header(name, "old"));
    run.up["a"].on("/", [reply.header("set-cookie", "old=1")]);
    let ask = NAMES.iter().fold(get("/act").on("actions"), |ask, name| {
        ask.header(name, "old")
    });
    let ask = ask
        .header("user-agent", "old")
        .header("x-upper", "old")
        .header("x-remove-upper", "old");
    run.send(ask.expect(200).ordered())?;
    Ok(())
}

fn actions_on_absent(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/act").on("actions").expect(200).ordered())?;
    Ok(())
}

fn formats(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/", [Reply::status(201).header("x-from", "upstream")]);
    run.send(
        get("/f?q=1")
            .on("formats")
            .header("x-in", "value")
            .expect(201),
    )?;
    let ask = get("/f")
        .on("formats")
        .header("x-in", "one")
        .header("x-in", "two");
    run.send(ask.expect(201))?;
    Ok(())
}

fn local_replies(run: &mut Run<'_>) -> Result<()> {
    for (path, status) in [("/redirect", 301), ("/dead", 503)] {
        run.send(get(path).on("levels").expect(status))?;
    }
    Ok(())
}
