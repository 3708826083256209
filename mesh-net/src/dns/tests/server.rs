//! A name server on loopback that says what a test wants.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

pub(super) const A: u16 = 1;
pub(super) const AAAA: u16 = 28;
const CNAME: u16 = 5;

/// What the server does with a question.
#[derive(Clone)]
pub(super) enum Reply {
    /// These records, of which only those of the asked type are sent, after a CNAME if one is named.
    Records {
        cname_ttl: Option<u32>,
        addresses: Vec<(std::net::IpAddr, u32)>,
    },
    /// A response code and nothing else.
    Code(u8),
    Silence,
}

pub(super) const NXDOMAIN: Reply = Reply::Code(3);
pub(super) const SERVFAIL: Reply = Reply::Code(2);

impl Reply {
    pub(super) fn addresses(ttl: u32, addresses: &[&str]) -> Self {
        Self::Records {
            cname_ttl: None,
            addresses: addresses
                .iter()
                .map(|text| (text.parse().unwrap(), ttl))
                .collect(),
        }
    }
}

struct State {
    reply: Reply,
    asked: Vec<u16>,
    tcp_connections: u32,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

pub(super) struct Server {
    pub(super) address: SocketAddr,
    shared: Shared,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    pub(super) async fn start(reply: Reply) -> Self {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let shared = Shared(Arc::new(Mutex::new(State {
            reply,
            asked: Vec::new(),
            tcp_connections: 0,
        })));
        let tasks = [
            tokio::spawn(serve_udp(udp, shared.clone())),
            tokio::spawn(serve_tcp(tcp, shared.clone())),
        ];
        Self {
            address,
            shared,
            tasks,
        }
    }

    pub(super) fn now_replies(&self, reply: Reply) {
        self.shared.0.lock().unwrap().reply = reply;
    }

    /// The types that were asked for since the last call.
    pub(super) fn asked(&self) -> Vec<u16> {
        std::mem::take(&mut self.shared.0.lock().unwrap().asked)
    }

    pub(super) fn tcp_connections(&self) -> u32 {
        self.shared.0.lock().unwrap().tcp_connections
    }
}

/// Two sockets on one port, which the kernel chooses.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = udp.local_addr().unwrap().port();
        if let Ok(tcp) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(udp: UdpSocket, shared: Shared) {
    let mut buffer = [0; 4096];
    while let Ok((n, peer)) = udp.recv_from(&mut buffer).await {
        let question = &buffer[..n];
        if let Some(answer) = shared.answer(question) {
            // Too large: say so, and be asked again by TCP.
            let answer = if answer.len() > 1232 {
                message(question, 0x0200, 0, &[], 0)
            } else {
                answer
            };
            udp.send_to(&answer, peer).await.unwrap();
        }
    }
}

async fn serve_tcp(tcp: TcpListener, shared: Shared) {
    while let Ok((mut stream, _)) = tcp.accept().await {
        shared.0.lock().unwrap().tcp_connections += 1;
        let shared = shared.clone();
        tokio::spawn(async move {
            while let Ok(len) = stream.read_u16().await {
                let mut question = vec![0; len.into()];
                stream.read_exact(&mut question).await.unwrap();
                if let Some(answer) = shared.answer(&question) {
                    let len = u16::try_from(answer.len()).unwrap();
                    stream.write_u16(len).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        });
    }
}

impl Shared {
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let end = question_end(question);
        let kind = u16::from_be_bytes([question[end - 4], question[end - 3]]);
        let mut shared = self.0.lock().unwrap();
        shared.asked.push(kind);
        match &shared.reply {
            Reply::Silence => None,
            Reply::Code(code) => Some(message(question, 0, *code, &[], 0)),
            Reply::Records {
                cname_ttl,
                addresses,
            } => {
                let (mut records, mut count) = (Vec::new(), 0);
                // Names are pointers: to the question, or to the target within the first record.
                let mut owner = 0xc00c;
                if let Some(ttl) = cname_ttl {
                    record(&mut records, owner, CNAME, *ttl, b"\x06target\x00");
                    owner = 0xc000 | u16::try_from(end + 12).unwrap();
                    count += 1;
                }
                for (address, ttl) in addresses {
                    match address {
                        std::net::IpAddr::V4(v4) if kind == A => {
                            record(&mut records, owner, A, *ttl, &v4.octets());
                        }
                        std::net::IpAddr::V6(v6) if kind == AAAA => {
                            record(&mut records, owner, AAAA, *ttl, &v6.octets());
                        }
                        _ => continue,
                    }
                    count += 1;
                }
                Some(message(question, 0, 0, &records, count))
            }
        }
    }
}

/// Behind the name, type and class of the one question.
fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

fn record(out: &mut Vec<u8>, owner: u16, kind: u16, ttl: u32, data: &[u8]) {
    out.extend(owner.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(1u16.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
}

fn message(question: &[u8], flags: u16, code: u8, records: &[u8], count: u16) -> Vec<u8> {
    let mut out = question[..2].to_vec();
    // An answer; recursion was desired and is available.
    out.extend((0x8180 | flags | u16::from(code)).to_be_bytes());
    for count in [1, count, 0, 0] {
        out.extend(count.to_be_bytes());
    }
    out.extend(&question[12..question_end(question)]);
    out.extend(records);
    out
}
