//! Talks to an admin listener.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use crate::client::{Connection, Response};

/// Counters and gauges by name.
pub type Stats = BTreeMap<String, i64>;

/// The admin listener of a running proxy.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    address: SocketAddr,
}

impl Admin {
    /// An admin listener at this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        self.ask("GET", path)
    }

    /// `POST path`.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(&self, path: &str) -> Result<Response> {
        self.ask("POST", path)
    }

    /// The body of a page that must answer 200.
    ///
    /// # Errors
    /// When it answers anything else.
    pub fn text(&self, path: &str) -> Result<String> {
        let response = self.get(path)?;
        if response.status != 200 {
            bail!("{path} answered {}", response.head.start);
        }
        Ok(String::from_utf8_lossy(&response.body.data).into_owned())
    }

    /// Whether `/ready` says so.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.get("/ready").is_ok_and(|r| r.status == 200)
    }

    /// All counters and gauges; histograms and text are left out.
    ///
    /// # Errors
    /// When `/stats` does not answer.
    pub fn stats(&self) -> Result<Stats> {
        Ok(self
            .text("/stats")?
            .lines()
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(": ")?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    /// One counter or gauge; 0 when it does not exist yet.
    ///
    /// # Errors
    /// When `/stats` does not answer.
    pub fn stat(&self, name: &str) -> Result<i64> {
        Ok(self.stats()?.get(name).copied().unwrap_or(0))
    }

    /// The real addresses of listeners by name.
    ///
    /// # Errors
    /// When `/listeners` does not answer.
    pub fn listeners(&self) -> Result<BTreeMap<String, SocketAddr>> {
        Ok(self
            .text("/listeners")?
            .lines()
            .filter_map(|line| {
                let (name, address) = line.split_once("::")?;
                Some((name.to_owned(), address.parse().ok()?))
            })
            .collect())
    }

    fn ask(&self, method: &str, path: &str) -> Result<Response> {
        let mut connection = Connection::open(self.address)?;
        let host = self.address;
        connection.send(
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        let response = connection.response(false);
        match response.missing {
            None => Ok(response),
            Some(end) => Err(anyhow::anyhow!("{end:?}")).context(format!("{method} {path}")),
        }
    }
}
