//! Where a listener listens, and how its sockets are made.

use envoy_types::pb::envoy::config::{
    core::v3::{
        self as core, SocketOption as Message, TcpKeepalive,
        socket_option::{SocketIpVersion, SocketState as State, Value},
    },
    listener::v3 as pb,
};
use mesh_core::Address;
use mesh_net::{BindOptions, OptionFamily, OptionValue, SocketOption, SocketState};

use crate::{
    convert::{context::Context, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::ListenAddress,
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.listener.v3.AdditionalAddress",
        fields: &[
            ("address", Enforced),
            ("socket_options", Enforced),
            ("tcp_keepalive", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.SocketOptionsOverride",
        fields: &[("socket_options", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.SocketOption",
        fields: &[
            ("description", Meaningless),
            ("level", Enforced),
            ("name", Enforced),
            ("int_value", Enforced),
            ("buf_value", Enforced),
            ("state", Enforced),
            ("type", Enforced),
            ("ip_version", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.SocketOption.SocketType",
        fields: &[("stream", Enforced), ("datagram", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.SocketOption.SocketType.Stream",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.core.v3.SocketOption.SocketType.Datagram",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.core.v3.TcpKeepalive",
        fields: &[
            ("keepalive_probes", Enforced),
            ("keepalive_time", Enforced),
            ("keepalive_interval", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.listener.v3.Listener.ConnectionBalanceConfig",
        fields: &[("exact_balance", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.listener.v3.Listener.ConnectionBalanceConfig.ExactBalance",
        fields: &[],
    },
];

/// All of its addresses, its own first.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Listener,
) -> Option<Vec<ListenAddress>> {
    if from.api_listener.is_some() && cx.options.api_listeners {
        return Some(vec![ListenAddress {
            address: Address::Socket(([0, 0, 0, 0], 0).into()),
            bind: BindOptions::default(),
        }]);
    }
    let refused = [
        ("api_listener", from.api_listener.is_some()),
        ("udp_listener_config", from.udp_listener_config.is_some()),
        ("internal_listener", from.listener_specifier.is_some()),
    ];
    if let Some((field, _)) = refused.into_iter().find(|(_, set)| *set) {
        let reason = "listeners other than TCP and Unix sockets are not supported";
        cx.invalid(&at.field(field), reason);
        return None;
    }
    let Some(address) = &from.address else {
        cx.invalid(at, "address is missing");
        return None;
    };
    let list = at.field("socket_options");
    let own = options(cx, &list, &from.socket_options);
    let keepalive = from.tcp_keepalive.as_ref();
    let mut addresses = vec![one(
        cx,
        &at.field("address"),
        from,
        address,
        (&own, keepalive),
    )?];
    let list = at.field("additional_addresses");
    for (index, more) in from.additional_addresses.iter().enumerate() {
        let at = list.index(index);
        let Some(address) = &more.address else {
            cx.invalid(&at, "address is missing");
            continue;
        };
        let replaced = more.socket_options.as_ref().map(|replaced| {
            let at = at.field("socket_options");
            options(cx, &at.field("socket_options"), &replaced.socket_options)
        });
        let keepalive = more.tcp_keepalive.as_ref().or(keepalive);
        let extras = (replaced.as_ref().unwrap_or(&own), keepalive);
        addresses.extend(one(cx, &at.field("address"), from, address, extras));
    }
    Some(addresses)
}

fn one(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Listener,
    address: &core::Address,
    (options, keepalive): (&Vec<SocketOption>, Option<&TcpKeepalive>),
) -> Option<ListenAddress> {
    use core::address::Address as Kind;
    let default = BindOptions::default();
    let kind = address.address.as_ref();
    let mut options = options.clone();
    if !matches!(kind, Some(Kind::Pipe(_))) {
        options.extend(keepalive.into_iter().flat_map(keep_alive));
        options.extend(value::number(from.tcp_fast_open_queue_length).map(fast_open));
    }
    Some(ListenAddress {
        address: value::address(cx, at, address)?,
        bind: BindOptions {
            backlog: value::number(from.tcp_backlog_size).unwrap_or(default.backlog),
            ipv4_compat: matches!(kind, Some(Kind::SocketAddress(socket)) if socket.ipv4_compat),
            freebind: value::flag(from.freebind, false),
            transparent: value::flag(from.transparent, false),
            mode: match kind {
                Some(Kind::Pipe(pipe)) => Some(pipe.mode).filter(|mode| *mode != 0),
                _ => None,
            },
            options,
        },
    })
}

/// The options that are for sockets that accept; those for datagrams are not.
fn options(cx: &Context<'_>, at: &At<'_>, from: &[Message]) -> Vec<SocketOption> {
    let options = from.iter().enumerate();
    options
        .filter_map(|(index, from)| option(cx, &at.index(index), from))
        .collect()
}

fn option(cx: &Context<'_>, at: &At<'_>, from: &Message) -> Option<SocketOption> {
    let of_datagrams = from
        .r#type
        .is_some_and(|of| of.stream.is_none() && of.datagram.is_some());
    if of_datagrams {
        return None;
    }
    let number = |field, number: i64| cx.ok(&at.field(field), i32::try_from(number));
    let value = match from.value.as_ref() {
        Some(Value::IntValue(value)) => OptionValue::Int(number("int_value", *value)?),
        Some(Value::BufValue(bytes)) => OptionValue::Bytes(bytes.as_slice().into()),
        // The protos' own rules have refused nothing at all.
        None => return None,
    };
    Some(SocketOption {
        description: from.description.as_str().into(),
        level: number("level", from.level)?,
        name: number("name", from.name)?,
        value,
        state: match from.state() {
            State::StatePrebind => SocketState::Prebind,
            State::StateBound => SocketState::Bound,
            State::StateListening => SocketState::Listening,
        },
        family: match from.ip_version() {
            SocketIpVersion::Unspecified => None,
            SocketIpVersion::Ipv4 => Some(OptionFamily::V4),
            SocketIpVersion::Ipv6 => Some(OptionFamily::V6),
        },
    })
}

const SOL_SOCKET: i32 = 1;
const SO_KEEPALIVE: i32 = 9;
const IPPROTO_TCP: i32 = 6;
const TCP_KEEPIDLE: i32 = 4;
const TCP_KEEPINTVL: i32 = 5;
const TCP_KEEPCNT: i32 = 6;
const TCP_FASTOPEN: i32 = 23;

/// Connections inherit these from the socket that accepts them. One 0 turns it all off, as in Envoy.
fn keep_alive(from: &TcpKeepalive) -> Vec<SocketOption> {
    let numbers = [
        ("keepalive_probes", TCP_KEEPCNT, from.keepalive_probes),
        ("keepalive_time", TCP_KEEPIDLE, from.keepalive_time),
        ("keepalive_interval", TCP_KEEPINTVL, from.keepalive_interval),
    ];
    let numbers = numbers.map(|(field, name, number)| (field, name, value::number(number)));
    if numbers.iter().any(|(.., number)| *number == Some(0)) {
        return Vec::new();
    }
    let set = |field, level, name, number: u32| {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        SocketOption::int(field, level, name, number, SocketState::Prebind)
    };
    let on = set("tcp_keepalive", SOL_SOCKET, SO_KEEPALIVE, 1);
    let numbers = numbers.into_iter();
    let numbers = numbers.filter_map(|(field, name, n)| Some(set(field, IPPROTO_TCP, name, n?)));
    std::iter::once(on).chain(numbers).collect()
}

fn fast_open(queue: u32) -> SocketOption {
    let queue = i32::try_from(queue).unwrap_or(i32::MAX);
    let field = "tcp_fast_open_queue_length";
    SocketOption::int(
        field,
        IPPROTO_TCP,
        TCP_FASTOPEN,
        queue,
        SocketState::Listening,
    )
}
