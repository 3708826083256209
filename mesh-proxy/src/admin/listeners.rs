use std::fmt::Write as _;

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
            .map(|(name, address)| json!({"name": &**name, "local_address": address_json(address)}))
            .collect();
        return Page::json(&json!({"listener_statuses": statuses}));
    }
    let mut out = String::new();
    for (name, address) in ask.process.listeners.list() {
        let _ = writeln!(out, "{name}::{address}");
    }
    Page::text(out)
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
    let graceful = ask.parameter("graceful").is_some();
    let phase = if graceful {
        Phase::Announcing
    } else {
        Phase::Finishing
    };
    ask.process.listeners.advance(phase);
    if graceful {
        let listeners = ask.process.listeners.clone();
        let wait = ask.process.flags.drain_min();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            listeners.advance(Phase::Finishing);
        });
    }
    Page::text("OK\n")
}

pub(super) fn quit(ask: &Ask<'_>) -> Page {
    ask.process.quit.notify_one();
    Page::text("OK\n")
}
