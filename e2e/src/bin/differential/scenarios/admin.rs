//! Admin pages: what tools read from them.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::ask::get;
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const ROUTES: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - name: often
        match: {prefix: /share, runtime_fraction: {default_value: {numerator: 0}, runtime_key: share}}
        direct_response: {status: 201}
      - {match: {prefix: /share}, direct_response: {status: 202}}
      - {match: {prefix: /}, route: {cluster: a}}
"#;

const LAYERS: &str = "
layered_runtime:
  layers:
  - name: base
    static_layer: {share: 100, nested: {inner: {deep: text}, flag: true}, number: 1.5, text: '7'}
  - name: top
    static_layer: {number: 2}
  - name: people
    admin_layer: {}
";

pub(super) fn groups() -> Vec<Group> {
    let bootstrap = || {
        Bootstrap::default()
            .listener(&Hcm {
                routes: ROUTES,
                ..Hcm::default()
            })
            .cluster(
                "a",
                &["a"],
                "circuit_breakers: {thresholds: [{max_connections: 7}]}",
            )
    };
    vec![
        group(
            bootstrap().top(LAYERS),
            [
                ("admin/runtime", runtime),
                ("admin/runtime_modify", runtime_modify),
                ("admin/clusters_json", clusters_json),
                ("admin/config_dump", config_dump),
                ("admin/methods", methods),
            ],
        ),
        group(
            bootstrap().top("stats_flush_interval: 0.1s"),
            [
                ("admin/no_runtime_layers", no_runtime_layers),
                ("admin/healthcheck", healthcheck),
            ],
        ),
    ]
}

fn runtime_entries(run: &mut Run<'_>) -> Result<()> {
    let runtime = run.json("/runtime")?;
    run.note("runtime.layers", runtime["layers"].to_string());
    for (key, entry) in runtime["entries"].as_object().context("entries")? {
        let (values, last) = (&entry["layer_values"], &entry["final_value"]);
        run.note(&format!("runtime.{key}"), format!("{values} {last}"));
    }
    run.gauges(&[
        "runtime.num_keys",
        "runtime.num_layers",
        "runtime.admin_overrides_active",
    ])
}

fn runtime(run: &mut Run<'_>) -> Result<()> {
    runtime_entries(run)?;
    run.send(get("/share").expect(201))?;
    Ok(())
}

fn runtime_modify(run: &mut Run<'_>) -> Result<()> {
    run.admin("POST", "/runtime_modify?share=0&new=x%20y")?;
    run.send(get("/share").expect(202))?;
    runtime_entries(run)?;
    run.admin(
        "POST",
        "/runtime_modify?share=%7B%22numerator%22:1000000,%22denominator%22:%22MILLION%22%7D",
    )?;
    run.send(get("/share").expect(201))?;
    run.admin("POST", "/runtime_modify?share=500&new=")?;
    run.send(get("/share").expect(201))?;
    run.admin("POST", "/runtime_modify?share=")?;
    runtime_entries(run)?;
    run.admin("POST", "/runtime_modify")
}

fn no_runtime_layers(run: &mut Run<'_>) -> Result<()> {
    runtime_entries(run)?;
    run.admin("POST", "/runtime_modify?a=1")?;
    run.send(get("/share").expect(202))?;
    Ok(())
}

/// Every leaf of a JSON value by its path; lists of named things by name.
fn leaves(run: &mut Run<'_>, path: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                leaves(run, &format!("{path}.{key}"), value);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = item["name"]
                    .as_str()
                    .map_or_else(|| index.to_string(), str::to_owned);
                leaves(run, &format!("{path}[{name}]"), item);
            }
        }
        leaf => run.note(path, leaf.to_string()),
    }
}

fn clusters_json(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/x").expect(200))?;
    let mut clusters = run.json("/clusters?format=json&filter=^a$")?;
    // The port is another in each run.
    let host = &mut clusters["cluster_statuses"][0]["host_statuses"][0];
    host["address"]["socket_address"]["port_value"] = Value::Null;
    leaves(run, "clusters", &clusters);
    let text = run.page("/clusters?filter=^a$")?;
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.rsplit_once("::"))
        .map(|(name, _)| name.rsplit("::").next().unwrap_or_default())
        .collect();
    run.note("clusters.rows", names.join(" "));
    Ok(())
}

fn config_dump(run: &mut Run<'_>) -> Result<()> {
    for query in ["", "?include_eds"] {
        let dump = run.json(&format!("/config_dump{query}"))?;
        let configs = dump["configs"].as_array().context("configs")?;
        let kinds: Vec<_> = configs.iter().map(|c| c["@type"].to_string()).collect();
        run.note(&format!("config_dump{query}"), kinds.join(" "));
    }
    for query in [
        "resource=static_clusters&mask=cluster.name",
        "resource=static_clusters&name_regex=nobody",
        "resource=static_route_configs&name_regex=main&mask=route_config.name",
        "resource=static_listeners&name_regex=main&mask=listener.name",
    ] {
        let dump = run.json(&format!("/config_dump?{query}"))?;
        leaves(run, query, &dump);
    }
    for query in [
        "resource=nothing",
        "resource=bootstrap",
        "resource=dynamic_active_clusters",
        "mask=nothing",
    ] {
        run.admin("GET", &format!("/config_dump?{query}"))?;
    }
    Ok(())
}

fn methods(run: &mut Run<'_>) -> Result<()> {
    for path in ["/quitquitquit", "/runtime_modify?a=1", "/healthcheck/fail"] {
        run.admin("GET", path)?;
    }
    for path in ["/certs", "/hot_restart_version", "/init_dump", "/ready"] {
        let step = run.step(path);
        let page = run.page(path)?;
        run.note(&step, page.split_whitespace().collect::<String>());
    }
    run.admin("POST", "/reopen_logs")?;
    run.admin("POST", "/reset_counters")
}

fn healthcheck(run: &mut Run<'_>) -> Result<()> {
    run.admin("GET", "/ready")?;
    run.admin("POST", "/healthcheck/fail")?;
    run.admin("GET", "/ready")?;
    let state = run.json("/server_info")?["state"].to_string();
    run.note("state", state);
    run.await_gauge("server.state", 1)?;
    run.await_gauge("server.live", 0)?;
    run.send(get("/x").expect(200).fate())?;
    run.admin("POST", "/healthcheck/ok")?;
    run.admin("GET", "/ready")?;
    run.send(get("/x").expect(200).fate())?;
    run.counters(&["http.main.downstream_cx_drain_close"])
}
