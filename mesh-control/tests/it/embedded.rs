//! The whole control plane in this process, with a client of our own.

use std::{net::SocketAddr, time::Instant};

use mesh_control::{Control, Settings, admin, serve};
use mesh_core::{Rng, stats::Registry as Stats};
use mesh_xds::{
    Accept, Event, Reconnect, Rejection, ResourceType, Subscriber, SubscriberConfig, Variant,
    transport::{Commands, Driver, Handler, Interest, Stream},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::{MESH, Slot, knowledge, told};

/// A client that takes all clusters but those of a name that it does not like.
struct Client {
    has: watch::Sender<Vec<String>>,
    dislikes: Slot<String>,
}

impl Accept for Client {
    fn accept(&mut self, _: ResourceType, name: &str, _: &bytes::Bytes) -> Result<(), Rejection> {
        if self.dislikes.with(|dislikes| dislikes == name) {
            return Err(Rejection::new("not to my taste"));
        }
        Ok(())
    }
}

impl Handler for Client {
    fn on_events(&mut self, _: Instant, events: Vec<Event>, _: &mut Interest) {
        self.has.send_modify(|has| {
            for event in events {
                match event {
                    Event::Updated { resource, .. } => has.push(resource.name),
                    Event::Removed { name, .. } => has.retain(|other| *other != name),
                    _ => {}
                }
            }
        });
    }
}

fn client(
    address: SocketAddr,
    cluster: &str,
    dislikes: Slot<String>,
) -> (watch::Receiver<Vec<String>>, Commands) {
    use envoy_types::pb::envoy::config::core::v3::Node;
    let node = Node {
        id: format!("{cluster}-1"),
        cluster: cluster.to_owned(),
        ..Node::default()
    };
    let variant = Variant::Delta;
    let mut subscriber = Subscriber::new(SubscriberConfig::new(node, variant));
    subscriber.subscribe_all(mesh_core::clock::now(), ResourceType::Cluster);
    let (has, seen) = watch::channel(Vec::new());
    let uri = format!("http://{address}");
    let stream = Stream::aggregated(variant, [uri.as_str()]).expect("a uri");
    let reconnect = Reconnect::new(1).expect("a server");
    let handler = Client { has, dislikes };
    let (driver, commands) = Driver::new(subscriber, handler, stream, reconnect, Rng::seeded(1));
    tokio::spawn(async move {
        driver.run().await;
    });
    (seen, commands)
}

async fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn proxies_are_served_and_their_state_is_shown() {
    let (news, registry) = told();
    let control =
        Control::start(Settings::default(), vec![registry], Stats::new()).expect("started");
    let bind = || TcpListener::bind("127.0.0.1:0");
    let (xds, pages) = (bind().await.expect("bound"), bind().await.expect("bound"));
    let (address, admin_address) = (
        xds.local_addr().expect("an address"),
        pages.local_addr().expect("an address"),
    );
    let serving = control.clone();
    tokio::spawn(async move { serve(&serving, xds, None, std::future::pending()).await });
    let router = admin::router(control.clone());
    tokio::spawn(async move { axum::serve(pages, router).await });
    let page = async |path: &str| ask(admin_address, "GET", path, "localhost").await;

    assert!(page("/ready").await.starts_with("HTTP/1.1 503"));
    news.send(Ok(knowledge(MESH))).expect("heard");
    control.published().await;
    assert!(page("/ready").await.starts_with("HTTP/1.1 200"));

    let dislikes = Slot::<String>::default();
    dislikes.with(|name| "users".clone_into(name));
    let (mut has, _commands) = client(address, "shop", dislikes.clone());
    let two = has
        .wait_for(|has| has.len() == 2)
        .await
        .expect("a client")
        .clone();
    assert_eq!(two, ["shop", "users-v2"]);
    let rejected = loop {
        let text = page("/proxies").await;
        if text.contains("shop-1 shop nack") {
            break text;
        }
        tokio::task::yield_now().await;
    };
    assert!(rejected.contains("cds users nack (rejected "), "{rejected}");
    assert!(rejected.contains("not to my taste"), "{rejected}");

    // It has changed its mind, and is asked again.
    dislikes.with(String::clear);
    let foreign = ask(admin_address, "POST", "/resync", "evil.test").await;
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    let asked = ask(admin_address, "POST", "/resync?node=shop-1", "localhost").await;
    assert!(
        asked.contains("1 streams are sent everything again"),
        "{asked}"
    );
    has.wait_for(|has| has.contains(&"users".to_owned()))
        .await
        .expect("a client");
    while !page("/proxies?format=json")
        .await
        .contains("\"state\":\"synced\"")
    {
        tokio::task::yield_now().await;
    }

    let services = page("/services").await;
    assert!(services.contains("127.0.0.1:8082 draining"), "{services}");
    let stats = page("/stats").await;
    assert!(stats.contains("control.connected_streams: 1"), "{stats}");
    assert!(stats.contains("control.update_success: 1"), "{stats}");
}

#[tokio::test]
async fn what_a_registry_says_wrong_is_shown_and_changes_nothing() {
    let (news, registry) = told();
    let control =
        Control::start(Settings::default(), vec![registry], Stats::new()).expect("started");
    news.send(Ok(knowledge(MESH))).expect("heard");
    control.published().await;
    let bad = MESH.replace(
        "num_retries: 2}",
        "num_retries: 2, retry_back_off: {base_interval: 2s, max_interval: 1s}}",
    );
    news.send(Ok(knowledge(&bad))).expect("heard");
    let mut status = control.status();
    let status = status
        .wait_for(|status| status.registries[0].fault.is_some())
        .await
        .expect("a status")
        .clone();
    assert_eq!(status.published.version, 1);
    let fault = status.registries[0].fault.clone().unwrap_or_default();
    assert!(fault.contains("mesh.yaml:4:114: "), "{fault}");
    let mut healed = control.status();
    news.send(Ok(knowledge(MESH))).expect("heard");
    healed
        .wait_for(|status| status.registries[0].fault.is_none())
        .await
        .expect("a status");
}
