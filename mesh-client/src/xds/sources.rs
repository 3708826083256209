//! The streams that config comes from.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use mesh_config::{
    dynamic::Assembly,
    language::{Language, Source as TextSource, load_message},
    model::{Config, FileConfig, Source, StreamConfig},
};
use mesh_xds::{
    RateLimit, Reconnect, ResourceType, Subscriber, SubscriberConfig, Variant,
    transport::{
        Call, Commands, Driver, FileDriver, FileSource, Interest, PathConfigSource, Server, Stream,
    },
    wire::{DiscoveryResponse, Node},
};

use tokio::task::AbortHandle;

use crate::Mesh;

use super::{
    Shared,
    cache::{Cache, Kept},
    call::ThroughCluster,
    ear::Ear,
    status::ConfigOrigin,
};

/// A source of one type; the aggregated stream has none.
pub(super) type SourceKey = (Source, Option<ResourceType>);

/// The sources that somebody has asked for something. Each has a task of its own from then on, until the
/// follower ends. Grows with the sources that configs name.
pub(super) struct Sources {
    mesh: Mesh,
    ads: Option<Arc<StreamConfig>>,
    node: Node,
    timeout: Option<std::time::Duration>,
    cache: Option<Cache>,
    language: Language,
    live: BTreeMap<SourceKey, Live>,
}

/// A stream's task, which ends with its commands, and the one that saves what it has brought.
struct Live {
    commands: Commands,
    saving: Option<AbortHandle>,
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(saving) = &self.saving {
            saving.abort();
        }
    }
}

impl Sources {
    pub(super) fn new(
        mesh: &Mesh,
        config: &Config,
        assembly: &Assembly,
        cache: Option<Cache>,
    ) -> Self {
        let dynamic = &config.dynamic;
        let first = dynamic.listeners.as_ref().or(dynamic.clusters.as_ref());
        Self {
            mesh: mesh.clone(),
            ads: dynamic.ads.clone(),
            node: assembly.node(),
            language: assembly.language().clone(),
            timeout: first.map_or(Some(super::INITIAL_FETCH_TIMEOUT), |origin| {
                origin.initial_fetch_timeout
            }),
            cache,
            live: BTreeMap::new(),
        }
    }

    /// The ways to all of them.
    pub(super) fn commands(&self) -> Vec<Commands> {
        let live = self.live.values();
        live.map(|live| live.commands.clone()).collect()
    }

    /// Where something of that type comes from.
    pub(super) fn key(source: &Source, ty: ResourceType) -> SourceKey {
        match source {
            Source::Ads => (Source::Ads, None),
            other => (other.clone(), Some(ty)),
        }
    }

    /// Tells a source what is wanted; it is connected to if it was not.
    pub(super) fn change(&mut self, shared: &Shared, key: &SourceKey, interest: Interest) {
        if !self.live.contains_key(key)
            && let Some(live) = self.open(shared, key)
        {
            self.live.insert(key.clone(), live);
        }
        if let Some(live) = self.live.get(key) {
            live.commands.change(interest);
        }
    }

    /// Ends all of them.
    pub(super) fn close(&mut self) {
        self.live.clear();
        self.ads = None;
    }

    fn open(&self, shared: &Shared, key: &SourceKey) -> Option<Live> {
        let config = match &key.0 {
            Source::Ads => self.ads.as_ref()?,
            Source::Stream(config) => config,
            Source::File(config) => return self.watch(shared, key, config),
        };
        let variant = if config.delta {
            Variant::Delta
        } else {
            Variant::StateOfTheWorld
        };
        let mut settings = SubscriberConfig::new(self.node.clone(), variant);
        settings.set_node_on_first_message_only = config.set_node_on_first_message_only;
        settings.initial_fetch_timeout = self.timeout;
        settings.rate_limit = config.rate_limit.map(|(max_tokens, rate)| RateLimit {
            max_tokens,
            fill_rate: f64::from(rate) / 1000.0,
        });
        let server = |server| -> Server {
            let call: Arc<dyn Call> = Arc::new(ThroughCluster::new(&self.mesh, server));
            Server::Call(call)
        };
        let stream = Stream {
            servers: config.servers.iter().map(server).collect(),
            variant,
            only: key.1,
        };
        let reconnect = reconnect(config)?;
        let rng = self.mesh.rng().clone();
        let kept = self.cache.as_ref().and_then(|cache| cache.of(key));
        let handler = shared.of(key, kept.clone());
        let (driver, commands) =
            Driver::new(Subscriber::new(settings), handler, stream, reconnect, rng);
        let saving = kept.clone().map(|kept| {
            let saving = kept.run(commands.clone());
            tokio::spawn(saving).abort_handle()
        });
        tokio::spawn(run(driver, kept, shared.clone()));
        Some(Live { commands, saving })
    }
}

impl Sources {
    /// A file is at hand whenever this process is: it is not kept elsewhere.
    fn watch(&self, shared: &Shared, key: &SourceKey, config: &FileConfig) -> Option<Live> {
        let ty = key.1?;
        let source = FileSource::new(PathConfigSource {
            path: config.path.clone(),
            watched_directory: config.watched_directory.clone(),
        });
        let failed = |reason: &str| tracing::error!("config file: {reason}");
        let source = match source {
            Ok(source) => source,
            Err(error) => {
                failed(&format!("{}: {error}", config.path.display()));
                return None;
            }
        };
        let mut settings = SubscriberConfig::new(self.node.clone(), Variant::StateOfTheWorld);
        settings.initial_fetch_timeout = self.timeout;
        let handler = shared.of(key, None);
        let subscriber = Subscriber::new(settings);
        let (driver, commands) = FileDriver::new(source, ty, subscriber, handler);
        let language = self.language.clone();
        let parse = move |path: &Path, bytes: &[u8]| parse(&language, path, bytes);
        let receiver = shared.clone();
        let refused = move |reason: &str| {
            failed(reason);
            receiver.lock().status.on_rejected(ty, "");
        };
        tokio::spawn(driver.run(parse, refused));
        Some(Live {
            commands,
            saving: None,
        })
    }
}

/// A `DiscoveryResponse` in protobuf, or else in YAML or JSON, as the name of the file says.
fn parse(language: &Language, path: &Path, bytes: &[u8]) -> Result<DiscoveryResponse, String> {
    const MESSAGE: &str = "envoy.service.discovery.v3.DiscoveryResponse";
    let is_binary = path.extension().is_some_and(|ext| ext == "pb");
    if is_binary {
        return DiscoveryResponse::parse(bytes);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let source = TextSource::text(path.display().to_string(), text);
    let message = load_message(&source, MESSAGE, language);
    DiscoveryResponse::parse(&message.map_err(|error| error.to_string())?)
}

/// Takes what the cache has, and then what the control plane says.
async fn run(mut driver: Driver<Ear>, kept: Option<Kept>, shared: Shared) {
    if let Some(kept) = &kept
        && let Some((all, saved)) = kept.load()
    {
        tracing::info!("starting from the config cache");
        shared
            .lock()
            .status
            .on_origin(ConfigOrigin::Cache, Some(saved));
        let restoring = kept.restore();
        for (ty, resources) in all {
            driver.restore(ty, resources);
        }
        drop(restoring);
    }
    // It is nobody's any more; what it holds must not keep it alive.
    drop((kept, shared));
    driver.run().await;
}

/// How a stream is connected again. One has a server at least, and times that were checked.
pub(super) fn reconnect(config: &StreamConfig) -> Option<Reconnect> {
    let servers = config.servers.len();
    match config.backoff {
        Some((base, max)) => Reconnect::with_backoff(servers, base, max).ok(),
        None => Reconnect::new(servers).ok(),
    }
}
