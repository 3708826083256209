//! The PROXY protocol in front of connections to upstreams.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::LazyLock;

use anyhow::{Context as _, Result};
use e2e::wait::{Deadline, WAIT_MAX, until};

use crate::config::{Bootstrap, Hcm, tcp_proxy};
use crate::run::Run;
use crate::suite::{Group, group};

/// An upstream that is asked for its connections one by one: what comes first is no request.
static UPSTREAM: LazyLock<TcpListener> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0");
    let listener = listener.expect("the loopback has a port");
    listener.set_nonblocking(true).expect("sockets can poll");
    listener
});

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: test.example\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 5 80\r\n";
/// With extensions of the types 1, 2 and 0xe5.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x18\xc0\0\x02\x01\xc6\x33\x64\x02\0\x05\0\x50\
    \x01\0\x01a\x02\0\x01b\xe5\0\x01c";

pub(super) fn groups() -> Vec<Group> {
    let port = UPSTREAM.local_addr().expect("it is bound").port();
    let incoming = |fields: &str| {
        format!(
            "listener_filters:\n- name: pp\n  typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, allow_requests_without_proxy_protocol: true{fields}}}\n"
        )
    };
    let keeps_all = incoming(", pass_through_tlvs: {match_type: INCLUDE_ALL}");
    let keeps_two = incoming(", pass_through_tlvs: {match_type: INCLUDE, tlv_type: [1, 2]}");
    let socket = |config: &str| {
        format!(
            "type: STATIC
load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}
transport_socket:
  name: pp
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport
    config: {{{config}}}
    transport_socket: {{name: raw, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}"
        )
    };
    let chain = |name: &str, cluster: &str| {
        format!(
            "- filters:\n{}",
            tcp_proxy(name, &format!("cluster: {cluster}"))
        )
    };
    let added = "version: V2, pass_through_tlvs: {match_type: INCLUDE_ALL}, added_tlvs: [{type: 2, value: YWRkZWQ=}, {type: 9, value: bmluZQ==}, {type: 9, value: dHdpY2U=}]";
    let bootstrap = Bootstrap::default()
        .chains("v1", &incoming(""), &chain("v1", "v1"))
        .chains("v2", &keeps_all, &chain("v2", "v2"))
        .chains("all", &keeps_all, &chain("all", "all"))
        .chains("some", &keeps_all, &chain("some", "some"))
        .chains("two", &keeps_two, &chain("two", "all"))
        .chains("none", &incoming(""), &chain("none", "all"))
        .chains("added", &keeps_all, &chain("added", "added"))
        .listener(&Hcm {
            name: "http",
            routes: "
                virtual_hosts:
                - name: all
                  domains: ['*']
                  routes: [{match: {prefix: /}, route: {cluster: v1}}]",
            ..Hcm::default()
        })
        .cluster_with("v1", &socket("version: V1"))
        .cluster_with("v2", &socket("version: V2"))
        .cluster_with(
            "all",
            &socket("version: V2, pass_through_tlvs: {match_type: INCLUDE_ALL}"),
        )
        .cluster_with(
            "some",
            &socket("version: V2, pass_through_tlvs: {match_type: INCLUDE, tlv_type: [2, 7]}"),
        )
        .cluster_with("added", &socket(added));
    vec![group(
        bootstrap,
        [
            ("proxy_protocol/tcp", tcp),
            ("proxy_protocol/from_a_header", from_a_header),
            ("proxy_protocol/tlvs", tlvs),
            ("proxy_protocol/http", http),
        ],
    )]
}

/// The next connection, if there is one within the time.
fn next(deadline: Deadline) -> Result<Option<TcpStream>> {
    let accepted = until(deadline, || match UPSTREAM.accept() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        other => Some(other),
    });
    let Some(accepted) = accepted else {
        return Ok(None);
    };
    let (stream, _) = accepted?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    Ok(Some(stream))
}

fn accept() -> Result<TcpStream> {
    next(Deadline::default())?.context("nobody connects to the upstream")
}

/// Sends `bytes` and ends; what the upstream gets before `x`, with the ports of `client` and `listener` by name.
fn relayed(run: &Run<'_>, listener: &str, bytes: &[u8]) -> Result<String> {
    let mut client = TcpStream::connect(run.address(listener)?)?;
    let ports = ports(&client)?;
    client.write_all(&[bytes, b"x"].concat())?;
    let mut upstream = accept()?;
    client.shutdown(std::net::Shutdown::Write)?;
    let mut got = Vec::new();
    upstream.read_to_end(&mut got)?;
    Ok(shown(&got, ports))
}

/// Of a client, and of the listener that it is connected to.
fn ports(client: &TcpStream) -> Result<(u16, u16)> {
    Ok((client.local_addr()?.port(), client.peer_addr()?.port()))
}

/// Text as it is, and anything else by its numbers.
fn shown(bytes: &[u8], (own, to): (u16, u16)) -> String {
    if bytes.starts_with(b"PROXY ") {
        let text = String::from_utf8_lossy(bytes);
        let text = text.replace(&own.to_string(), "CLIENT");
        return text
            .replace(&to.to_string(), "LISTENER")
            .replace("\r\n", " ");
    }
    let mut bytes = bytes.to_vec();
    for (port, name) in [(own, b"CL"), (to, b"LI")] {
        let port = port.to_be_bytes();
        if let Some(at) = bytes.windows(2).position(|two| two == port) {
            bytes[at..at + 2].copy_from_slice(name);
        }
    }
    bytes.escape_ascii().to_string()
}

fn tcp(run: &mut Run<'_>) -> Result<()> {
    for listener in ["v1", "v2"] {
        let got = relayed(run, listener, b"")?;
        run.note(listener, got);
    }
    Ok(())
}

fn from_a_header(run: &mut Run<'_>) -> Result<()> {
    for (name, header) in [("a v1 header", V1), ("a v2 header", V2)] {
        for listener in ["v1", "v2"] {
            let got = relayed(run, listener, header)?;
            run.note(&format!("{name}, {listener}"), got);
        }
    }
    Ok(())
}

fn tlvs(run: &mut Run<'_>) -> Result<()> {
    for listener in ["all", "some", "two", "none", "added"] {
        let got = relayed(run, listener, V2)?;
        run.note(listener, got);
    }
    Ok(())
}

/// Answers one request; what came in front of it.
fn serve(upstream: &mut TcpStream, client: &TcpStream) -> Result<String> {
    let mut got = Vec::new();
    let mut bytes = [0; 4096];
    while !got.ends_with(b"\r\n\r\n") {
        let read = upstream.read(&mut bytes)?;
        anyhow::ensure!(read > 0, "the proxy has closed");
        got.extend_from_slice(&bytes[..read]);
    }
    upstream.write_all(OK)?;
    let head = got.windows(5).position(|five| five == b"GET /");
    Ok(shown(&got[..head.context("no request")?], ports(client)?))
}

/// The status of an answer without a body.
fn answer(client: &mut TcpStream) -> Result<String> {
    let mut got = Vec::new();
    let mut byte = [0];
    while !got.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        got.extend_from_slice(&byte);
    }
    let text = String::from_utf8_lossy(&got).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A connection that was announced as one client's serves that client again, and nobody else.
fn http(run: &mut Run<'_>) -> Result<()> {
    let mut upstreams = Vec::new();
    let mut clients = Vec::new();
    for number in 1..=2 {
        let mut client = TcpStream::connect(run.address("http")?)?;
        client.set_read_timeout(Some(WAIT_MAX))?;
        client.write_all(GET)?;
        let mut upstream = accept()?;
        let said = serve(&mut upstream, &client)?;
        run.note(&format!("client {number}"), said);
        let status = answer(&mut client)?;
        run.note(&format!("answer {number}"), status);
        clients.push(client);
        upstreams.push(upstream);
    }
    for (number, (client, upstream)) in clients.iter_mut().zip(&mut upstreams).enumerate() {
        client.write_all(GET)?;
        let said = serve(upstream, client)?;
        run.note(&format!("client {} again", number + 1), said);
        let status = answer(client)?;
        run.note(&format!("answer {} again", number + 1), status);
    }
    run.counters(&["cluster.v1.upstream_cx_total"])
}
