//! Ring hash and Maglev: which host gets which request.

use anyhow::{Result, ensure};
use e2e::client::Response;
use e2e::upstream::Reply;

use super::http_options;
use crate::ask::{Ask, get};
use crate::config::{Bootstrap, Hcm, endpoint};
use crate::run::Run;
use crate::suite::{Group, group};

/// How many keys are looked up in each table.
const KEYS: usize = 120;

const HOSTS: [&str; 4] = ["a", "b", "c", "d"];

const BY_HEADER: &str = "hash_policy: [{header: {header_name: x-key}}]";

/// Tables that differ in how they are made, by name.
fn tables() -> Vec<(&'static str, String)> {
    let plain = |name: &str| assignment(name, &HOSTS.map(|host| endpoint(host, "")));
    let weighted = |name: &str| {
        let weights = [("a", 1), ("b", 2), ("c", 7), ("d", 5)];
        let weight = |(host, weight): (&str, u32)| {
            endpoint(host, &format!("load_balancing_weight: {weight}"))
        };
        assignment(name, &weights.map(weight))
    };
    let ill = |name: &str| {
        let health = [
            ("a", "UNHEALTHY"),
            ("b", "HEALTHY"),
            ("c", "DEGRADED"),
            ("d", "HEALTHY"),
        ];
        let one =
            |(host, health): (&str, &str)| endpoint(host, &format!("health_status: {health}"));
        assignment(name, &health.map(one))
    };
    let named = |name: &str| {
        let keyed = |host: &str| {
            let key =
                format!("metadata: {{filter_metadata: {{envoy.lb: {{hash_key: key-{host}}}}}}}");
            endpoint(host, &key)
        };
        assignment(name, &["a", "b", "c"].map(keyed))
    };
    let typed = |name: &str, policy: &str, fields: &str| {
        format!(
            "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: x, typed_config: {{\
             '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.{policy}, {fields}}}}}}}]}}\n{}",
            weighted(name)
        )
    };
    let ring = |fields: &str| format!("lb_policy: RING_HASH\nring_hash_lb_config: {{{fields}}}\n");
    let maglev = |fields: &str| format!("lb_policy: MAGLEV\nmaglev_lb_config: {{{fields}}}\n");
    vec![
        ("ring", ring("") + &plain("ring")),
        (
            "murmur",
            ring("hash_function: MURMUR_HASH_2, minimum_ring_size: 64") + &plain("murmur"),
        ),
        (
            "small",
            ring("minimum_ring_size: 2, maximum_ring_size: 10") + &weighted("small"),
        ),
        (
            "weighted",
            ring("minimum_ring_size: 100") + &weighted("weighted"),
        ),
        ("ill", ring("") + &ill("ill")),
        ("named", ring("") + &named("named")),
        ("maglev", maglev("") + &plain("maglev")),
        ("prime", maglev("table_size: 31") + &weighted("prime")),
        ("maglevill", maglev("") + &ill("maglevill")),
        (
            "maglevnamed",
            maglev("table_size: 101") + &named("maglevnamed"),
        ),
        (
            "typedring",
            typed(
                "typedring",
                "ring_hash.v3.RingHash",
                "hash_function: MURMUR_HASH_2, minimum_ring_size: 200",
            ),
        ),
        (
            "typedmaglev",
            typed("typedmaglev", "maglev.v3.Maglev", "table_size: 503"),
        ),
        (
            "own",
            typed(
                "own",
                "ring_hash.v3.RingHash",
                "consistent_hashing_lb_config: {hash_policy: [{query_parameter: {name: k}}]}",
            ),
        ),
        (
            "options",
            http_options(
                "explicit_http_config: {http_protocol_options: {}}\n    hash_policy: [{query_parameter: {name: k}}]",
            ) + "\n"
                + &maglev("")
                + &plain("options"),
        ),
    ]
}

fn assignment(name: &str, endpoints: &[String]) -> String {
    format!(
        "load_assignment:\n  cluster_name: {name}\n  endpoints:\n  - lb_endpoints:\n{}",
        endpoints.concat()
    )
}

/// How requests are hashed, by the route's path.
fn policies() -> Vec<(&'static str, &'static str)> {
    vec![
        (
            "two",
            "[{header: {header_name: x-key}}, {query_parameter: {name: k}}]",
        ),
        (
            "terminal",
            "[{header: {header_name: x-key}, terminal: true}, {query_parameter: {name: k}}]",
        ),
        (
            "rewritten",
            "[{header: {header_name: x-key, regex_rewrite: {pattern: {regex: '^(.).*$'}, substitution: '\\1'}}}]",
        ),
        ("path", "[{header: {header_name: ':path'}}]"),
        ("ip", "[{connection_properties: {source_ip: true}}]"),
        ("cookie", "[{cookie: {name: c}}]"),
        (
            "session",
            "[{cookie: {name: c, ttl: 60s, path: /session, attributes: [{name: SameSite, value: Lax}, {name: Secure}]}}]",
        ),
        ("short", "[{cookie: {name: c, ttl: 0s}}]"),
    ]
}

pub(super) fn groups() -> Vec<Group> {
    let mut routes = "virtual_hosts:\n- name: all\n  domains: ['*']\n  routes:\n".to_owned();
    let mut route = |path: &str, action: &str| {
        routes +=
            &format!("  - {{match: {{path_separated_prefix: /{path}}}, route: {{{action}}}}}\n");
    };
    for (name, _) in tables() {
        route(name, &format!("cluster: {name}, {BY_HEADER}"));
    }
    for (path, policy) in policies() {
        route(path, &format!("cluster: ring, hash_policy: {policy}"));
    }
    route("bounded", &format!("cluster: bounded, {BY_HEADER}"));
    route("priorities", &format!("cluster: priorities, {BY_HEADER}"));
    let retry = "retry_policy: {retry_on: 5xx, num_retries: 1, host_selection_retry_max_attempts: 3, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}";
    for table in ["ring", "maglev"] {
        let action = format!("cluster: {table}, {BY_HEADER}, {retry}");
        route(&format!("{table}again"), &action);
    }
    route(
        "split",
        &format!(
            "weighted_clusters: {{use_hash_policy: true, clusters: [{{name: only_a, weight: 1}}, {{name: only_b, weight: 2}}]}}, {BY_HEADER}"
        ),
    );
    let bounded = "lb_policy: MAGLEV\ncommon_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 130}}";
    let bad = "health_status: UNHEALTHY";
    let first = [endpoint("a", ""), endpoint("b", ""), endpoint("c", bad)];
    let priorities = format!(
        "lb_policy: RING_HASH\nload_assignment:\n  cluster_name: priorities\n  endpoints:\n  - priority: 0\n    lb_endpoints:\n{}  - priority: 1\n    lb_endpoints:\n{}",
        first.concat(),
        endpoint("d", "")
    );
    let mut bootstrap = Bootstrap::default().listener(&Hcm {
        routes: &routes,
        fields: "use_remote_address: true",
        ..Hcm::default()
    });
    for (name, fields) in tables() {
        bootstrap = bootstrap.cluster_with(name, &fields);
    }
    let bootstrap = bootstrap
        .cluster("bounded", &HOSTS, bounded)
        .cluster_with("priorities", &priorities)
        .cluster("only_a", &["a"], "")
        .cluster("only_b", &["b"], "");
    vec![group(
        bootstrap,
        [
            ("hashing/tables", every_table),
            ("hashing/policies", every_policy),
            ("hashing/cookie", cookies),
            ("hashing/bounded", bounded_load),
            ("hashing/priorities", priorities_by_hash),
            ("hashing/another_host", another_host),
            ("hashing/weighted_clusters", split_by_hash),
        ],
    )]
}

/// Who answers a request.
fn host(run: &mut Run<'_>, ask: &Ask) -> Result<String> {
    let answer = run.quietly(ask)?;
    let body = String::from_utf8_lossy(&answer.body.data).into_owned();
    ensure!(
        answer.status == 200 && body.len() == 1,
        "{} {body}",
        answer.status
    );
    Ok(body)
}

/// Who answers each of many requests.
fn hosts(run: &mut Run<'_>, ask: impl Fn(usize) -> Ask) -> Result<String> {
    (0..KEYS).map(|key| host(run, &ask(key))).collect()
}

fn keyed(path: &str, key: usize) -> Ask {
    get(path).header("x-key", &format!("key {key}"))
}

fn every_table(run: &mut Run<'_>) -> Result<()> {
    for (name, _) in tables() {
        let hosts = hosts(run, |key| keyed(&format!("/{name}?k={}", key % 50), key))?;
        // Which of them a small table has is up to their ports.
        let first = hosts.chars().next();
        ensure!(
            hosts.chars().any(|host| Some(host) != first),
            "{name}: {hosts}"
        );
        run.note(name, hosts);
    }
    run.gauges(&[
        "cluster.ring.ring_hash_lb.size",
        "cluster.ring.ring_hash_lb.min_hashes_per_host",
        "cluster.ring.ring_hash_lb.max_hashes_per_host",
        "cluster.small.ring_hash_lb.size",
        "cluster.small.ring_hash_lb.min_hashes_per_host",
        "cluster.small.ring_hash_lb.max_hashes_per_host",
        "cluster.maglev.maglev_lb.min_entries_per_host",
        "cluster.maglev.maglev_lb.max_entries_per_host",
        "cluster.prime.maglev_lb.min_entries_per_host",
        "cluster.prime.maglev_lb.max_entries_per_host",
    ])
}

fn every_policy(run: &mut Run<'_>) -> Result<()> {
    for path in ["two", "terminal", "rewritten", "path"] {
        let hosts = hosts(run, |key| {
            get(&format!("/{path}?k={}&k=x", key * 7)).header("x-key", &format!("{key} times"))
        })?;
        run.note(path, hosts);
    }
    let repeated = hosts(run, |key| {
        let values = if key % 2 == 0 { ["x", "y"] } else { ["y", "x"] };
        values.iter().fold(get("/two"), |ask, value| {
            ask.header("x-key", &format!("{value}{}", key / 2))
        })
    })?;
    run.note("repeated", repeated);
    let by_cookie = hosts(run, |key| {
        get("/cookie").header("cookie", &format!("b=1; c=\"{key}\""))
    })?;
    run.note("by cookie", by_cookie);
    let ip = host(run, &get("/ip"))?;
    run.note("ip", ip);
    Ok(())
}

fn cookies_of(answer: &Response) -> Vec<String> {
    let fields = answer.head.fields.iter();
    let set = fields.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    set.map(|(_, value)| value.clone()).collect()
}

fn cookies(run: &mut Run<'_>) -> Result<()> {
    for path in ["/session", "/short", "/cookie"] {
        let answer = run.quietly(&get(path))?;
        let set = cookies_of(&answer);
        let value = set
            .first()
            .and_then(|set| set.split('"').nth(1))
            .unwrap_or_default()
            .to_owned();
        let shape: Vec<String> = set.iter().map(|set| set.replace(&value, "V")).collect();
        run.note(
            &format!("{path} sets"),
            format!("{shape:?} of {} digits", value.len()),
        );
        if value.is_empty() {
            continue;
        }
        let with = get(path).header("cookie", &format!("c={value}"));
        let first = String::from_utf8_lossy(&answer.body.data).into_owned();
        let sticks = host(run, &with)? == first;
        run.note(&format!("{path} sticks"), sticks.to_string());
        let again = cookies_of(&run.quietly(&with)?).len();
        run.note(&format!("{path} sets again"), again.to_string());
    }
    Ok(())
}

/// One key, and more requests at once than its host may have.
fn bounded_load(run: &mut Run<'_>) -> Result<()> {
    const HELD: usize = 10;
    for host in HOSTS {
        run.up[host].on(
            "/bounded/held",
            [(); HELD].map(|()| Reply::ok("held").after("go")),
        );
    }
    let mut order = String::new();
    let mut before = HOSTS.map(|host| run.up[host].seen().requests);
    let mut held = Vec::new();
    for number in 1..=HELD {
        let ask = get("/bounded/held")
            .header("x-key", "one")
            .expect(200)
            .any_host();
        held.push(run.start(ask)?);
        let all = |run: &Run<'_>| HOSTS.map(|host| run.up[host].seen().requests);
        let start: usize = before.iter().sum();
        let came = e2e::wait::until(e2e::wait::Deadline::default(), || {
            (all(run).iter().sum::<usize>() > start).then_some(())
        });
        ensure!(came.is_some(), "request {number} came nowhere");
        let now = all(run);
        let at = (0..HOSTS.len())
            .find(|at| now[*at] > before[*at])
            .unwrap_or_default();
        order.push_str(HOSTS[at]);
        before = now;
    }
    run.note("order", order);
    for host in HOSTS {
        run.up[host].release("go");
    }
    for held in held {
        ensure!(Run::finish_quietly(held).status == 200, "not answered");
    }
    Ok(())
}

fn priorities_by_hash(run: &mut Run<'_>) -> Result<()> {
    let hosts = hosts(run, |key| keyed("/priorities", key))?;
    ensure!(hosts.contains('d'), "nothing spills over: {hosts}");
    run.note("hosts", hosts);
    Ok(())
}

/// A retry that prefers a host other than the first.
fn another_host(run: &mut Run<'_>) -> Result<()> {
    for table in ["ring", "maglev"] {
        let path = format!("/{table}again");
        for host in HOSTS {
            let failures = (0..KEYS).map(|_| Reply::status(503).body(host));
            run.up[host].on(&path, failures);
        }
        let mut hosts = String::new();
        for key in 0..KEYS / 4 {
            let answer = run.quietly(&keyed(&path, key))?;
            hosts.push_str(&String::from_utf8_lossy(&answer.body.data));
        }
        run.note(table, hosts);
    }
    Ok(())
}

fn split_by_hash(run: &mut Run<'_>) -> Result<()> {
    let hosts = hosts(run, |key| keyed("/split", key))?;
    ensure!(hosts.contains('a'), "{hosts}");
    run.note("hosts", hosts);
    Ok(())
}
