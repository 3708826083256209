//! Asking over a bare connection.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use mesh_balance::health::{Failure, FailureKind, Passed};
use mesh_config::model::TcpProbe;
use mesh_net::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Ask, Target};

/// An answer that has not matched after so many bytes never will: the check fails.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Asks one endpoint, over one connection if it answers there.
pub(super) struct TcpAsking {
    probe: TcpProbe,
    target: Target,
    kept: Mutex<Option<Stream>>,
}

impl Ask for TcpAsking {
    async fn ask(&self) -> Result<Passed, Failure> {
        match self.exchange().await {
            Ok(()) => Ok(Passed::default()),
            Err(_) => Err(Failure::new(FailureKind::Network)),
        }
    }
}

impl TcpAsking {
    pub(super) fn new(probe: &TcpProbe, target: Target) -> Self {
        Self {
            probe: probe.clone(),
            target,
            kept: Mutex::default(),
        }
    }

    async fn exchange(&self) -> io::Result<()> {
        let kept = { self.kept.lock().unwrap_or_else(PoisonError::into_inner) }.take();
        let mut stream = match kept.filter(Stream::is_quiet) {
            Some(kept) => kept,
            None => self.target.connect().await.map_err(io::Error::other)?,
        };
        // As in Envoy: where no answer is expected, connecting was all.
        if self.probe.receive.is_empty() {
            return Ok(());
        }
        stream.write_all(&self.probe.send).await?;
        let mut answer = Vec::new();
        while !self.probe.receive.matches(&answer) {
            if answer.len() >= ANSWER_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if self.target.reuse {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        }
        Ok(())
    }
}
