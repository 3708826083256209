use std::fmt::Write as _;

use http::StatusCode;
use mesh_core::Address;
use serde_json::{Value, json};

use super::{Ask, Page};
use crate::drain::Phase;

pub(super) fn page(ask: &Ask<'_>) -> Page {
    if ask.parameter("format").as_deref() == Some("json") {
        let statuses: Vec<Value> = ask
            .process
            .listeners
            .list()
            .iter()
            .map(|(name, addresses)| status(name, addresses))
            .collect();
        return Page::json(&json!({"listener_statuses": statuses}));
    }
    let mut out = String::new();
    for (name, addresses) in ask.process.listeners.list() {
        for address in addresses {
            let _ = writeln!(out, "{name}::{address}");
        }
    }
    Page::text(out)
}

fn status(name: &str, addresses: &[Address]) -> Value {
    let mut status = json!({"name": name});
    let mut addresses = addresses.iter().map(address_json);
    if let Some(own) = addresses.next() {
        status["local_address"] = own;
    }
    let more: Vec<Value> = addresses.collect();
    if !more.is_empty() {
        status["additional_local_addresses"] = more.into();
    }
    status
}

pub(super) fn address_json(address: &Address) -> Value {
    match address {
        Address::Socket(address) => json!({
            "socket_address": {"address": address.ip().to_string(), "port_value": address.port()}
        }),
        Address::Unix(path) => json!({"pipe": {"path": path.display().to_string()}}),
    }
}

pub(super) fn drain(ask: &Ask<'_>) -> Page {
    let flag = |name| ask.parameter(name).is_some();
    if flag("inboundonly") {
        match inbound(ask) {
            (0, _) => return Page::text("OK\n"),
            (_, 0) => {}
            _ => {
                return Page::error(
                    StatusCode::NOT_IMPLEMENTED,
                    "some listeners are inbound and some are not: they are drained all together or not at all\n",
                );
            }
        }
    }
    let (graceful, stays) = (flag("graceful"), flag("skip_exit"));
    let phase = if graceful || stays {
        Phase::Announcing
    } else {
        Phase::Finishing
    };
    ask.process.listeners.advance(phase);
    if graceful && !stays {
        let listeners = ask.process.listeners.clone();
        let wait = ask.process.flags.drain_min();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            listeners.advance(Phase::Finishing);
        });
    }
    Page::text("OK\n")
}

/// How many listeners are inbound, and how many are not.
fn inbound(ask: &Ask<'_>) -> (usize, usize) {
    let listeners = ask
        .process
        .config
        .dump
        .pointer("/static_resources/listeners");
    let listeners = listeners
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let inbound = listeners
        .iter()
        .filter(|listener| listener["traffic_direction"] == "INBOUND");
    let inbound = inbound.count();
    (inbound, listeners.len() - inbound)
}

pub(super) fn reopen(ask: &Ask<'_>) -> Page {
    ask.process.mesh.writer().reopen();
    Page::text("OK\n")
}

pub(super) fn quit(ask: &Ask<'_>) -> Page {
    ask.process.quit.notify_one();
    Page::text("OK\n")
}
