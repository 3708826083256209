//! Log lines of a whole stack: at the start, in between, at the end, and of each attempt.

use std::{fs, path::PathBuf, time::Duration};

use mesh_client::MeshClient;
use mesh_config::model::Config;

use crate::support::{Upstream, client, cluster, get};

/// A folder that removes itself.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-client-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A bootstrap of one listener whose router and connection manager log into files there.
fn config(folder: &Folder, manager: &str, router: &str, routes: &str, clusters: &str) -> Config {
    let log = |name: &str, format: &str| {
        format!(
            "{{name: f, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {}, log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}",
            folder.0.join(name).display()
        )
    };
    let format = "%ACCESS_LOG_TYPE% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %ROUTE_NAME%";
    let attempt = "%ACCESS_LOG_TYPE% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %BYTES_SENT% %BYTES_RECEIVED% %UPSTREAM_CLUSTER%";
    let times = "%REQUEST_TX_DURATION% %UPSTREAM_CONNECTION_POOL_READY_DURATION% %COMMON_DURATION(US_TX_BEG:US_TX_END:us)% %COMMON_DURATION(US_TX_END:US_RX_END:us)% %RESPONSE_HEADERS_BYTES%";
    let text = format!(
        r#"
static_resources:
  listeners:
  - name: ingress
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          access_log: [{access}, {times}]
          access_log_options: {{{manager}}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              upstream_log: [{upstream}]
              upstream_log_options: {{{router}}}
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: {routes}}}
  clusters: {clusters}
"#,
        access = log("access", format),
        times = log("times", times),
        upstream = log("upstream", attempt),
    );
    let source = mesh_config::language::Source::text("test.yaml", text);
    mesh_config::load(&source, &mesh_config::LoadOptions::default()).unwrap()
}

/// What a log holds by now.
fn lines(client: &MeshClient, folder: &Folder, name: &str) -> Vec<String> {
    assert!(client.mesh().writer().flush(Duration::from_secs(10)));
    let text = fs::read_to_string(folder.0.join(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_attempt_has_a_line_and_so_has_the_request() {
    let folder = Folder::new("attempts");
    let upstream = Upstream::start(&[503, 200]).await;
    let routes = "[{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0.001s}}}}]";
    let clusters = format!("[{}]", cluster("a", &[upstream.port], ""));
    let client = client(config(&folder, "", "", routes, &clusters))
        .await
        .unwrap();
    assert_eq!(get(&client, "/x").await.0.unwrap().0, 200);
    assert_eq!(
        lines(&client, &folder, "upstream"),
        [
            "UpstreamEnd /x 503 - 1 0 2 a",
            "UpstreamEnd /x 200 - 2 0 2 a"
        ]
    );
    assert_eq!(
        lines(&client, &folder, "access"),
        ["DownstreamEnd /x 200 - r"]
    );
}

#[tokio::test]
async fn the_times_of_an_attempt_are_there_for_a_format_that_asks() {
    let folder = Folder::new("times");
    let upstream = Upstream::start(&[200]).await;
    let routes = "[{match: {prefix: /direct}, direct_response: {status: 200}}, {match: {prefix: /}, route: {cluster: a}}]";
    let clusters = format!("[{}]", cluster("a", &[upstream.port], ""));
    let client = client(config(&folder, "", "", routes, &clusters))
        .await
        .unwrap();
    get(&client, "/x").await.0.unwrap();
    get(&client, "/direct").await.0.unwrap();
    let lines = lines(&client, &folder, "times");
    for number in lines[0].split(' ') {
        assert!(number.parse::<u64>().is_ok(), "{lines:?}");
    }
    assert!(lines[1].starts_with("- - - - "), "{lines:?}");
}

#[tokio::test]
async fn attempts_that_failed_say_how() {
    let folder = Folder::new("failures");
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let routes = "[{match: {prefix: /closed}, route: {cluster: closed}}, {match: {prefix: /silent}, route: {cluster: silent, timeout: 0.2s, \
        retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.03s, retry_back_off: {base_interval: 0.001s}}}}]";
    let clusters = format!(
        "[{}, {}]",
        cluster("closed", &[closed], ""),
        cluster("silent", &[silent.local_addr().unwrap().port()], "")
    );
    let client = client(config(&folder, "", "", routes, &clusters))
        .await
        .unwrap();
    get(&client, "/closed").await.0.unwrap_err();
    get(&client, "/silent").await.0.unwrap_err();
    let per_try = "UpstreamEnd /silent 0 UT";
    let lines = lines(&client, &folder, "upstream");
    assert_eq!(lines[0], "UpstreamEnd /closed 0 UF 1 0 0 closed");
    assert_eq!(
        lines[1..],
        [
            format!("{per_try} 1 0 0 silent"),
            format!("{per_try} 2 0 0 silent")
        ]
    );
}

#[tokio::test]
async fn a_line_when_it_begins_and_a_line_while_it_goes_on() {
    let folder = Folder::new("between");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let routes = "[{name: r, match: {prefix: /}, route: {cluster: silent, timeout: 0.25s}}]";
    let port = silent.local_addr().unwrap().port();
    let clusters = format!("[{}]", cluster("silent", &[port], ""));
    let manager = "flush_access_log_on_new_request: true, access_log_flush_interval: 0.1s";
    let router = "flush_upstream_log_on_upstream_stream: true, upstream_log_flush_interval: 0.1s";
    let client = client(config(&folder, manager, router, routes, &clusters))
        .await
        .unwrap();
    get(&client, "/x").await.0.unwrap_err();
    let access = lines(&client, &folder, "access");
    assert_eq!(access.first().unwrap(), "DownstreamStart /x 0 - r");
    assert_eq!(access.last().unwrap(), "DownstreamEnd /x 504 UT r");
    let between = &access[1..access.len() - 1];
    assert!((1..=2).contains(&between.len()), "{access:?}");
    assert!(
        between
            .iter()
            .all(|line| line == "DownstreamPeriodic /x 0 - r"),
        "{access:?}"
    );
    let upstream = lines(&client, &folder, "upstream");
    assert!(
        upstream[0].starts_with("UpstreamPoolReady /x 0 - 1 "),
        "{upstream:?}"
    );
    assert!(
        upstream[1].starts_with("UpstreamPeriodic /x 0 - 1 "),
        "{upstream:?}"
    );
    assert!(
        upstream.last().unwrap().starts_with("UpstreamEnd /x 0 "),
        "{upstream:?}"
    );
}
