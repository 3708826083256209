//! What is asked for.

use super::{
    contender::{Contender, Mode},
    rig::{Ask, Life, Protocol, Size, Tls},
    shape::Shape,
};

/// At most this much of what the other one needs for a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bar {
    pub(crate) of: Contender,
    pub(crate) share_max: f64,
}

const fn of_envoy(share_max: f64) -> Option<Bar> {
    let of = Contender::Envoy;
    Some(Bar { of, share_max })
}

const fn of_relay(share_max: f64) -> Option<Bar> {
    let of = Contender::Relay;
    Some(Bar { of, share_max })
}

/// What is asked for, over how many connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) shape: Shape,
    pub(crate) ask: Ask,
    pub(crate) connections: usize,
    pub(crate) modes: &'static [Mode],
    /// For all policies on.
    pub(crate) bar: Option<Bar>,
    /// Whether memory is measured in this shape too.
    pub(crate) memory: bool,
}

/// A workload of HTTP/1.1 that is like `small` but for what is said of it.
const SMALL: Workload = Workload {
    name: "small",
    title: "HTTP/1.1 keep-alive, 100 B, 64 connections",
    shape: Shape::Http,
    ask: Ask {
        size: Size::Small,
        protocol: Protocol::Http1,
        tls: None,
        life: Life::KeepAlive,
    },
    connections: 64,
    modes: &Mode::ALL,
    bar: of_envoy(0.35),
    memory: true,
};

const POLICIES: &[Mode] = &[Mode::Policies];

pub(crate) const WORKLOADS: [Workload; 11] = [
    SMALL,
    Workload {
        name: "large",
        title: "HTTP/1.1 keep-alive, 64 KiB, 16 connections",
        ask: Ask {
            size: Size::Large,
            ..SMALL.ask
        },
        connections: 16,
        bar: of_envoy(0.45),
        memory: false,
        ..SMALL
    },
    Workload {
        name: "h2-h1",
        title: "HTTP/2 to HTTP/1.1, 100 B, 8 connections of 32 streams",
        bar: of_envoy(0.40),
        ..http2(Shape::Http2, Size::Small, 32)
    },
    Workload {
        name: "h2-h2",
        title: "HTTP/2 to HTTP/2, 100 B, 8 connections of 32 streams",
        bar: of_envoy(0.43),
        ..http2(Shape::Http2Both, Size::Small, 32)
    },
    Workload {
        name: "h2-large",
        title: "HTTP/2 to HTTP/1.1, 64 KiB, 8 connections of 2 streams",
        bar: of_envoy(0.45),
        ..http2(Shape::Http2, Size::Large, 2)
    },
    Workload {
        name: "tcp",
        title: "TCP, 100 B asked for and answered, 64 connections",
        shape: Shape::Tcp,
        modes: POLICIES,
        bar: of_relay(1.5),
        memory: false,
        ..SMALL
    },
    Workload {
        name: "tcp-bulk",
        title: "TCP, 16 MiB, 4 connections",
        shape: Shape::Tcp,
        ask: Ask {
            size: Size::Huge,
            ..SMALL.ask
        },
        connections: 4,
        modes: POLICIES,
        bar: of_relay(1.5),
        memory: false,
    },
    Workload {
        name: "tls",
        title: "TLS 1.3 keep-alive, 100 B, 64 connections",
        memory: true,
        bar: of_envoy(0.40),
        ..tls(Shape::Tls, Tls::Full, Life::KeepAlive, 64)
    },
    Workload {
        name: "tls-full",
        title: "TLS 1.3: full handshake, one request, close; 16 connections at a time",
        bar: of_envoy(0.70),
        ..tls(Shape::Tls, Tls::Full, Life::Once, 16)
    },
    Workload {
        name: "tls-resumed",
        title: "TLS 1.3: resumed handshake, one request, close; 16 connections at a time",
        ..tls(Shape::Tls, Tls::Resumed, Life::Once, 16)
    },
    Workload {
        name: "mtls-full",
        title: "TLS 1.3: full handshake with a client certificate, one request, close; 16 connections at a time",
        ..tls(Shape::Mtls, Tls::Full, Life::Once, 16)
    },
];

const fn http2(shape: Shape, size: Size, streams: usize) -> Workload {
    Workload {
        shape,
        ask: Ask {
            size,
            protocol: Protocol::Http2 { streams },
            ..SMALL.ask
        },
        connections: 8,
        modes: POLICIES,
        bar: None,
        memory: false,
        ..SMALL
    }
}

const fn tls(shape: Shape, tls: Tls, life: Life, connections: usize) -> Workload {
    Workload {
        shape,
        ask: Ask {
            tls: Some(tls),
            life,
            ..SMALL.ask
        },
        connections,
        modes: POLICIES,
        bar: None,
        memory: false,
        ..SMALL
    }
}
