//! Appending single values; `false` when there was none.

use std::{
    fmt::{Display, Write as _},
    net::{IpAddr, SocketAddr},
};

use http::StatusCode;

use super::{FormatContext, Sink, sink::Trusted};
use crate::{Address, Endpoint, Facts, ResponseFlag, Rng};

pub(super) fn put_bytes<S: Sink>(bytes: Option<&[u8]>, out: &mut S) -> bool {
    bytes.map(|bytes| out.untrusted(bytes)).is_some()
}

/// Text that this process holds but that may quote a peer; empty is unset.
pub(super) fn put_text<S: Sink>(text: Option<&str>, out: &mut S) -> bool {
    put_bytes(text.filter(|text| !text.is_empty()).map(str::as_bytes), out)
}

/// The same with `_` for blanks, so that a line keeps its columns.
pub(super) fn put_joined<S: Sink>(text: Option<&str>, out: &mut S) -> bool {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return false;
    };
    for (i, word) in text.split(|c: char| c.is_ascii_whitespace()).enumerate() {
        if i > 0 {
            out.trusted("_");
        }
        out.untrusted(word.as_bytes());
    }
    true
}

pub(super) fn put_display<S: Sink>(value: Option<impl Display>, out: &mut S) -> bool {
    value.is_some_and(|value| write!(Trusted(out), "{value}").is_ok())
}

pub(super) fn put_endpoint<S: Sink>(endpoint: Option<&Endpoint>, out: &mut S) -> bool {
    let text = endpoint.map(|endpoint| endpoint.state.address_text());
    text.map(|text| out.trusted(text)).is_some()
}

pub(super) fn put_ip<S: Sink>(address: Option<SocketAddr>, out: &mut S) -> bool {
    put_display(address.map(|address| address.ip()), out)
}

/// `10.1.0.0/16`.
pub(super) fn put_network<S: Sink>(address: Option<SocketAddr>, prefix: u8, out: &mut S) -> bool {
    let Some(address) = address else {
        return false;
    };
    // A prefix longer than the address keeps all of it; shifting by the full width would overflow.
    let (network, prefix) = match address.ip() {
        IpAddr::V4(ip) => {
            let prefix = prefix.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            (IpAddr::V4((ip.to_bits() & mask).into()), prefix)
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            (IpAddr::V6((ip.to_bits() & mask).into()), prefix)
        }
    };
    put_display(Some(format_args!("{network}/{prefix}")), out)
}

pub(super) fn put_status<S: Sink>(context: &FormatContext<'_>, out: &mut S) -> bool {
    let status = context.response.map(|(status, _)| status);
    put_text(status.as_ref().map(StatusCode::as_str), out)
}

/// `-` when there are none.
pub(super) fn put_flags<S: Sink>(
    context: &FormatContext<'_>,
    name: impl Fn(ResponseFlag) -> &'static str,
    out: &mut S,
) -> bool {
    if context.info.flags.is_empty() {
        out.trusted("-");
    }
    for (i, flag) in context.info.flags.iter().enumerate() {
        if i > 0 {
            out.trusted(",");
        }
        out.trusted(name(flag));
    }
    true
}

/// The name that the endpoint was resolved from, with its port; the address if there is none.
pub(super) fn put_host_name<S: Sink>(with_port: bool, facts: &Facts, out: &mut S) -> bool {
    let Some(endpoint) = &facts.endpoint else {
        return false;
    };
    match endpoint.address() {
        address if endpoint.hostname.is_empty() => match (address, with_port) {
            (Address::Socket(address), false) => put_display(Some(address.ip()), out),
            _ => put_endpoint(Some(endpoint), out),
        },
        _ if with_port => put_text(Some(&endpoint.hostname), out),
        _ => {
            let name = endpoint.hostname.as_ref();
            let bare = name.rsplit_once(':').filter(|(_, port)| {
                !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
            });
            put_text(Some(bare.map_or(name, |(bare, _)| bare)), out)
        }
    }
}

pub(super) fn put_attempted<S: Sink>(facts: &Facts, out: &mut S) -> bool {
    for (i, endpoint) in facts.tried.iter().enumerate() {
        if i > 0 {
            out.trusted(",");
        }
        put_endpoint(Some(endpoint), out);
    }
    !facts.tried.is_empty()
}

/// A UUID of version 4 drawn from the request's random number: the same for all logs of the request.
pub(super) fn put_unique_id<S: Sink>(context: &FormatContext<'_>, out: &mut S) -> bool {
    let rng = Rng::seeded(context.info.random ^ context.info.connection.id.rotate_left(32));
    let id = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
    let id = id & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    put_display(
        Some(format_args!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (id >> 96) as u32,
            (id >> 80) as u16,
            (id >> 64) as u16,
            (id >> 48) as u16,
            id & 0xffff_ffff_ffff
        )),
        out,
    )
}
