use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use envoy_types::pb::envoy::config::core::v3::Node;
use futures_core::Stream as _;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::{ResourceType, Variant, wire::Request};

use super::{ClientReport, Diff, Peer, Push, Snapshot, TypeSet};

/// How many differences between sets are remembered. A push needs one for each type; with more groups in
/// motion at once than this, some are computed again.
const DIFFS_MAX: usize = 64;

/// Says which nodes share a snapshot.
pub trait NodeHash: Send + Sync {
    /// The group of a node.
    fn group(&self, node: &Node) -> String;
}

/// Each node is its own group, by its id.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeId;

impl NodeHash for NodeId {
    fn group(&self, node: &Node) -> String {
        node.id.clone()
    }
}

impl<F: Fn(&Node) -> String + Send + Sync> NodeHash for F {
    fn group(&self, node: &Node) -> String {
        self(node)
    }
}

/// One stream, for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

type Latest = Option<Arc<Snapshot>>;

struct Client {
    node: Arc<Node>,
    group: String,
    variant: Variant,
    peer: Arc<Mutex<Peer>>,
    /// Wakes the stream.
    nudge: Arc<watch::Sender<()>>,
}

/// Differences already computed, oldest first.
#[derive(Default)]
struct Diffs(VecDeque<((u64, u64), Arc<Diff>)>);

impl Diffs {
    fn between(&mut self, from: &Arc<TypeSet>, to: &Arc<TypeSet>) -> Arc<Diff> {
        let key = (from.id(), to.id());
        if let Some((_, diff)) = self.0.iter().find(|(of, _)| *of == key) {
            return diff.clone();
        }
        let diff = Arc::new(Diff::between(from, to));
        if self.0.len() == DIFFS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((key, diff.clone()));
        diff
    }
}

/// The snapshots of all groups, and who gets them. Cheap to clone; all clones are one cache.
#[derive(Clone)]
pub struct SnapshotCache(Arc<Shared>);

struct Shared {
    hash: Box<dyn NodeHash>,
    identifier: String,
    groups: Mutex<HashMap<String, watch::Sender<Latest>>>,
    clients: Mutex<BTreeMap<ClientId, Client>>,
    diffs: Mutex<Diffs>,
    next: AtomicU64,
}

impl fmt::Debug for SnapshotCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCache")
            .field("identifier", &self.0.identifier)
            .finish_non_exhaustive()
    }
}

impl SnapshotCache {
    /// An empty cache. `identifier` is what clients are told as `control_plane.identifier`.
    pub fn new(hash: impl NodeHash + 'static, identifier: impl Into<String>) -> Self {
        Self(Arc::new(Shared {
            hash: Box::new(hash),
            identifier: identifier.into(),
            groups: Mutex::default(),
            clients: Mutex::default(),
            diffs: Mutex::default(),
            next: AtomicU64::new(0),
        }))
    }

    /// What clients are told as `control_plane.identifier`.
    #[must_use]
    pub fn identifier(&self) -> &str {
        &self.0.identifier
    }

    /// Publishes `snapshot` to `group`: all its clients get it, at their own pace.
    pub fn set_snapshot(&self, group: &str, snapshot: Snapshot) {
        let mut groups = lock(&self.0.groups);
        let sender = groups.entry(group.to_owned()).or_default();
        sender.send_modify(|latest| {
            let snapshot = match latest {
                Some(before) => snapshot.keeping(before),
                None => snapshot,
            };
            *latest = Some(Arc::new(snapshot));
        });
    }

    /// What is published to `group`.
    #[must_use]
    pub fn snapshot(&self, group: &str) -> Option<Arc<Snapshot>> {
        lock(&self.0.groups).get(group)?.borrow().clone()
    }

    /// Publishes nothing more to `group`. Its clients keep what they have.
    pub fn clear_snapshot(&self, group: &str) {
        let mut groups = lock(&self.0.groups);
        if let Some(sender) = groups.get(group) {
            sender.send_replace(None);
            if sender.receiver_count() == 0 {
                groups.remove(group);
            }
        }
    }

    /// Where every connected client stands.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientReport> {
        // The peers are locked one by one, each only while it is read.
        let clients = lock(&self.0.clients);
        let known: Vec<_> = clients
            .iter()
            .map(|(id, c)| {
                (
                    *id,
                    c.node.clone(),
                    c.group.clone(),
                    c.variant,
                    c.peer.clone(),
                )
            })
            .collect();
        drop(clients);
        let report = |(id, node, group, variant, peer): (_, _, String, _, Arc<Mutex<Peer>>)| {
            let snapshot = self.snapshot(&group).unwrap_or_default();
            let rows = lock(&peer).rows(&snapshot);
            ClientReport {
                id,
                node,
                variant,
                group,
                rows,
            }
        };
        known.into_iter().map(report).collect()
    }

    /// Sends a client everything again; false when it is gone.
    pub fn resync(&self, id: ClientId) -> bool {
        let clients = lock(&self.0.clients);
        let Some(client) = clients.get(&id) else {
            return false;
        };
        lock(&client.peer).resync();
        client.nudge.send_replace(());
        true
    }

    /// A client of `node` has opened a stream.
    pub(crate) fn connect(
        &self,
        node: Node,
        variant: Variant,
        only: Option<ResourceType>,
    ) -> Connection {
        let group = self.0.hash.group(&node);
        let latest = {
            let mut groups = lock(&self.0.groups);
            let sender = groups.entry(group.clone()).or_default();
            sender.subscribe()
        };
        let id = ClientId(self.0.next.fetch_add(1, Ordering::Relaxed));
        let peer = Arc::new(Mutex::new(Peer::new(variant, only)));
        let (nudge, nudged) = watch::channel(());
        let client = Client {
            node: Arc::new(node),
            group: group.clone(),
            variant,
            peer: peer.clone(),
            nudge: Arc::new(nudge),
        };
        lock(&self.0.clients).insert(id, client);
        Connection {
            cache: self.clone(),
            id,
            group,
            peer,
            snapshot: None,
            latest: WatchStream::new(latest),
            nudged: WatchStream::from_changes(nudged),
        }
    }

    /// Forgets a group that has neither snapshot nor clients.
    fn tidy(&self, group: &str) {
        let mut groups = lock(&self.0.groups);
        let idle = |sender: &watch::Sender<Latest>| {
            sender.receiver_count() == 0 && sender.borrow().is_none()
        };
        if groups.get(group).is_some_and(idle) {
            groups.remove(group);
        }
    }
}

/// One stream's tie to the cache.
pub(crate) struct Connection {
    cache: SnapshotCache,
    id: ClientId,
    group: String,
    peer: Arc<Mutex<Peer>>,
    snapshot: Latest,
    latest: WatchStream<Latest>,
    nudged: WatchStream<()>,
}

impl Connection {
    pub(crate) fn on_request(&self, now: Instant, request: &Request) {
        lock(&self.peer).on_request(now, request);
    }

    /// The next response; registers for news when there is none. Also says when to look again.
    pub(crate) fn poll_push(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> (Option<Push>, Option<Instant>) {
        use std::pin::Pin;
        // Only the newest matters; each poll that is ready is asked once more, so that it registers.
        while let Poll::Ready(Some(latest)) = Pin::new(&mut self.latest).poll_next(cx) {
            self.snapshot = latest;
        }
        while let Poll::Ready(Some(())) = Pin::new(&mut self.nudged).poll_next(cx) {}
        let Some(snapshot) = &self.snapshot else {
            return (None, None);
        };
        let mut peer = lock(&self.peer);
        let cache = &self.cache;
        let mut differ = |from: &_, to: &_| lock(&cache.0.diffs).between(from, to);
        let push = peer.poll_push(now, snapshot, &mut differ);
        (push, peer.next_deadline())
    }

    pub(crate) fn identifier(&self) -> &str {
        &self.cache.0.identifier
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.cache.0.clients).remove(&self.id);
        // Let go of the receiver before counting them.
        let (_, receiver) = watch::channel(None);
        self.latest = WatchStream::new(receiver);
        self.cache.tidy(&self.group);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
