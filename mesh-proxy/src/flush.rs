//! Flushing stats: intervals of histograms end, and sinks are told what is new.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_client::Mesh;
use mesh_config::model::{self, StatsConfig, StatsFlush, StatsSink, StatsTarget};
use mesh_core::{Address, Health};
use mesh_telemetry::Statsd;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UdpSocket, UnixDatagram},
    sync::Notify,
};

/// How long one flush may take to reach a sink; what has not left by then is lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends intervals, and tells sinks.
pub(crate) struct Flusher {
    mesh: Mesh,
    config: StatsConfig,
    sinks: Mutex<Vec<Sink>>,
    /// Somebody looked at the stats, and `stats_flush_on_admin` is set.
    asked: Notify,
}

struct Sink {
    statsd: Statsd,
    target: Target,
    /// Whether the last flush failed: only changes are logged.
    failing: bool,
}

enum Target {
    Udp(SocketAddr, Option<UdpSocket>),
    Unix(std::path::PathBuf, Option<UnixDatagram>),
    Stream(Arc<str>, Option<TcpStream>),
}

impl Flusher {
    pub(crate) fn new(mesh: Mesh, config: StatsConfig) -> anyhow::Result<Arc<Self>> {
        let sinks = config.sinks.iter().map(Sink::new);
        let sinks = sinks.collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Self {
            mesh,
            config,
            sinks: Mutex::new(sinks),
            asked: Notify::new(),
        }))
    }

    /// Somebody is about to look at the stats.
    pub(crate) fn on_admin(&self) {
        if self.config.flush == StatsFlush::OnAdmin {
            self.mesh.registry().roll();
            self.asked.notify_one();
        }
    }

    /// Flushes for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            match self.config.flush {
                StatsFlush::Every(interval) => {
                    tokio::time::sleep(interval).await;
                    self.mesh.registry().roll();
                }
                StatsFlush::OnAdmin => self.asked.notified().await,
            }
            self.tell().await;
        }
    }

    /// The last flush, when the process ends.
    pub(crate) async fn finish(&self) {
        self.mesh.registry().roll();
        self.tell().await;
    }

    async fn tell(&self) {
        // One flush at a time takes them; another that comes meanwhile finds none.
        let mut taken = Taken {
            flusher: self,
            sinks: std::mem::take(&mut *self.sinks()),
        };
        if taken.sinks.is_empty() {
            return;
        }
        let stats = self.mesh.registry().snapshot();
        for sink in &mut taken.sinks {
            let datagrams = sink.statsd.flush(&stats, &self.config.export);
            let send = sink.target.send(&self.mesh, &datagrams);
            let result = tokio::time::timeout(SEND_TIMEOUT, send).await;
            let result = result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            if let Err(error) = &result
                && !sink.failing
            {
                tracing::warn!(
                    "stats are lost on the way to {}: {error}",
                    sink.target.name()
                );
            }
            sink.failing = result.is_err();
        }
    }

    fn sinks(&self) -> std::sync::MutexGuard<'_, Vec<Sink>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sinks of a flush. They come back however it ends: the last flush comes when one is broken off.
struct Taken<'a> {
    flusher: &'a Flusher,
    sinks: Vec<Sink>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.flusher.sinks().append(&mut self.sinks);
    }
}

impl Sink {
    fn new(from: &StatsSink) -> anyhow::Result<Self> {
        Ok(Self {
            statsd: Statsd::new(from.statsd.clone())?,
            target: match &from.target {
                StatsTarget::Datagrams(Address::Socket(address)) => Target::Udp(*address, None),
                StatsTarget::Datagrams(Address::Unix(path)) => {
                    Target::Unix(path.to_path_buf(), None)
                }
                StatsTarget::Stream(cluster) => Target::Stream(Arc::clone(cluster), None),
            },
            failing: false,
        })
    }
}

impl Target {
    fn name(&self) -> String {
        match self {
            Self::Udp(address, _) => address.to_string(),
            Self::Unix(path, _) => path.display().to_string(),
            Self::Stream(cluster, _) => format!("cluster {cluster}"),
        }
    }

    async fn send(&mut self, mesh: &Mesh, datagrams: &[String]) -> io::Result<()> {
        if datagrams.is_empty() {
            return Ok(());
        }
        match self {
            Self::Udp(address, socket) => {
                let socket = match socket {
                    Some(socket) => socket,
                    None => socket.insert(udp(*address).await?),
                };
                let mut result = Ok(());
                for datagram in datagrams {
                    // An error may be about an earlier one, and then this one has not been sent: whoever did not
                    // listen then may listen now.
                    if socket.send(datagram.as_bytes()).await.is_err()
                        && let Err(error) = socket.send(datagram.as_bytes()).await
                    {
                        result = Err(error);
                    }
                }
                result
            }
            Self::Unix(path, socket) => {
                // Taken: after an error the next flush looks for the server anew.
                let live = match socket.take() {
                    Some(live) => live,
                    None => {
                        let new = UnixDatagram::unbound()?;
                        new.connect(&*path)?;
                        new
                    }
                };
                for datagram in datagrams {
                    live.send(datagram.as_bytes()).await?;
                }
                *socket = Some(live);
                Ok(())
            }
            Self::Stream(cluster, stream) => {
                // Taken: a connection on which something went wrong is not used again.
                *stream = Some(write(mesh, cluster, stream.take(), datagrams).await?);
                Ok(())
            }
        }
    }
}

async fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if address.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// Hands the connection back when everything was written.
async fn write(
    mesh: &Mesh,
    cluster: &str,
    stream: Option<TcpStream>,
    datagrams: &[String],
) -> io::Result<TcpStream> {
    let mut stream = match stream {
        Some(stream) => stream,
        None => TcpStream::connect(endpoint(mesh, cluster)?).await?,
    };
    for datagram in datagrams {
        stream.write_all(datagram.as_bytes()).await?;
    }
    Ok(stream)
}

/// The first endpoint that is well.
fn endpoint(mesh: &Mesh, cluster: &str) -> io::Result<SocketAddr> {
    let clusters = mesh.clusters();
    let mut clusters = clusters.list().iter();
    let cluster = clusters.find(|known| &**known.name() == cluster);
    let bare = |config: &model::Cluster| config.tls.is_none() && config.proxy_protocol.is_none();
    if cluster.is_some_and(|cluster| !bare(cluster.config())) {
        // It may have come later than the config of the sink.
        return Err(io::Error::other(
            "it wants TLS or a PROXY header, and stats are sent as they are",
        ));
    }
    let endpoints = cluster.map(|cluster| cluster.endpoints());
    let well = endpoints.as_ref().and_then(|endpoints| {
        let mut all = endpoints.endpoints().iter();
        all.find(|endpoint| endpoint.state.health() != Health::Unhealthy)
    });
    match well.map(|endpoint| endpoint.address()) {
        Some(Address::Socket(address)) => Ok(*address),
        _ => Err(io::Error::other("it has no endpoint")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::Arc,
        task::{Context, Waker},
        time::Duration,
    };

    use mesh_client::Mesh;
    use mesh_config::{LoadOptions, language::Source};
    use mesh_core::{Rng, stats::Registry};
    use mesh_net::TcpConnector;
    use mesh_telemetry::LogWriterConfig;
    use tokio::net::UdpSocket;

    use super::Flusher;

    mesh_core::stats! {
        /// Something to tell.
        struct Told {
            /// A counter.
            counter b,
        }
    }

    fn told(flusher: &Flusher) -> Told {
        Told::register(&flusher.mesh.registry().scope("a."))
    }

    /// A flusher that tells a server on this port.
    fn flusher(port: u16) -> Arc<Flusher> {
        let sink = format!(
            "stats_sinks: [{{name: s, typed_config: {{'@type': type.googleapis.com/envoy.config.metrics.v3.StatsdSink, \
             address: {{socket_address: {{protocol: UDP, address: 127.0.0.1, port_value: {port}}}}}}}}}]"
        );
        let source = Source::text("test", sink);
        let config = mesh_config::load(&source, &LoadOptions::default()).unwrap();
        let logs = LogWriterConfig::default();
        let connector = Arc::new(TcpConnector);
        let mesh = Mesh::new(Registry::new(), Rng::seeded(1), logs, connector);
        Flusher::new(mesh, config.stats).unwrap()
    }

    async fn server() -> (UdpSocket, u16) {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        (server, port)
    }

    /// Waits for a datagram with this line.
    async fn hears(server: &UdpSocket, line: &str) {
        let mut buffer = [0; 2048];
        let heard = async {
            loop {
                let n = server.recv(&mut buffer).await.unwrap();
                if std::str::from_utf8(&buffer[..n]).unwrap().contains(line) {
                    return;
                }
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(10), heard).await;
        heard.unwrap_or_else(|_| panic!("{line} is never heard"));
    }

    #[tokio::test]
    async fn a_flush_that_is_broken_off_leaves_its_sinks_to_the_last_one() {
        let (server, port) = server().await;
        let flusher = flusher(port);
        let told = told(&flusher);
        told.b().inc();
        {
            let broken_off = pin!(flusher.tell());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(broken_off.poll(&mut cx).is_pending());
            assert!(flusher.sinks().is_empty());
        }
        assert_eq!(flusher.sinks().len(), 1);
        told.b().inc();
        flusher.finish().await;
        hears(&server, "envoy.a.b:1|c\n").await;
    }

    #[tokio::test]
    async fn an_error_about_an_earlier_datagram_loses_no_later_one() {
        let (server, port) = server().await;
        let flusher = flusher(port);
        let told = told(&flusher);
        drop(server);
        // Nobody listens: the next datagram hears of that.
        told.b().inc();
        flusher.tell().await;
        let server = UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
        told.b().add(2);
        flusher.tell().await;
        hears(&server, "envoy.a.b:2|c\n").await;
    }
}
