//! Endpoints from etcd, over its own gRPC API.

mod wire;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use mesh_config::language::{Document, Language, Problems, Source};
use mesh_core::with_causes;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    metadata::MetadataValue,
    transport::{Channel, Endpoint as Server},
};
use tonic_prost::ProstCodec;

use self::wire::{
    Event, KeyValue, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use super::{Fault, Knowledge, Next, Registry};
use crate::mesh::{Endpoint, is_name};

/// Where endpoints are, unless it is said otherwise.
pub const PREFIX_DEFAULT: &str = "/mesh/endpoints/";
/// The most endpoints that are read; more are refused, and what was known stays.
const ENTRIES_MAX: u32 = 100_000;
/// The longest message that is read.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a server may take to answer a connection or a listing.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a silent connection is probed, and how long it has to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// How long nothing is tried after a failure; the next server is tried then.
const PAUSE: Duration = Duration::from_secs(1);

/// Endpoints in etcd: a key `<prefix><service>/<instance>` for each, whose value is an endpoint as in the mesh file:
/// `10.0.0.1:8080`, or `{address: 10.0.0.1:8080, weight: 2}`. Whoever writes one with a lease and keeps that alive
/// is in the mesh for as long as it lives.
///
/// While etcd cannot be reached, what was known stays. A value that is no endpoint is logged and left out.
pub struct Etcd {
    name: String,
    servers: Vec<Server>,
    /// The server that is asked next.
    at: usize,
    prefix: String,
    known: BTreeMap<Vec<u8>, (String, Endpoint)>,
    watch: Option<Streaming<WatchResponse>>,
    /// The watch has told of changes.
    delivered: bool,
    /// The last attempt has failed.
    failed: bool,
    language: Language,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Etcd {
    /// Of the first of these servers that answers, such as `http://127.0.0.1:2379`.
    ///
    /// # Errors
    /// When there is none, or its URI is none.
    pub fn new(servers: &[String], prefix: &str) -> Result<Self, String> {
        let server = |uri: &String| {
            let server = Server::from_shared(uri.clone());
            let server = server.map_err(|error| format!("{uri:?}: {error}"))?;
            Ok(server
                .connect_timeout(TIMEOUT)
                .http2_keep_alive_interval(KEEP_ALIVE.0)
                .keep_alive_timeout(KEEP_ALIVE.1)
                .keep_alive_while_idle(true))
        };
        let name = format!("etcd {} {prefix}", servers.join(","));
        let servers: Vec<Server> = servers.iter().map(server).collect::<Result<_, String>>()?;
        if servers.is_empty() {
            return Err("no server is given".to_owned());
        }
        Ok(Self {
            name,
            servers,
            at: 0,
            prefix: prefix.to_owned(),
            known: BTreeMap::new(),
            watch: None,
            delivered: false,
            failed: false,
            language: Language::reaching([]),
        })
    }

    /// Reads all there is, and begins to watch what comes after.
    async fn open(&mut self) -> Result<(), Status> {
        let server = self.servers[self.at % self.servers.len()].clone();
        let opening = async {
            let channel = server
                .connect()
                .await
                .map_err(|e| Status::unavailable(with_causes(&e)))?;
            let mut client = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let (key, range_end) = self.range();
            let list = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: ENTRIES_MAX.into(),
            };
            let all: RangeResponse = list_all(&mut client, list).await?;
            if all.more {
                return Err(self.too_many());
            }
            let create = WatchCreateRequest {
                key,
                range_end,
                start_revision: all.header.unwrap_or_default().revision + 1,
            };
            Ok((all.kvs, watch(&mut client, create).await?))
        };
        let opened = tokio::time::timeout(TIMEOUT * 2, opening).await;
        let (all, watch) = opened.map_err(|_| Status::deadline_exceeded("no answer"))??;
        self.known.clear();
        for kv in all {
            self.put(&kv);
        }
        self.watch = Some(watch);
        Ok(())
    }

    /// The keys that begin with the prefix.
    fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let key = self.prefix.clone().into_bytes();
        let mut end = key.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        // Everything, where there is no end.
        if end.is_empty() {
            end.push(0);
        }
        (key, end)
    }

    fn put(&mut self, kv: &KeyValue) {
        match self.endpoint(kv) {
            Ok(known) => {
                self.known.insert(kv.key.clone(), known);
            }
            Err(reason) => {
                let key = String::from_utf8_lossy(&kv.key);
                tracing::warn!("{}: {key} is left out: {reason}", self.name);
                self.known.remove(&kv.key);
            }
        }
    }

    fn endpoint(&self, kv: &KeyValue) -> Result<(String, Endpoint), String> {
        let key = std::str::from_utf8(&kv.key).map_err(|_| "its key is not UTF-8")?;
        let rest = key.strip_prefix(&self.prefix).unwrap_or(key);
        let (service, instance) = rest
            .split_once('/')
            .ok_or("its key does not end in <service>/<instance>")?;
        if !is_name(service) || instance.is_empty() {
            return Err("its key does not end in <service>/<instance>".to_owned());
        }
        let text = std::str::from_utf8(&kv.value).map_err(|_| "it is not UTF-8")?;
        let document = Document::read(&Source::text(key, text), self.language.clone());
        let document = document.map_err(|error| error.to_string())?;
        let mut problems = Problems::new();
        let endpoint = Endpoint::read(&document.root(), &mut problems);
        document
            .check(problems)
            .map_err(|error| error.to_string())?;
        let endpoint = endpoint.ok_or("it is no endpoint")?;
        Ok((service.to_owned(), endpoint))
    }

    fn on_events(&mut self, events: &[Event]) -> Result<(), Status> {
        self.delivered = true;
        for event in events {
            self.on_event(event);
            if self.known.len() > ENTRIES_MAX as usize {
                // What is there is listed again, and refused for as long as it is too much.
                return Err(self.too_many());
            }
        }
        Ok(())
    }

    fn too_many(&self) -> Status {
        Status::out_of_range(format!(
            "more than {ENTRIES_MAX} keys below {}",
            self.prefix
        ))
    }

    /// A watch that worked and was interrupted is opened again at once. One that can be opened but tells nothing
    /// has to wait, and so has a server that cannot be asked.
    fn on_failure(&mut self) {
        self.watch = None;
        self.failed = !std::mem::take(&mut self.delivered);
        self.at = self.at.wrapping_add(usize::from(self.failed));
    }

    fn on_event(&mut self, event: &Event) {
        match &event.kv {
            Some(kv) if event.kind == 0 => self.put(kv),
            Some(kv) => drop(self.known.remove(&kv.key)),
            None => {}
        }
    }

    fn knowledge(&self) -> Knowledge {
        let mut endpoints: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
        for (service, endpoint) in self.known.values() {
            let all = endpoints.entry(service.clone()).or_default();
            all.push(endpoint.clone());
        }
        Knowledge::Endpoints(Arc::new(endpoints))
    }

    /// The next message with events in it.
    async fn events(watch: &mut Streaming<WatchResponse>) -> Result<Vec<Event>, Status> {
        loop {
            let message = watch.message().await?;
            let message = message.ok_or_else(|| Status::unavailable("the watch has ended"))?;
            if message.compact_revision > 0 || message.canceled {
                let reason = match message.cancel_reason.as_str() {
                    "" => "the watch was cancelled: history was compacted",
                    reason => reason,
                };
                return Err(Status::aborted(reason));
            }
            if !message.events.is_empty() {
                return Ok(message.events);
            }
        }
    }

    async fn attempt(&mut self) -> Result<Knowledge, Status> {
        match &mut self.watch {
            None => self.open().await?,
            Some(watch) => {
                let events = Self::events(watch).await?;
                self.on_events(&events)?;
            }
        }
        Ok(self.knowledge())
    }
}

impl Registry for Etcd {
    fn name(&self) -> &str {
        &self.name
    }

    fn next(&mut self) -> Next<'_> {
        Box::pin(async move {
            if self.failed {
                tokio::time::sleep(PAUSE).await;
            }
            match self.attempt().await {
                Ok(knowledge) => {
                    self.failed = false;
                    Ok(knowledge)
                }
                Err(status) => {
                    self.on_failure();
                    Err(Fault::Unreachable(status.message().to_owned()))
                }
            }
        })
    }
}

async fn list_all(client: &mut Grpc<Channel>, list: RangeRequest) -> Result<RangeResponse, Status> {
    client
        .ready()
        .await
        .map_err(|e| Status::unavailable(with_causes(&e)))?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
    let answer = client.unary(Request::new(list), path, codec).await?;
    Ok(answer.into_inner())
}

async fn watch(
    client: &mut Grpc<Channel>,
    create: WatchCreateRequest,
) -> Result<Streaming<WatchResponse>, Status> {
    use futures_util::StreamExt as _;
    client
        .ready()
        .await
        .map_err(|e| Status::unavailable(with_causes(&e)))?;
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
    let request = WatchRequest {
        create_request: Some(create),
    };
    // Open for as long as the answers are read.
    let requests = tokio_stream::once(request).chain(futures_util::stream::pending());
    let answer = client.streaming(watching(requests), path, codec).await?;
    Ok(answer.into_inner())
}

/// A member that is cut off from the others must say so: its watch would otherwise be open and silent for ever.
fn watching<T>(requests: T) -> Request<T> {
    let mut request = Request::new(requests);
    let yes = MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", yes);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd() -> Etcd {
        Etcd::new(&["http://127.0.0.1:1".to_owned()], PREFIX_DEFAULT).expect("a registry")
    }

    fn kv(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
        }
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        let mut etcd = etcd();
        assert_eq!(etcd.range().1, b"/mesh/endpoints0");
        etcd.prefix = String::new();
        assert_eq!(etcd.range(), (Vec::new(), vec![0]));
    }

    #[test]
    fn keys_name_services_and_values_are_endpoints() {
        let etcd = etcd();
        let (service, endpoint) = etcd
            .endpoint(&kv("/mesh/endpoints/users/1", "10.0.0.1:80"))
            .expect("an endpoint");
        assert_eq!(service, "users");
        assert_eq!(endpoint.address.to_string(), "10.0.0.1:80");
        let weighted = kv(
            "/mesh/endpoints/users/2",
            "{address: '10.0.0.1:80', weight: 7}",
        );
        assert_eq!(etcd.endpoint(&weighted).expect("an endpoint").1.weight, 7);
        for (key, value) in [
            ("/mesh/endpoints/users", "10.0.0.1:80"),
            ("/mesh/endpoints/users/", "10.0.0.1:80"),
            ("/mesh/endpoints/us ers/1", "10.0.0.1:80"),
            ("/mesh/endpoints/users/1", "somewhere"),
            ("/mesh/endpoints/users/1", ""),
        ] {
            assert!(etcd.endpoint(&kv(key, value)).is_err(), "{key} {value}");
        }
    }

    #[test]
    fn events_change_what_is_known() {
        let mut etcd = etcd();
        let put = |value: &str| Event {
            kind: 0,
            kv: Some(kv("/mesh/endpoints/users/1", value)),
        };
        let count = |etcd: &Etcd| match etcd.knowledge() {
            Knowledge::Endpoints(endpoints) => endpoints.values().map(Vec::len).sum::<usize>(),
            _ => panic!("something else"),
        };
        etcd.on_event(&put("10.0.0.1:80"));
        assert_eq!(count(&etcd), 1);
        // What was an endpoint and is none any more goes.
        etcd.on_event(&put("nowhere"));
        assert_eq!(count(&etcd), 0);
        etcd.on_event(&put("10.0.0.1:80"));
        etcd.on_event(&Event { kind: 1, ..put("") });
        assert_eq!(count(&etcd), 0);
    }

    #[test]
    fn a_watch_that_cannot_be_kept_is_not_opened_again_at_once() {
        let mut etcd = etcd();
        etcd.on_events(&[]).expect("good");
        etcd.on_failure();
        assert!(!etcd.failed, "it was interrupted");
        etcd.on_failure();
        assert!(etcd.failed, "it has told nothing since");
        assert_eq!(etcd.at, 1, "another server may do better");
    }

    #[test]
    fn a_member_that_is_cut_off_says_so() {
        let request = watching(());
        let header = request.metadata().get("hasleader").expect("metadata");
        assert_eq!(header, "true");
    }

    #[test]
    fn events_cannot_bring_more_than_a_listing() {
        let mut etcd = etcd();
        let put = Event {
            kind: 0,
            kv: Some(kv("/mesh/endpoints/users/1", "10.0.0.1:80")),
        };
        etcd.on_events(std::slice::from_ref(&put)).expect("good");
        let known = etcd.known.values().next().expect("one").clone();
        for index in 1..ENTRIES_MAX {
            etcd.known
                .insert(index.to_be_bytes().to_vec(), known.clone());
        }
        etcd.on_events(&[put]).expect("it is there already");
        let another = Event {
            kind: 0,
            kv: Some(kv("/mesh/endpoints/users/2", "10.0.0.2:80")),
        };
        let error = etcd.on_events(&[another]).expect_err("one too many");
        assert_eq!(
            error.message(),
            "more than 100000 keys below /mesh/endpoints/"
        );
    }
}
