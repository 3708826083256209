//! A listener's sockets, and what it logs about its connections.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use e2e::wait::WAIT_MAX;

use super::{Pki, tls_socket};
use crate::config::{self, Bootstrap, tcp_proxy};
use crate::run::Run;
use crate::suite::{Group, group};

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n";

/// A maximum segment size that nobody else asks for.
const SEGMENT: u32 = 517;

fn answering(name: &str) -> String {
    config::answering(name, "", &[])
}

/// The log of a listener, in a file of its name.
fn logging(name: &str) -> String {
    let fields = [
        "RESPONSE_CODE",
        "RESPONSE_FLAGS",
        "RESPONSE_CODE_DETAILS",
        "PROTOCOL",
        "BYTES_RECEIVED",
        "BYTES_SENT",
        "UPSTREAM_CLUSTER",
        "UPSTREAM_HOST",
        "ACCESS_LOG_TYPE",
        "CONNECTION_TERMINATION_DETAILS",
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    ];
    let format = fields.map(|field| format!("{field}=%{field}%")).join(" ");
    format!(
        "access_log: [{{name: f, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {name}.log, log_format: {{text_format_source: {{inline_string: \"{format} failed=%DOWNSTREAM_TRANSPORT_FAILURE_REASON%\\n\"}}}}}}}}]\n"
    )
}

pub(super) fn groups() -> Vec<Group> {
    let chain = |matches: &str, filters: &str| {
        format!("- filter_chain_match: {{{matches}}}\n  filters:\n{filters}")
    };
    let http = |name: &str| chain("", &answering(name));
    let own = Pki::new().issue("sockets", |leaf| leaf);
    let proxy_protocol = "listener_filters: [{name: pp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}]\n";
    let nowhere = "prefix_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]";
    let more = "additional_addresses:\n- address: {socket_address: {address: 127.0.0.1, port_value: 0}}\n- address: {socket_address: {address: 127.0.0.3, port_value: 0}}\n";
    let segments = format!(
        "socket_options: [{{level: 6, name: 2, int_value: {SEGMENT}, state: STATE_PREBIND}}, {{level: 1, name: 9, int_value: 1, state: STATE_LISTENING}}]\ntcp_fast_open_queue_length: 5\nadditional_addresses:\n- address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n  socket_options: {{}}\n"
    );
    let hands_on = format!("{proxy_protocol}use_original_dst: true\nstat_prefix: front\n");
    let bootstrap = Bootstrap::default()
        .chains("http", &logging("http"), &http("http"))
        .chains(
            "tcp",
            &logging("tcp"),
            &chain("", &tcp_proxy("tcp", "cluster: a")),
        )
        .chains(
            "lost",
            &logging("lost"),
            &chain(nowhere, &answering("lost")),
        )
        .chains(
            "malformed",
            &(logging("malformed") + proxy_protocol),
            &http("malformed"),
        )
        .chains(
            "tls",
            &logging("tls"),
            &format!(
                "- {}\n  filters:\n{}",
                tls_socket("DownstreamTlsContext", "", Some(&own), ""),
                answering("tls")
            ),
        )
        .chains("several", more, &http("several"))
        .chains("segments", &segments, &http("segments"))
        .chains(
            "front",
            &(hands_on.clone() + &logging("front")),
            &http("front"),
        )
        .chains("stays", proxy_protocol, &http("stays"))
        .chains_at(
            "exact",
            ("198.51.100.2", 80),
            &("bind_to_port: false\nstat_prefix: exact\n".to_owned() + &logging("exact")),
            &http("exact"),
        )
        .chains_at(
            "any",
            ("0.0.0.0", 81),
            "bind_to_port: false\n",
            &http("any"),
        )
        .cluster("a", &["a"], "");
    vec![group(
        bootstrap,
        [
            ("listener/log", connections_are_logged),
            ("listener/additional_addresses", additional_addresses),
            ("listener/socket_options", socket_options),
            ("listener/redirected", redirected),
        ],
    )]
}

/// What comes back over a connection to `address`.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<String> {
    exchange_and(address, bytes, false)
}

/// The same; a client that is through may say so.
fn exchange_and(address: SocketAddr, bytes: &[u8], half: bool) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    // It may be closed by now.
    let _ = stream.write_all(bytes);
    if half {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    Ok(text
        .split_once("\r\n\r\n")
        .map_or("nothing", |(_, body)| body)
        .to_owned())
}

fn connections_are_logged(run: &mut Run<'_>) -> Result<()> {
    for (listener, bytes) in [
        ("http", GET),
        ("tcp", GET),
        ("lost", GET),
        ("malformed", b"PROXY nonsense\r\n"),
        ("tls", GET),
    ] {
        let body = exchange_and(run.address(listener)?, bytes, listener == "tcp")?;
        run.note(&format!("{listener} answers"), body);
        let lines = run.await_line(&format!("{listener}.log"), "RESPONSE_CODE")?;
        run.note(&format!("{listener} lines"), lines.len().to_string());
        for field in lines[0].split(' ') {
            let (name, value) = field.split_once('=').unwrap_or_default();
            let value = match name {
                "UPSTREAM_HOST" | "failed" if value != "-" => "something",
                _ => value,
            };
            run.note(&format!("{listener} {name}"), value);
        }
    }
    Ok(())
}

/// The addresses of a listener, in order.
fn addresses(run: &Run<'_>, listener: &str) -> Result<Vec<SocketAddr>> {
    let page = run.page("/listeners")?;
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix(listener)?.strip_prefix("::"));
    lines.map(|address| Ok(address.parse()?)).collect()
}

fn additional_addresses(run: &mut Run<'_>) -> Result<()> {
    let all = addresses(run, "several")?;
    run.note("addresses", all.len().to_string());
    for (number, address) in all.into_iter().enumerate() {
        run.note(&format!("ip {number}"), address.ip().to_string());
        run.note(&format!("answer {number}"), exchange(address, GET)?);
    }
    Ok(())
}

fn socket_options(run: &mut Run<'_>) -> Result<()> {
    let all = addresses(run, "segments")?;
    ensure!(all.len() == 2, "{all:?}");
    for (number, address) in all.into_iter().enumerate() {
        let stream = TcpStream::connect(address)?;
        let segment = socket2::SockRef::from(&stream).tcp_mss()?;
        run.note(
            &format!("as asked {number}"),
            (segment <= SEGMENT).to_string(),
        );
        run.note(&format!("answer {number}"), exchange(address, GET)?);
    }
    Ok(())
}

fn redirected(run: &mut Run<'_>) -> Result<()> {
    for (listener, destination, port) in [
        ("front", "198.51.100.2", 80),
        ("front", "198.51.100.2", 81),
        ("front", "198.51.100.2", 82),
        ("front", "198.51.100.3", 80),
        ("stays", "198.51.100.2", 80),
    ] {
        let header = format!("PROXY TCP4 192.0.2.1 {destination} 5 {port}\r\n");
        let bytes = [header.as_bytes(), GET].concat();
        let body = exchange(run.address(listener)?, &bytes)?;
        run.note(&format!("{listener} to {destination}:{port}"), body);
    }
    let lines = run.await_line("exact.log", "RESPONSE_CODE")?;
    let line = lines.first().context("a line")?;
    run.note("log of the other", line.clone());
    run.counters(&[
        "listener.exact.downstream_cx_total",
        "listener.front.downstream_cx_total",
    ])
}
