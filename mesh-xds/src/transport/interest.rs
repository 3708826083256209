use std::time::Instant;

use crate::{Event, ResourceType, Subscriber};

#[derive(Debug)]
enum Change {
    Subscribe(ResourceType, Option<String>),
    Unsubscribe(ResourceType, Option<String>),
    Refresh(ResourceType, String),
}

/// Changes of what is wanted, in order.
#[derive(Debug, Default)]
pub struct Interest(Vec<Change>);

impl Interest {
    /// Wants `name`.
    pub fn subscribe(&mut self, ty: ResourceType, name: impl Into<String>) {
        self.0.push(Change::Subscribe(ty, Some(name.into())));
    }

    /// Wants everything of the type.
    pub fn subscribe_all(&mut self, ty: ResourceType) {
        self.0.push(Change::Subscribe(ty, None));
    }

    /// Wants `name` no more.
    pub fn unsubscribe(&mut self, ty: ResourceType, name: impl Into<String>) {
        self.0.push(Change::Unsubscribe(ty, Some(name.into())));
    }

    /// Wants no more than what was subscribed to by name.
    pub fn unsubscribe_all(&mut self, ty: ResourceType) {
        self.0.push(Change::Unsubscribe(ty, None));
    }

    /// Wants `name`, which is wanted already, to be sent again.
    pub fn refresh(&mut self, ty: ResourceType, name: impl Into<String>) {
        self.0.push(Change::Refresh(ty, name.into()));
    }

    /// And then `later`.
    pub fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn apply(self, now: Instant, subscriber: &mut Subscriber) -> Vec<Event> {
        let mut events = Vec::new();
        for change in self.0 {
            match change {
                Change::Subscribe(ty, Some(name)) => {
                    events.extend(subscriber.subscribe(now, ty, &name));
                }
                Change::Subscribe(ty, None) => subscriber.subscribe_all(now, ty),
                Change::Unsubscribe(ty, Some(name)) => subscriber.unsubscribe(ty, &name),
                Change::Unsubscribe(ty, None) => subscriber.unsubscribe_all(ty),
                Change::Refresh(ty, name) => subscriber.refresh(ty, &name),
            }
        }
        events
    }
}
