//! Listener filters and filter chains.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::Result;
use e2e::wait::WAIT_MAX;

use crate::config::{self, Bootstrap};
use crate::run::Run;
use crate::suite::{Group, group};

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 5 80\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\0\x05\0\x50";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Answers with its name and with what is known about the connection.
fn answering(name: &str) -> String {
    let shown = [
        ("remote", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ("local", "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"),
        ("direct", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
    ];
    config::answering(name, "use_remote_address: true\n", &shown)
}

pub(super) fn groups() -> Vec<Group> {
    let chain = |matches: &str, name: &str| {
        format!(
            "- filter_chain_match: {{{matches}}}\n  filters:\n{}",
            answering(name)
        )
    };
    let proxy_protocol = |fields: &str| {
        format!(
            "listener_filters:\n- name: pp\n  typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol{fields}}}\n"
        )
    };
    let plain = chain("", "plain");
    let sources = [
        chain(
            "source_prefix_ranges: [{address_prefix: 127.0.0.2, prefix_len: 32}]",
            "two",
        ),
        chain(
            "source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 30}]",
            "few",
        ),
        chain(
            "source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 30}], source_type: EXTERNAL",
            "far",
        ),
        chain(
            "direct_source_prefix_ranges: [{address_prefix: 127.0.0.9, prefix_len: 32}]",
            "direct",
        ),
        chain(
            "prefix_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]",
            "elsewhere",
        ),
    ];
    let destinations = [
        chain(
            "destination_port: 80, source_prefix_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]",
            "port",
        ),
        chain(
            "prefix_ranges: [{address_prefix: 198.51.100.0, prefix_len: 24}], transport_protocol: raw_buffer",
            "net",
        ),
        chain("", "rest"),
    ];
    let default = format!(
        "default_filter_chain:\n  filters:\n{}",
        answering("default")
    );
    let quick = |prefix: &str| {
        let filters = proxy_protocol("");
        format!("{filters}listener_filters_timeout: 0.3s\nstat_prefix: {prefix}\n")
    };
    let bootstrap = Bootstrap::default()
        .chains("sources", "", &sources.concat())
        .chains("defaulted", &default, &sources[..2].concat())
        .chains("destinations", &proxy_protocol(""), &destinations.concat())
        .chains("pp", &proxy_protocol(", stat_prefix: one"), &plain)
        .chains(
            "lax",
            &proxy_protocol(", allow_requests_without_proxy_protocol: true, stat_prefix: two"),
            &plain,
        )
        .chains(
            "no_v1",
            &proxy_protocol(", disallowed_versions: [V1], stat_prefix: three"),
            &plain,
        )
        .chains("quick", &quick("quick"), &plain)
        .chains(
            "patient",
            &format!(
                "{}continue_on_listener_filters_timeout: true\n",
                quick("patient")
            ),
            &plain,
        );
    vec![group(
        bootstrap,
        [
            ("listener/sources", sources_match),
            ("listener/default_chain", default_chain),
            ("listener/destinations", destinations_match),
            ("listener/proxy_protocol", headers),
            ("listener/proxy_protocol_missing", missing),
            ("listener/proxy_protocol_malformed", malformed),
            ("listener/proxy_protocol_disallowed", disallowed),
            ("listener/filters_timeout", timeout),
        ],
    )]
}

fn open(run: &Run<'_>, from: &str, listener: &str) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from.parse()?, 0).into())?;
    socket.connect(&run.address(listener)?.into())?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(WAIT_MAX))?;
    Ok(stream)
}

/// The body of the answer and what it says about the connection.
fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // Whether a connection that is closed before it was read ends or is reset depends on the moment.
    let _ = stream.read_to_string(&mut text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return "nothing".to_owned();
    };
    let known = ["remote: ", "local: ", "direct: "];
    let of = |name: &&str| head.lines().find_map(|line| line.strip_prefix(*name));
    let facts: Vec<&str> = known.iter().filter_map(of).collect();
    format!("{body} {}", facts.join(" "))
}

/// Sends `start` and a request from there, and notes the answer.
fn ask(run: &mut Run<'_>, label: &str, from: &str, listener: &str, start: &[u8]) -> Result<()> {
    let mut stream = open(run, from, listener)?;
    // It may be closed by now.
    let _ = stream.write_all(&[start, GET].concat());
    let answer = answer(stream);
    run.note(label, answer);
    Ok(())
}

fn sources_match(run: &mut Run<'_>) -> Result<()> {
    for from in [
        "127.0.0.1",
        "127.0.0.2",
        "127.0.0.3",
        "127.0.0.9",
        "127.0.0.77",
    ] {
        ask(run, from, from, "sources", b"")?;
    }
    Ok(())
}

fn default_chain(run: &mut Run<'_>) -> Result<()> {
    for from in ["127.0.0.1", "127.0.0.2", "127.0.0.77"] {
        ask(run, from, from, "defaulted", b"")?;
    }
    Ok(())
}

fn destinations_match(run: &mut Run<'_>) -> Result<()> {
    for line in [
        "TCP4 192.0.2.1 198.51.100.2 5 80",
        "TCP4 203.0.113.1 198.51.100.2 5 80",
        "TCP4 203.0.113.1 198.51.100.2 5 81",
        "TCP4 203.0.113.1 203.0.113.2 5 81",
        "TCP6 2001:db8::1 2001:db8::2 5 81",
    ] {
        let header = format!("PROXY {line}\r\n");
        ask(run, line, "127.0.0.1", "destinations", header.as_bytes())?;
    }
    Ok(())
}

fn headers(run: &mut Run<'_>) -> Result<()> {
    for (label, header) in [
        ("v1", V1),
        ("v2", V2),
        ("v2 local", LOCAL),
        ("v1 unknown", b"PROXY UNKNOWN\r\n"),
        ("v1 unknown with more", b"PROXY UNKNOWN 1 2 3 4\r\n"),
    ] {
        ask(run, label, "127.0.0.1", "pp", header)?;
    }
    run.counters(&[
        "proxy_proto.one.versions.v1.found",
        "proxy_proto.one.versions.v2.found",
        "proxy_proto.one.versions.v1.error",
    ])
}

fn missing(run: &mut Run<'_>) -> Result<()> {
    ask(run, "needed", "127.0.0.1", "pp", b"")?;
    ask(run, "not needed", "127.0.0.1", "lax", b"")?;
    ask(run, "not needed and there", "127.0.0.1", "lax", V2)?;
    run.counters(&[
        "proxy_proto.one.not_found_disallowed",
        "proxy_proto.one.not_found_allowed",
        "proxy_proto.two.not_found_disallowed",
        "proxy_proto.two.not_found_allowed",
    ])
}

fn malformed(run: &mut Run<'_>) -> Result<()> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n".as_slice();
    let v2 = |rest: &[u8]| [signature, rest].concat();
    for (label, header) in [
        (
            "few words",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5\r\n".to_vec(),
        ),
        (
            "another family",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 5 80\r\n".to_vec(),
        ),
        (
            "unknown family",
            b"PROXY UDP4 192.0.2.1 198.51.100.2 5 80\r\n".to_vec(),
        ),
        (
            "multicast",
            b"PROXY TCP4 224.0.0.1 198.51.100.2 5 80\r\n".to_vec(),
        ),
        (
            "a port too large",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5 65536\r\n".to_vec(),
        ),
        ("no end", [b"PROXY ".as_slice(), &[b'x'; 120]].concat()),
        ("version 3", v2(&[0x31, 0x11, 0, 0])),
        ("another command", v2(&[0x22, 0x11, 0, 0])),
        ("unix", v2(&[0x21, 0x31, 0, 0])),
        ("too short", v2(&[0x21, 0x11, 0, 2, 1, 2])),
    ] {
        ask(run, label, "127.0.0.1", "pp", &header)?;
    }
    run.counters(&[
        "proxy_proto.one.versions.v1.error",
        "proxy_proto.one.versions.v2.error",
        "proxy_proto.one.versions.v1.found",
        "proxy_proto.one.versions.v2.found",
    ])
}

fn disallowed(run: &mut Run<'_>) -> Result<()> {
    ask(run, "v1", "127.0.0.1", "no_v1", V1)?;
    ask(run, "v2", "127.0.0.1", "no_v1", V2)?;
    ask(run, "neither", "127.0.0.1", "no_v1", b"")?;
    run.counters(&[
        "proxy_proto.three.versions.v1.disallowed",
        "proxy_proto.three.versions.v1.found",
        "proxy_proto.three.versions.v2.found",
        "proxy_proto.three.not_found_disallowed",
    ])
}

fn timeout(run: &mut Run<'_>) -> Result<()> {
    for listener in ["quick", "patient"] {
        let stream = open(run, "127.0.0.1", listener)?;
        run.await_counter(&format!("listener.{listener}.downstream_pre_cx_timeout"), 1)?;
        // It may be closed by now.
        let _ = (&stream).write_all(GET);
        let answer = answer(stream);
        run.note(listener, answer);
    }
    Ok(())
}
