//! Our client takes config from a control plane built on go-control-plane.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use e2e::wait::{self, Deadline};
use envoy_types::pb::envoy::config::core::v3::Node;
use mesh_core::Rng;
use mesh_xds::{
    Accept, Event, Reconnect, Rejection,
    ResourceType::{self, Cluster, Endpoints},
    Subscriber, SubscriberConfig, Variant,
    transport::{Commands, Driver, Handler, Interest, Stream},
};
use tokio::sync::watch;

pub(crate) fn run(binary: &Path, variant: Variant) -> Result<()> {
    let mut server = Server::start(binary, "0")?;
    let client = Client::start(variant, &server.address)?;
    server.publish("1 a=1001 b=1002")?;
    client.until(&["cds a", "cds b", "eds a", "eds b"])?;
    server.publish("2 a=1001 c=1003")?;
    client.until(&["cds a", "cds c", "eds a", "eds c"])?;

    // What is refused is told, by name and with the reason, and the rest is taken.
    server.publish("3 a=1001 c=1003 bad=1004 d=1005")?;
    client.until(&["cds a", "cds c", "cds d", "eds a", "eds c", "eds d"])?;
    let nack = server.line("nack ")?;
    ensure!(nack.contains("cds \"bad\": name: it is bad"), "{nack}");
    server.publish("4 a=1001")?;
    client.until(&["cds a", "eds a"])?;

    // It goes, the config stays; another one with other config comes on the same port.
    let port = server
        .address
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    drop(server);
    client.disconnected()?;
    ensure!(client.names() == ["cds a", "eds a"], "{:?}", client.names());
    let mut server = Server::start(binary, &port)?;
    server.publish("9 a=1001 z=1009")?;
    client.until(&["cds a", "cds z", "eds a", "eds z"])?;
    Ok(())
}

/// The peer; it ends with its standard input.
struct Server {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
    address: String,
}

impl Server {
    fn start(binary: &Path, port: &str) -> Result<Self> {
        let mut child = Command::new(binary)
            .arg(port)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let input = child.stdin.take().context("no stdin")?;
        let output = BufReader::new(child.stdout.take().context("no stdout")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Self {
            child,
            input,
            lines,
            address: String::new(),
        };
        let line = server.line("listening ")?;
        server.address = line.trim_start_matches("listening ").to_owned();
        Ok(server)
    }

    fn publish(&mut self, snapshot: &str) -> Result<()> {
        writeln!(self.input, "{snapshot}")?;
        Ok(())
    }

    /// The next line that begins so.
    fn line(&self, start: &str) -> Result<String> {
        let deadline = Deadline::default();
        loop {
            let left = deadline.left().context("it said nothing in time")?;
            let line = self.lines.recv_timeout(left)?;
            if line.starts_with(start) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If it has ended by itself, there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type State = (BTreeMap<(ResourceType, String), Bytes>, bool);

/// Remembers what is in force, and refuses a cluster that is called bad.
struct Recorder(watch::Sender<State>);

impl Accept for Recorder {
    fn accept(&mut self, ty: ResourceType, name: &str, _: &Bytes) -> Result<(), Rejection> {
        match (ty, name) {
            (Cluster, "bad") => Err(Rejection::at("name", "it is bad")),
            _ => Ok(()),
        }
    }
}

impl Handler for Recorder {
    fn on_events(&mut self, _: Instant, events: Vec<Event>, interest: &mut Interest) {
        self.0.send_modify(|(resources, _)| {
            for event in events {
                match event {
                    Event::Updated { ty, resource } => {
                        if ty == Cluster {
                            interest.subscribe(Endpoints, resource.name.clone());
                        }
                        resources.insert((ty, resource.name), resource.body);
                    }
                    Event::Removed { ty, name, .. } => {
                        if ty == Cluster {
                            interest.unsubscribe(Endpoints, name.clone());
                            resources.remove(&(Endpoints, name.clone()));
                        }
                        resources.remove(&(ty, name));
                    }
                    _ => {}
                }
            }
        });
    }

    fn on_connection(&mut self, connected: bool, _: &str) {
        self.0.send_modify(|(_, state)| *state = connected);
    }
}

/// Our client, on a thread of its own; it ends when this is dropped.
struct Client {
    state: watch::Receiver<State>,
    _commands: Commands,
}

impl Client {
    fn start(variant: Variant, address: &str) -> Result<Self> {
        let (state, states) = watch::channel(State::default());
        let node = Node {
            id: "interop".to_owned(),
            cluster: "tests".to_owned(),
            ..Node::default()
        };
        let mut subscriber = Subscriber::new(SubscriberConfig::new(node, variant));
        subscriber.subscribe_all(wait::now(), Cluster);
        let ms = Duration::from_millis;
        let reconnect = Reconnect::with_backoff(1, ms(20), ms(200)).map_err(|e| anyhow!("{e}"))?;
        let uri = format!("http://{address}");
        let stream = Stream::aggregated(variant, [uri.as_str()])?;
        let rng = Rng::from_entropy();
        let (driver, commands) = Driver::new(subscriber, Recorder(state), stream, reconnect, rng);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::spawn(move || drop(runtime.block_on(driver.run())));
        Ok(Self {
            state: states,
            _commands: commands,
        })
    }

    fn names(&self) -> Vec<String> {
        let state = self.state.borrow();
        state
            .0
            .keys()
            .map(|(ty, name)| format!("{ty} {name}"))
            .collect()
    }

    fn until(&self, wanted: &[&str]) -> Result<()> {
        let there = wait::until(Deadline::default(), || {
            (self.names() == wanted).then_some(())
        });
        there.with_context(|| format!("it has {:?} instead of {wanted:?}", self.names()))
    }

    fn disconnected(&self) -> Result<()> {
        let gone = || (!self.state.borrow().1).then_some(());
        wait::until(Deadline::default(), gone).context("it did not notice that the server went")
    }
}
