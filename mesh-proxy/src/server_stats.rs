//! What the process says about itself, as `server.<stat>` and its like.

use std::sync::{Arc, Weak};

use mesh_client::xds::Follower;
use mesh_core::{
    clock,
    stats::{ComputedGuard, Stat, Value},
};

use mesh_xds::ResourceType;

use crate::{admin, drain::Phase, process::Process};

/// Exports the stats of `process` until the guard is dropped.
pub(crate) fn export(process: &Arc<Process>) -> ComputedGuard {
    let weak: Weak<Process> = Arc::downgrade(process);
    process.mesh.registry().computed(move |out| {
        let Some(process) = weak.upgrade() else {
            return;
        };
        let mut gauge = |name: &str, value: u64| {
            out.push(Stat {
                name: name.to_owned(),
                value: Value::Gauge(value),
            });
        };
        let running = process.listeners.phase() == Phase::Running
            && !process.mesh.server_health().is_failing();
        let state = match (process.is_ready(), running) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 3,
        };
        gauge("server.live", u64::from(state == 0));
        gauge("server.state", state);
        gauge("server.uptime", (clock::now() - process.started).as_secs());
        gauge("server.concurrency", process.flags.workers() as u64);
        gauge("server.total_connections", process.listeners.open() as u64);
        gauge(
            "cluster_manager.active_clusters",
            process.mesh.clusters().list().len() as u64,
        );
        let waiting = process.following.get().map(Follower::waiting);
        let waiting = waiting.unwrap_or_default();
        let warming = |ty| waiting.iter().filter(|one| one.key.0 == ty).count() as u64;
        gauge(
            "cluster_manager.warming_clusters",
            warming(ResourceType::Cluster),
        );
        gauge(
            "listener_manager.total_listeners_active",
            process.listeners.list().len() as u64,
        );
        gauge(
            "listener_manager.total_listeners_warming",
            warming(ResourceType::Listener),
        );
        gauge(
            "listener_manager.total_listeners_draining",
            process.listeners.draining() as u64,
        );
        gauge("listener_manager.workers_started", u64::from(state != 3));
        let runtime = process.config.runtime.snapshot();
        gauge("runtime.num_keys", runtime.entries.len() as u64);
        gauge("runtime.num_layers", runtime.layers.len() as u64);
        gauge(
            "runtime.admin_overrides_active",
            u64::from(runtime.overrides > 0),
        );
        if let Some(memory) = admin::memory::resident() {
            gauge("server.memory_allocated", memory);
            gauge("server.memory_physical_size", memory);
        }
    })
}
