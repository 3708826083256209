//! One stream, as those hear it who work with what it brings.

use std::time::Instant;

use mesh_xds::{
    Accept, Event, Rejection, ResourceType,
    transport::{Handler, Interest},
};

use super::{Shared, cache::Kept, kind_of, sources::SourceKey};

/// One stream's end of what all feed.
pub(super) struct Ear {
    shared: Shared,
    source: SourceKey,
    kept: Option<Kept>,
}

impl Shared {
    pub(super) fn of(&self, source: &SourceKey, kept: Option<Kept>) -> Ear {
        Ear {
            shared: self.clone(),
            source: source.clone(),
            kept,
        }
    }
}

impl Accept for Ear {
    fn accept(
        &mut self,
        ty: ResourceType,
        name: &str,
        body: &bytes::Bytes,
    ) -> Result<(), Rejection> {
        let Some(kind) = kind_of(ty) else {
            return Err(Rejection::new("resources of this type are not supported"));
        };
        let checked = self.shared.lock().check(kind, name, body)?;
        if let Some(listener) = checked.listener() {
            let prepared = self.shared.listen.prepare(listener);
            prepared.map_err(|reason| {
                tracing::warn!("{ty} {name:?} rejected: {reason}");
                Rejection::new(reason)
            })?;
        }
        let key = checked.key();
        self.shared.lock().checked.insert(key, checked);
        Ok(())
    }
}

impl Handler for Ear {
    fn on_events(&mut self, now: Instant, events: Vec<Event>, interest: &mut Interest) {
        if let Some(kept) = &self.kept {
            let changed = events.iter().filter_map(|event| match event {
                Event::Updated { ty, .. } | Event::Removed { ty, .. } => Some(*ty),
                _ => None,
            });
            changed.for_each(|ty| kept.on_change(ty));
        }
        let shared = &self.shared;
        let mut receiver = shared.lock();
        let mut steps = Vec::new();
        for event in events {
            steps.extend(receiver.on_event(now, event));
        }
        receiver.flush(shared, Some(&self.source), interest);
        receiver.take(shared, steps);
        drop(receiver);
        shared.changed.notify_one();
    }

    fn on_response(&mut self, _: Instant, ty: ResourceType, version: &str, refused: Option<&str>) {
        let mut receiver = self.shared.lock();
        receiver.on_response(ty, version, refused.is_some());
    }

    fn on_connection(&mut self, connected: bool, reason: &str) {
        let mut receiver = self.shared.lock();
        receiver.status.on_connection(&self.source, connected);
        drop(receiver);
        if connected {
            tracing::info!("connected to the control plane");
        } else {
            tracing::warn!("no control plane: {reason}");
        }
    }
}
