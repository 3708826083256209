//! One arm of one scenario: what its script can do, and the facts that come out.

use std::net::SocketAddr;
use std::ops::Index;

use anyhow::{Context, Result, ensure};
use e2e::admin::Stats;
use e2e::client::{Connection, Response};
use e2e::http2::Client;
use e2e::process::Proxy;
use e2e::upstream::{DeadPort, Upstream};
use e2e::wait::{Deadline, until};

use crate::ask::{Ask, get};
use crate::config::{self, MARK};
use crate::observe::{self, Facts, Names};

/// Sent to see whether a connection lives; left out of every fact but that.
const PROBE: &[u8] = b"GET /__probe HTTP/1.1\r\nHost: probe.example\r\n\r\n";

/// The upstreams of a group of scenarios: both arms use the same.
pub(crate) struct Upstreams {
    live: Vec<Upstream>,
    dead: Vec<(String, DeadPort)>,
}

impl Upstreams {
    /// Starts whatever the placeholders of a bootstrap name.
    pub(crate) fn start(yaml: &str) -> Result<Self> {
        let mut upstreams = Self {
            live: Vec::new(),
            dead: Vec::new(),
        };
        for name in config::placeholders(yaml) {
            if name.starts_with("dead") {
                upstreams.dead.push((name, DeadPort::refusing()?));
            } else if name.starts_with("silent") {
                upstreams.dead.push((name, DeadPort::silent()?));
            } else {
                upstreams.live.push(Upstream::start(&name)?);
            }
        }
        Ok(upstreams)
    }

    /// Puts ports where the placeholders are.
    pub(crate) fn render(&self, yaml: &str) -> String {
        self.addresses().fold(yaml.to_owned(), |yaml, (name, at)| {
            yaml.replace(&format!("{{{{{name}}}}}"), &at.port().to_string())
        })
    }

    /// For another proxy: whatever the last one left behind goes.
    pub(crate) fn start_afresh(&self) {
        self.live.iter().for_each(Upstream::start_afresh);
    }

    pub(crate) fn reset(&self) {
        self.live.iter().for_each(Upstream::reset);
    }

    fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let live = self.live.iter().map(|u| (u.name(), u.address()));
        let dead = self.dead.iter().map(|(n, d)| (n.as_str(), d.address()));
        live.chain(dead)
    }
}

impl Index<&str> for Upstreams {
    type Output = Upstream;

    fn index(&self, name: &str) -> &Upstream {
        let found = self.live.iter().find(|upstream| upstream.name() == name);
        found.unwrap_or_else(|| panic!("the scenario's bootstrap names no upstream {name}"))
    }
}

/// A request that was sent and not yet answered.
pub(crate) struct InFlight {
    connection: Connection,
    ask: Ask,
}

/// One arm of one scenario.
pub(crate) struct Run<'a> {
    pub(crate) up: &'a Upstreams,
    proxy: &'a Proxy,
    names: Names,
    before: Stats,
    marks: &'a mut usize,
    facts: Facts,
}

impl<'a> Run<'a> {
    pub(crate) fn new(up: &'a Upstreams, proxy: &'a Proxy, marks: &'a mut usize) -> Result<Self> {
        up.reset();
        let replace = up
            .addresses()
            .map(|(name, address)| (address.to_string(), format!("<{name}>")))
            .collect();
        let mut run = Self {
            up,
            proxy,
            names: Names {
                replace,
                hosts: true,
            },
            before: Stats::new(),
            marks,
            facts: Facts::default(),
        };
        // What an earlier scenario did not look at is not this one's.
        run.log_lines()?;
        run.before = proxy.admin().stats()?;
        Ok(run)
    }

    pub(crate) fn into_facts(self) -> Facts {
        self.facts
    }

    /// Where a listener listens.
    pub(crate) fn address(&self, listener: &str) -> Result<SocketAddr> {
        self.proxy.listener(listener)
    }

    /// Opens a connection to a listener.
    pub(crate) fn open(&self, listener: &str) -> Result<Connection> {
        Connection::open(self.proxy.listener(listener)?)
    }

    /// Sends a request on a new connection, reads its answer and notes everything about it.
    pub(crate) fn send(&mut self, ask: Ask) -> Result<Response> {
        let sent = self.start(ask)?;
        Ok(self.finish(sent)?.0)
    }

    /// The same on a connection that is there already.
    pub(crate) fn send_on(&mut self, connection: Connection, ask: Ask) -> Result<Connection> {
        let sent = self.start_on(connection, ask);
        Ok(self.finish(sent)?.1)
    }

    /// Sends a request on a new connection and reads nothing.
    pub(crate) fn start(&mut self, ask: Ask) -> Result<InFlight> {
        Ok(self.start_on(self.open(&ask.listener)?, ask))
    }

    fn start_on(&self, mut connection: Connection, ask: Ask) -> InFlight {
        connection.send(&ask.bytes());
        InFlight { connection, ask }
    }

    /// Reads the answers to what was sent and notes everything about them. The first answer and
    /// the connection are handed back.
    pub(crate) fn finish(&mut self, sent: InFlight) -> Result<(Response, Connection)> {
        let InFlight {
            mut connection,
            ask,
        } = sent;
        let step = self.step(&ask.label);
        self.names.hosts = ask.hosts;
        let mut first = None;
        for number in 0..ask.responses() {
            let response = connection.response(ask.heads);
            let prefix = match number {
                0 => step.clone(),
                _ => format!("{step}.response{}", number + 1),
            };
            observe::response(
                &mut self.facts,
                &prefix,
                &response,
                &self.names,
                ask.ordered,
            );
            self.judge(&prefix, &ask, number, &response);
            let missing = response.missing.is_some();
            first.get_or_insert(response);
            if missing {
                break;
            }
        }
        if ask.fate {
            let kept = connection.is_kept(PROBE);
            let fate = if kept { "kept" } else { "closed" };
            self.facts.add(format!("{step}.connection"), fate);
        }
        self.settle_as(&step, &ask)?;
        Ok((first.unwrap_or_default(), connection))
    }

    /// Opens a connection in HTTP/2 to a listener, with settings of the client.
    pub(crate) fn open_http2(&self, listener: &str, settings: &[(u16, u32)]) -> Result<Client> {
        Client::open(self.proxy.listener(listener)?, settings)
    }

    /// Sends a request on a new connection in HTTP/2, reads its answer and notes everything about it.
    pub(crate) fn send_http2(&mut self, ask: Ask) -> Result<Response> {
        let mut client = self.open_http2(&ask.listener, &[])?;
        self.send_http2_on(&mut client, ask)
    }

    /// The same on a connection that is there already.
    pub(crate) fn send_http2_on(&mut self, client: &mut Client, ask: Ask) -> Result<Response> {
        let stream = client.send(&ask.http2());
        self.finish_http2(client, stream, &ask)
    }

    /// Reads the answer on a stream, and notes everything about it.
    pub(crate) fn finish_http2(
        &mut self,
        client: &mut Client,
        stream: u32,
        ask: &Ask,
    ) -> Result<Response> {
        let step = self.step(&format!("{} in HTTP/2", ask.label));
        self.names.hosts = ask.hosts;
        let response = client.response(stream);
        observe::response(&mut self.facts, &step, &response, &self.names, ask.ordered);
        self.judge(&step, ask, 0, &response);
        self.settle_as(&step, ask)?;
        Ok(response)
    }

    /// Starts a step of another kind than a request.
    pub(crate) fn step(&mut self, label: &str) -> String {
        self.facts.steps.push(label.to_owned());
        self.facts.steps.len().to_string()
    }

    fn judge(&mut self, prefix: &str, ask: &Ask, number: usize, response: &Response) {
        let status = response.status;
        if let Some(expected) = ask.expect.get(number)
            && *expected != status
        {
            let label = &ask.label;
            self.problem(format!(
                "{prefix} ({label}): expected {expected}, got {status}"
            ));
        }
    }

    /// Notes the log lines and the requests that upstreams have seen since the last step.
    pub(crate) fn settle(&mut self, step: &str) -> Result<()> {
        self.settle_as(step, &get("/"))
    }

    fn settle_as(&mut self, step: &str, ask: &Ask) -> Result<()> {
        let lines = self.log_lines()?;
        let lines = lines.iter().filter(|line| !line.contains("/__probe\t"));
        let (own, lines): (Vec<&String>, Vec<&String>) =
            lines.partition(|line| observe::is_own(line));
        for (number, line) in own.into_iter().enumerate() {
            observe::own_log(
                &mut self.facts,
                &format!("{step}.line{}", number + 1),
                line,
                &self.names,
            );
        }
        for (number, line) in lines.into_iter().enumerate() {
            let prefix = match number {
                0 => format!("{step}.log"),
                _ => format!("{step}.log{}", number + 1),
            };
            observe::log(&mut self.facts, &prefix, line, &self.names);
        }
        let mut attempts = 0;
        // Checks come when they come.
        let asked = |upstream: &&Upstream| !upstream.name().starts_with("check");
        for upstream in self.up.live.iter().filter(asked) {
            for request in upstream.take_requests() {
                let part = ask.whole && !request.complete;
                if part || request.head.start.contains("__probe") {
                    continue;
                }
                attempts += 1;
                let prefix = format!("{step}.attempt{attempts}");
                let host = upstream.name();
                let names = &self.names;
                observe::attempt(&mut self.facts, &prefix, host, &request, names, ask.ordered);
            }
        }
        self.facts
            .add(format!("{step}.attempts"), attempts.to_string());
        Ok(())
    }

    /// Log lines since the last call: a request to the marking listener, whose line comes after
    /// all of them, says when they are complete.
    fn log_lines(&mut self) -> Result<Vec<String>> {
        *self.marks += 1;
        let path = format!("/__mark/{}\t", self.marks);
        let request = format!(
            "GET /__mark/{} HTTP/1.1\r\nHost: mark\r\nConnection: close\r\n\r\n",
            self.marks
        );
        let mut connection = self.open(MARK)?;
        connection.send(request.as_bytes());
        ensure!(
            connection.response(false).status == 200,
            "the mark was refused"
        );
        let lines = self
            .proxy
            .stdout()
            .take_through(|line| line.contains(&path))
            .context("the access log did not show the mark")?;
        Ok(lines
            .into_iter()
            .filter(|line| line.starts_with("LOG\t") || observe::is_own(line))
            .filter(|line| !line.contains("/__mark/"))
            .collect())
    }

    /// Reads answers and notes only how many there were of each status, for requests whose
    /// spread matters and not their details.
    pub(crate) fn quietly(&mut self, ask: &Ask) -> Result<Response> {
        let mut connection = self.open(&ask.listener)?;
        connection.send(&ask.bytes());
        Ok(connection.response(ask.heads))
    }

    /// Waits for the answer to what was started, and notes nothing: how far the others of its kind are is chance.
    pub(crate) fn finish_quietly(sent: InFlight) -> Response {
        let InFlight {
            mut connection,
            ask,
        } = sent;
        connection.response(ask.heads)
    }

    /// How many requests each of these upstreams saw since the last step.
    pub(crate) fn spread(&mut self, names: &[&str]) -> Result<Vec<usize>> {
        let seen = |name: &&str| self.up[name].take_requests().len();
        let spread = names.iter().map(seen).collect();
        self.forget()?;
        Ok(spread)
    }

    /// Notes a fact of the scenario's own.
    pub(crate) fn note(&mut self, name: &str, value: impl Into<String>) {
        self.facts.add(name, value);
    }

    /// Notes that the scenario does not test what it means to.
    pub(crate) fn problem(&mut self, problem: impl Into<String>) {
        self.facts.problems.push(problem.into());
    }

    /// Notes by how much counters have grown since the scenario began.
    pub(crate) fn counters(&mut self, names: &[&str]) -> Result<()> {
        let stats = self.proxy.admin().stats()?;
        for name in names {
            let delta = value(&stats, name) - value(&self.before, name);
            self.facts.add(format!("stat.{name}"), format!("{delta:+}"));
        }
        Ok(())
    }

    /// Notes what gauges show now.
    pub(crate) fn gauges(&mut self, names: &[&str]) -> Result<()> {
        let stats = self.proxy.admin().stats()?;
        for name in names {
            let now = value(&stats, name).to_string();
            self.facts.add(format!("stat.{name}"), now);
        }
        Ok(())
    }

    /// Notes what `/clusters` says of the health of a cluster's hosts.
    pub(crate) fn health(&mut self, cluster: &str) -> Result<()> {
        let text = self.proxy.admin().text("/clusters")?;
        let rows = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(cluster)?.strip_prefix("::")?;
            rest.split_once("::health_flags::")
        });
        for (host, flags) in rows {
            let host = self.names.apply(host);
            self.facts.add(format!("health.{cluster}.{host}"), flags);
        }
        Ok(())
    }

    /// Waits until a file that the proxy writes has a line with this, and hands back all lines.
    pub(crate) fn await_line(&self, file: &str, part: &str) -> Result<Vec<String>> {
        let path = self.proxy.folder().join(file);
        let lines = || -> Option<Vec<String>> {
            let text = std::fs::read_to_string(&path).ok()?;
            Some(text.lines().map(str::to_owned).collect())
        };
        until(Deadline::default(), || {
            lines().filter(|lines| lines.iter().any(|line| line.contains(part)))
        })
        .with_context(|| format!("{file} has no line with {part}: {:?}", lines()))
    }

    /// Asks the admin, and notes status and body.
    pub(crate) fn admin(&mut self, method: &str, path: &str) -> Result<()> {
        let step = self.step(&format!("{method} {path}"));
        let admin = self.proxy.admin();
        let response = match method {
            "POST" => admin.post(path),
            _ => admin.get(path),
        }?;
        let body = String::from_utf8_lossy(&response.body.data).into_owned();
        self.note(&format!("{step}.status"), response.status.to_string());
        self.note(&format!("{step}.body"), self.names.apply(&body));
        Ok(())
    }

    /// The body of an admin page that must answer 200.
    pub(crate) fn page(&self, path: &str) -> Result<String> {
        self.proxy.admin().text(path)
    }

    /// The same as JSON.
    pub(crate) fn json(&self, path: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.names.apply(&self.page(path)?))?)
    }

    /// Waits until a page says so.
    pub(crate) fn await_page(&self, path: &str, enough: impl Fn(&str) -> bool) -> Result<()> {
        until(Deadline::default(), || {
            enough(&self.page(path).ok()?).then_some(())
        })
        .with_context(|| format!("{path} did not say what it must"))
    }

    /// Waits until a counter has grown by so much since the scenario began.
    pub(crate) fn await_counter(&self, name: &str, delta: i64) -> Result<()> {
        let target = value(&self.before, name) + delta;
        self.await_stat(name, |now| now >= target)
            .with_context(|| format!("counter {name} did not grow by {delta}"))
    }

    /// Waits until a gauge shows this.
    pub(crate) fn await_gauge(&self, name: &str, target: i64) -> Result<()> {
        self.await_stat(name, |now| now == target)
            .with_context(|| format!("gauge {name} did not become {target}"))
    }

    fn await_stat(&self, name: &str, enough: impl Fn(i64) -> bool) -> Result<()> {
        let admin = self.proxy.admin();
        until(Deadline::default(), || {
            enough(admin.stat(name).ok()?).then_some(())
        })
        .with_context(|| format!("it is {:?}", admin.stat(name)))
    }

    /// Sends requests, and notes nothing about them, until one gets this status.
    pub(crate) fn await_status(&mut self, ask: &Ask, status: u16) -> Result<()> {
        until(Deadline::default(), || {
            let response = self.quietly(ask).ok()?;
            (response.status == status).then_some(())
        })
        .with_context(|| format!("{} did not answer {status}", ask.label))?;
        self.forget()
    }

    /// Leaves out what happened since the last step.
    fn forget(&mut self) -> Result<()> {
        self.log_lines()?;
        for upstream in &self.up.live {
            let _ = upstream.take_requests();
        }
        Ok(())
    }

    /// Waits until an upstream has seen so many requests since the scenario began.
    pub(crate) fn await_requests(&self, upstream: &str, requests: usize) -> Result<()> {
        let reached = self.up[upstream].wait(|seen| seen.requests >= requests);
        ensure!(reached, "{upstream} did not get {requests} requests");
        Ok(())
    }

    /// All counters and gauges that changed since the scenario began, for people who write one.
    pub(crate) fn changed(&self) -> Result<Vec<String>> {
        let stats = self.proxy.admin().stats()?;
        Ok(stats
            .iter()
            .filter(|(name, now)| value(&self.before, name) != **now)
            .filter(|(name, _)| !name.contains(".mark.") && !name.starts_with("server."))
            .map(|(name, now)| format!("{name}: {} -> {now}", value(&self.before, name)))
            .collect())
    }
}

fn value(stats: &Stats, name: &str) -> i64 {
    stats.get(name).copied().unwrap_or(0)
}
