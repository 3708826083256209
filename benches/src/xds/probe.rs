//! Who asks a proxy again and again, and notices when it answers otherwise; and who answers behind it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use mesh_core::clock;

/// How long a proxy may take to apply something.
const APPLIED_MAX: Duration = Duration::from_secs(120);
/// Between one request and the next: the proxy shall have its core for itself.
const PAUSE: Duration = Duration::from_millis(1);
/// Answers are short; a longer one is none of ours.
const ANSWER_BYTES_MAX: usize = 4_096;

/// Answers everything with its name, for as long as the process lives.
pub(super) fn upstream(name: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, name));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}",
        name.len()
    );
    let mut buffer = [0; ANSWER_BYTES_MAX];
    // A proxy sends a small request in one piece.
    while stream.read(&mut buffer)? > 0 {
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// One connection that is kept, or made again.
pub(super) struct Probe {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// How long each request took.
    pub(super) latencies: Vec<Duration>,
}

impl Probe {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            latencies: Vec::new(),
        }
    }

    /// Asks until the answer is `wanted`; how long that took since `since`.
    pub(super) fn until(
        &mut self,
        path: &str,
        wanted: &str,
        since: Instant,
        mut alive: impl FnMut() -> Result<()>,
    ) -> Result<Duration> {
        loop {
            let began = clock::now();
            let answer = self.ask(path);
            let now = clock::now();
            match answer {
                Ok(body) => {
                    self.latencies.push(now - began);
                    if body == wanted {
                        return Ok(now - since);
                    }
                }
                // It does not listen yet, or has ended this connection to replace its listener.
                Err(_) => self.stream = None,
            }
            alive()?;
            if now - since > APPLIED_MAX {
                bail!("{path} does not become {wanted:?} within {APPLIED_MAX:?}");
            }
            pause(PAUSE);
        }
    }

    fn ask(&mut self, path: &str) -> Result<String> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(APPLIED_MAX))?;
                stream
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: probe\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; ANSWER_BYTES_MAX];
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 || answer.len() > ANSWER_BYTES_MAX {
                bail!("no answer");
            }
            answer.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .context("an answer without a length")?;
            let length: usize = length.trim().parse()?;
            if body.len() >= length {
                let body = body.to_owned();
                if !head.contains("connection: close") {
                    self.stream = Some(stream);
                }
                return Ok(body);
            }
        }
    }
}

/// Does nothing for a while: what is measured happens elsewhere.
pub(super) fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

/// A runtime on a thread of its own.
pub(super) fn runtime(
    name: &str,
) -> Result<(
    tokio::runtime::Handle,
    tokio::sync::oneshot::Sender<()>,
    JoinHandle<()>,
)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let thread = thread.spawn(move || {
        let _ = runtime.block_on(stopped);
    })?;
    Ok((handle, stop, thread))
}
