use std::time::Instant;

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::uri::PathAndQuery;
use mesh_core::{Rng, clock};
use tokio::sync::mpsc;

use crate::{Reconnect, load::LoadReporter};

use super::{
    client::{Server, last_words, open_on, sleep_until},
    codec::ProtoCodec,
};

const PATH: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

/// How many reports wait for the connection. Who makes the next one waits; what happens meanwhile is in it.
const REPORTS_MAX: usize = 1;

/// Keeps one stream of load reports to a control plane, for ever. Its owner runs it on a task of its own.
#[derive(Debug)]
pub struct LoadDriver {
    node: Node,
    servers: Vec<Server>,
    reconnect: Reconnect,
    rng: Rng,
    reporter: LoadReporter,
}

impl LoadDriver {
    /// Reports as `node` to the first of these servers that answers; `reconnect` counts as many.
    #[must_use]
    pub fn new(node: Node, servers: Vec<Server>, reconnect: Reconnect, rng: Rng) -> Self {
        Self {
            node,
            servers,
            reconnect,
            rng,
            reporter: LoadReporter::new(),
        }
    }

    /// Connects, and again whenever the stream breaks. `collect` is asked once at the start, and then right
    /// before each report, for what has happened since.
    pub async fn run(mut self, mut collect: impl FnMut(Instant, &mut LoadReporter) + Send) {
        collect(clock::now(), &mut self.reporter);
        loop {
            let reason = self.connected(&mut collect).await;
            tracing::debug!(%reason, "the stream of load reports ended");
            self.reporter.on_disconnected();
            let wait = self.reconnect.on_failure(self.rng.next_u64());
            tokio::time::sleep(wait).await;
        }
    }

    /// One stream, from its opening to its end.
    async fn connected(
        &mut self,
        collect: &mut (impl FnMut(Instant, &mut LoadReporter) + Send),
    ) -> String {
        let Some(server) = self.servers.get(self.reconnect.server()).cloned() else {
            return "there is no such server".to_owned();
        };
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        // It is the first.
        let _ = reports.try_send(LoadReporter::hello(self.node.clone()));
        let codec = ProtoCodec::<LoadStatsRequest, LoadStatsResponse>::default();
        let call = open_on(server, PathAndQuery::from_static(PATH), codec, receiver);
        let mut responses = std::pin::pin!(stream::once(call).try_flatten());
        loop {
            let due = self.reporter.next_deadline();
            tokio::select! {
                response = responses.next() => match response {
                    Some(Ok(response)) => {
                        self.reconnect.on_response();
                        self.reporter.on_response(clock::now(), &response);
                    }
                    end => return last_words(end),
                },
                permit = due_and_room(due, &reports) => {
                    let Ok(permit) = permit else {
                        return last_words(responses.next().await);
                    };
                    let now = clock::now();
                    collect(now, &mut self.reporter);
                    if let Some(report) = self.reporter.poll_report(now) {
                        permit.send(report);
                    }
                }
            }
        }
    }
}

/// Waits for the next report to be due, and for the connection to take it.
async fn due_and_room(
    due: Option<Instant>,
    reports: &mpsc::Sender<LoadStatsRequest>,
) -> Result<mpsc::Permit<'_, LoadStatsRequest>, mpsc::error::SendError<()>> {
    sleep_until(due).await;
    reports.reserve().await
}
