//! CSDS: what this process tells of its resources.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use mesh_core::{BoxFuture, clock};
use mesh_xds::{
    ResourceType,
    client::client_config,
    transport::TellStatus,
    wire::{ClientConfig, Node},
};

use super::{Shared, receiver::Receiver, statuses};

/// Tells for as long as the follower lives, and then of nothing.
pub(super) struct Tell {
    receiver: Weak<Mutex<Receiver>>,
    node: Node,
}

impl Tell {
    pub(super) fn new(shared: &Shared, node: Node) -> Self {
        Self {
            receiver: Arc::downgrade(&shared.receiver),
            node,
        }
    }
}

impl TellStatus for Tell {
    fn status(&self, contents: bool) -> BoxFuture<ClientConfig> {
        let node = self.node.clone();
        let known = self.receiver.upgrade().map(|receiver| {
            let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
            (receiver.commands(), receiver.language())
        });
        Box::pin(async move {
            let mut rows = Vec::new();
            if let Some((commands, language)) = known {
                rows = statuses(commands).await;
                for row in &mut rows {
                    let name = row.ty.type_url().rsplit('/').next().unwrap_or_default();
                    let shown = contents && row.ty != ResourceType::Secret;
                    let body = shown.then(|| language.without_secrets(name, &row.body));
                    row.body = body.flatten().map(Bytes::from).unwrap_or_default();
                }
            }
            client_config(node, &rows, (clock::now(), clock::wall()))
        })
    }
}
