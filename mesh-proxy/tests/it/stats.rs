//! Stats of a running process: how they are shown, to whom they are sent, what they cost.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use e2e::process::Proxy;

use crate::support::{direct, get, start};

fn ask(proxy: &Proxy) {
    let mut stream = TcpStream::connect(proxy.listener("ingress").unwrap()).unwrap();
    stream.write_all(&get("/")).unwrap();
    read_answers(&mut stream, 1);
}

/// Reads answers without a body.
fn read_answers(stream: &mut TcpStream, wanted: usize) {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let (mut seen, mut tail, mut buffer) = (0, Vec::new(), [0; 64 << 10]);
    while seen < wanted {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "it hung up after {seen} answers");
        tail.extend_from_slice(&buffer[..n]);
        let ends = tail.windows(4).filter(|w| w == b"\r\n\r\n").count();
        seen += ends;
        // A mark that is not whole yet counts with what follows.
        let keep = tail.len().saturating_sub(3);
        let whole = tail.ends_with(b"\r\n\r\n");
        tail.drain(..if whole { tail.len() } else { keep });
    }
    assert_eq!(seen, wanted);
}

#[test]
fn the_config_says_how_stats_are_shown() {
    let proxy = start(&direct(
        "stats_config: {stats_tags: [{tag_name: my.tag, fixed_value: v}], \
         stats_matcher: {inclusion_list: {patterns: [{prefix: http.ingress.downstream_rq}]}}, \
         histogram_bucket_settings: [{match: {suffix: rq_time}, buckets: [7]}]}",
        "100",
    ));
    ask(&proxy);
    let stats = proxy.admin().text("/stats").unwrap();
    assert!(stats.lines().count() > 10);
    assert!(
        stats
            .lines()
            .all(|line| line.starts_with("http.ingress.downstream_rq"))
    );
    let text = proxy
        .admin()
        .text("/stats/prometheus?filter=rq_time$")
        .unwrap();
    let bounds: Vec<_> = text
        .lines()
        .filter(|line| line.contains("_bucket{"))
        .collect();
    assert_eq!(bounds.len(), 2, "{text}");
    assert!(
        bounds[0].contains("{my_tag=\"v\",envoy_http_conn_manager_prefix=\"ingress\",le=\"7\"}")
    );
    let detailed = proxy
        .admin()
        .text("/stats?filter=rq_time$&histogram_buckets=detailed")
        .unwrap();
    assert!(detailed.contains("\n  totals="), "{detailed}");
    let page = proxy.admin().text("/stats?format=html").unwrap();
    assert!(page.contains("<pre>http.ingress.downstream_rq"), "{page}");
}

#[test]
fn looking_ends_an_interval_where_the_config_says_so() {
    let proxy = start(&direct("stats_flush_on_admin: true", "100"));
    ask(&proxy);
    let interval = |proxy: &Proxy| {
        let path = "/stats?filter=ingress.downstream_rq_time&histogram_buckets=cumulative";
        let text = proxy.admin().text(path).unwrap();
        let line = text
            .lines()
            .find(|line| line.contains(" B3.6e+06("))
            .unwrap();
        line.rsplit_once('(').unwrap().1.to_owned()
    };
    assert_eq!(interval(&proxy), "1,1)");
    assert_eq!(interval(&proxy), "0,1)");
    ask(&proxy);
    assert_eq!(interval(&proxy), "1,2)");
}

#[test]
fn a_statsd_server_is_told_what_is_new() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let port = server.local_addr().unwrap().port();
    let proxy = start(&direct(
        &format!(
            "stats_flush_interval: 0.05s\nstats_sinks: [{{name: envoy.stat_sinks.statsd, typed_config: \
             {{'@type': type.googleapis.com/envoy.config.metrics.v3.StatsdSink, prefix: p, address: \
             {{socket_address: {{protocol: UDP, address: 127.0.0.1, port_value: {port}}}}}}}}}]"
        ),
        "100",
    ));
    ask(&proxy);
    let mut buffer = [0; 2048];
    let mut seen = String::new();
    let mut datagrams = 0;
    while !seen.contains("p.http.ingress.downstream_rq_2xx:1|c\n") {
        let n = server.recv(&mut buffer).unwrap();
        datagrams += 1;
        assert!(n <= 1432, "a datagram of {n} bytes");
        assert!(datagrams < 500, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    assert!(seen.contains("p.server.live:1|g\n"), "{seen}");
}

#[test]
fn a_statsd_server_behind_a_cluster_gets_one_stream() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let yaml = direct(
        "stats_flush_interval: 0.05s\nstats_sinks: [{name: s, typed_config: {'@type': \
         type.googleapis.com/envoy.config.metrics.v3.StatsdSink, tcp_cluster_name: upstream}}]",
        "100",
    );
    let proxy = start(&yaml.replace("port_value: 1}", &format!("port_value: {port}}}")));
    ask(&proxy);
    let (mut stream, _) = server.accept().unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut seen = Vec::new();
    let wanted = b"envoy.http.ingress.downstream_rq_2xx:1|c\n";
    while !seen.windows(wanted.len()).any(|window| window == wanted) {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "it hung up");
        seen.extend_from_slice(&buffer[..n]);
    }
}

/// Bytes of memory that process has.
fn resident(proxy: &Proxy) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", proxy.id())).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_hundred_thousand_hosts_leave_nothing_behind() {
    const BATCH: usize = 500;
    let proxy = start(&direct("", "100"));
    let mut stream = TcpStream::connect(proxy.listener("ingress").unwrap()).unwrap();
    let mut batch = |first: usize| {
        let requests: String = (first..first + BATCH)
            .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: h{n}.example\r\n\r\n"))
            .collect();
        stream.write_all(requests.as_bytes()).unwrap();
        read_answers(&mut stream, BATCH);
    };
    (0..5_000).step_by(BATCH).for_each(&mut batch);
    let names = || proxy.admin().text("/stats").unwrap().lines().count();
    let (names_before, before) = (names(), resident(&proxy));
    (5_000..105_000).step_by(BATCH).for_each(&mut batch);
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 20 << 20, "it grew by {} KiB", grown >> 10);
    assert_eq!(names(), names_before);
}

#[test]
fn workers_say_how_long_they_keep_to_themselves_where_they_are_asked() {
    let loops = |proxy: &Proxy| {
        ask(proxy);
        let stats = proxy
            .admin()
            .text("/stats?filter=loop_duration_us")
            .unwrap();
        stats
            .lines()
            .filter(|line| line.contains("P100("))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let proxy = start(&direct("enable_dispatcher_stats: true", "100"));
    let told = loops(&proxy);
    assert!(
        told[0].starts_with("listener_manager.worker_0.dispatcher.loop_duration_us: "),
        "{told:?}"
    );
    assert!(loops(&start(&direct("", "100"))).is_empty());
}
