//! The name server of a container: it answers at 127.0.0.11 in the
//! container's own namespace, knows who else is on its networks, and asks the
//! host's name servers about everything else.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use super::{
    names, namespace,
    nft::{self, Chain, Hook, Rule},
    state::Known,
};
use crate::{Error, Result};

/// Where docker's clients expect it.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const PORT: u16 = 53;
const TABLE: &str = "davit-dns";
/// Addresses change with each start.
const TTL_SECONDS: u32 = 5;
/// Longest wait for another name server.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Longest silence on a TCP connection.
const IDLE: Duration = Duration::from_secs(10);
/// Questions that are passed on at once for one container.
const QUESTIONS: usize = 100;
const LARGEST: usize = 65535;

/// A server; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server(Vec<JoinHandle<()>>);

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// What a server answers from.
#[derive(Debug)]
struct Desk {
    container: String,
    known: Arc<Mutex<Known>>,
    /// Name servers that the container was given; the host's when empty.
    servers: Vec<IpAddr>,
    questions: Semaphore,
}

/// Starts the server of a container in its namespace. Blocks for a moment;
/// needs a tokio runtime.
pub(crate) fn start(
    path: &Path,
    container: &str,
    servers: Vec<IpAddr>,
    known: Arc<Mutex<Known>>,
) -> Result<Server> {
    let (udp, tcp) = namespace::enter(path, || {
        let what = "cannot open the name server's sockets";
        let udp = UdpSocket::bind((ADDRESS, 0)).map_err(|error| Error::io(what, error))?;
        let tcp = TcpListener::bind((ADDRESS, 0)).map_err(|error| Error::io(what, error))?;
        let port = |address: std::io::Result<SocketAddr>| {
            address
                .map(|address| address.port())
                .map_err(|error| Error::io(what, error))
        };
        // Port 53 stays the container's own: rules lead from there to here.
        let lead = |protocol: u8, port: u16| {
            Rule::new()
                .to(ADDRESS.into(), 32)
                .port(protocol, PORT)
                .redirect(ADDRESS.into(), port)
        };
        let rules = vec![
            lead(17, port(udp.local_addr())?),
            lead(6, port(tcp.local_addr())?),
        ];
        nft::replace(
            TABLE,
            vec![Chain {
                name: "output",
                hook: Some(Hook::OUTPUT),
                rules,
            }],
        )?;
        let asynchronous = udp
            .set_nonblocking(true)
            .and_then(|()| tcp.set_nonblocking(true));
        asynchronous.map_err(|error| Error::io(what, error))?;
        Ok((udp, tcp))
    })?;
    let failed = |error| Error::io("cannot serve names", error);
    let udp = tokio::net::UdpSocket::from_std(udp).map_err(failed)?;
    let tcp = tokio::net::TcpListener::from_std(tcp).map_err(failed)?;
    let desk = Arc::new(Desk {
        container: container.to_owned(),
        known,
        servers,
        questions: Semaphore::new(QUESTIONS),
    });
    Ok(Server(vec![
        tokio::spawn(serve_udp(Arc::new(udp), Arc::clone(&desk))),
        tokio::spawn(serve_tcp(tcp, desk)),
    ]))
}

async fn serve_udp(socket: Arc<tokio::net::UdpSocket>, desk: Arc<Desk>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // An answer that nobody took; the socket goes on.
            tokio::task::yield_now().await;
            continue;
        };
        let question = buffer.get(..length).unwrap_or_default().to_vec();
        if let Some(answer) = desk.known_answer(&question) {
            let _ = socket.send_to(&answer, from).await;
            continue;
        }
        let (socket, desk) = (Arc::clone(&socket), Arc::clone(&desk));
        tokio::spawn(async move {
            if let Some(answer) = desk.ask(&question, false).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn serve_tcp(listener: tokio::net::TcpListener, desk: Arc<Desk>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let _ = converse(stream, &desk).await;
        });
    }
}

async fn converse(mut stream: tokio::net::TcpStream, desk: &Desk) -> std::io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(length)];
        timeout(IDLE, stream.read_exact(&mut question)).await??;
        let answer = match desk.known_answer(&question) {
            Some(answer) => Some(answer),
            None => desk.ask(&question, true).await,
        };
        let Some(answer) = answer else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).unwrap_or(0);
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

impl Desk {
    /// The answer to a question about a container on the same networks; None
    /// when somebody else has to be asked.
    fn known_answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let request = Message::from_vec(question).ok()?;
        let query = request.queries.first()?;
        if query.query_class() != DNSClass::IN
            || request.metadata.message_type != MessageType::Query
        {
            return None;
        }
        let name = query.name();
        let text = name.to_utf8();
        let text = text.trim_end_matches('.');
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let records: Vec<RData> = match query.query_type() {
            RecordType::PTR => {
                let address = name.parse_arpa_name().ok()?.addr();
                let name = names::name(&known, &self.container, address)?;
                vec![RData::PTR(PTR(Name::from_utf8(format!("{name}.")).ok()?))]
            }
            kind => {
                // A name that is known has no records of other kinds.
                let addresses = names::addresses(&known, &self.container, text)?;
                let fitting = addresses
                    .into_iter()
                    .filter_map(|address| match (kind, address) {
                        (RecordType::A, IpAddr::V4(address)) => Some(RData::A(A(address))),
                        (RecordType::AAAA, IpAddr::V6(address)) => Some(RData::AAAA(AAAA(address))),
                        _ => None,
                    });
                fitting.collect()
            }
        };
        drop(known);
        let mut answer = reply(&request, ResponseCode::NoError);
        for record in records {
            answer.add_answer(Record::from_rdata(name.clone(), TTL_SECONDS, record));
        }
        answer.to_vec().ok()
    }

    /// Passes a question on; an answer that there was nobody to ask when
    /// nobody answers. None for what is no question.
    async fn ask(&self, question: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        let request = Message::from_vec(question).ok()?;
        let _slot = self.questions.acquire().await.ok()?;
        let way_out = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            names::has_way_out(&known, &self.container)
        };
        let mut servers = Vec::new();
        if way_out {
            servers.clone_from(&self.servers);
            if servers.is_empty() {
                servers = host_servers().await;
            }
        }
        for server in servers {
            let answer = if by_tcp {
                timeout(ANSWER_WITHIN, ask_by_tcp(server, question)).await
            } else {
                timeout(ANSWER_WITHIN, ask_by_udp(server, question)).await
            };
            if let Ok(Ok(answer)) = answer {
                return Some(answer);
            }
        }
        reply(&request, ResponseCode::ServFail).to_vec().ok()
    }
}

fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_desired = request.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.add_queries(request.queries.iter().cloned());
    answer
}

async fn host_servers() -> Vec<IpAddr> {
    let text = tokio::fs::read_to_string("/etc/resolv.conf")
        .await
        .unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().split('%').next()?.parse().ok())
        .collect()
}

async fn ask_by_udp(server: IpAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
    socket.connect((server, PORT)).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        // Something that is not the answer to this question is left aside.
        if answer.get(..2) == question.get(..2) {
            return Ok(answer.to_vec());
        }
    }
}

async fn ask_by_tcp(server: IpAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = tokio::net::TcpStream::connect((server, PORT)).await?;
    stream
        .write_u16(u16::try_from(question.len()).unwrap_or(0))
        .await?;
    stream.write_all(question).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
