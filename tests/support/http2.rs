//! A client of HTTP/2.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response, Version};
use rustls::ClientConfig;
use rustls::version::TLS13;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Authority, Call, PATIENCE, Reply, header_of, tls_client};

/// A connection of HTTP/2.
pub struct Http2 {
    pub sender: SendRequest<Bytes>,
    pub driver: JoinHandle<Result<(), h2::Error>>,
    pause: Arc<Notify>,
}

/// A TLS connection to `addr` that offers `protocols`.
pub async fn tls(
    authority: &Authority,
    addr: SocketAddr,
    protocols: &[&str],
) -> TlsStream<TcpStream> {
    let config = tls_client(&authority.ca(), None, &[&TLS13]);
    tls_with(config, addr, b"", protocols).await
}

/// The same by `config`, with `header` in front of it.
async fn tls_with(
    mut config: ClientConfig,
    addr: SocketAddr,
    header: &[u8],
    protocols: &[&str],
) -> TlsStream<TcpStream> {
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(header).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    connector.connect(name, stream).await.unwrap()
}

impl Http2 {
    pub async fn connect(authority: &Authority, addr: SocketAddr) -> Self {
        Self::connect_as(authority, addr, &Builder::new()).await
    }

    pub async fn connect_as(authority: &Authority, addr: SocketAddr, builder: &Builder) -> Self {
        Self::over(tls(authority, addr, &["h2", "http/1.1"]).await, builder).await
    }

    /// Shows a certificate.
    pub async fn certified(
        authority: &Authority,
        addr: SocketAddr,
        (cert, key): &(PathBuf, PathBuf),
    ) -> Self {
        let config = tls_client(&authority.ca(), Some((cert, key)), &[&TLS13]);
        let stream = tls_with(config, addr, b"", &["h2"]).await;
        Self::over(stream, &Builder::new()).await
    }

    /// Comes through a proxy that says `header` in front of the connection.
    pub async fn behind(authority: &Authority, addr: SocketAddr, header: &[u8]) -> Self {
        let config = tls_client(&authority.ca(), None, &[&TLS13]);
        let stream = tls_with(config, addr, header, &["h2"]).await;
        Self::over(stream, &Builder::new()).await
    }

    async fn over(stream: TlsStream<TcpStream>, builder: &Builder) -> Self {
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        let pause = Arc::new(Notify::new());
        let paused = Arc::clone(&pause);
        let driver = tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                end = &mut connection => end,
                () = paused.notified() => {
                    connection.set_initial_window_size(1 << 30).unwrap();
                    let _ = timeout(Duration::from_millis(50), connection.as_mut()).await;
                    std::future::pending().await
                }
            }
        });
        Self {
            sender,
            driver,
            pause,
        }
    }

    /// Sends a head, and the body later.
    pub async fn start(&self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        let mut sender = self.sender.clone().ready().await.unwrap();
        sender.send_request(request, false).unwrap()
    }

    /// Sends a request without a body; its response as it comes.
    pub async fn fetch(&self, call: &Call) -> Response<RecvStream> {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (response, _) = sender.send_request(request(call), true).unwrap();
        response.await.unwrap()
    }

    /// Makes room for a GiB of each response, and then reads and writes nothing any more.
    pub fn open_and_stop(&self) {
        self.pause.notify_one();
    }

    /// Sends it all, and reads the response.
    pub async fn send(&self, call: &Call) -> Reply {
        self.exchange(request(call), &call.body).await.unwrap()
    }

    pub async fn exchange(&self, request: Request<()>, body: &[u8]) -> Result<Reply, h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            let _ = send_data(&mut stream, body, true).await; // the response says why
        }
        reply(response).await
    }

    /// How the connection ended.
    pub async fn end(self) -> Result<(), h2::Error> {
        drop(self.sender);
        timeout(PATIENCE, self.driver).await.unwrap().unwrap()
    }
}

pub async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut bytes: &[u8],
    end: bool,
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.unwrap_or(Err(Reason::STREAM_CLOSED.into()))?;
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        stream.send_data(Bytes::copy_from_slice(now), end && later.is_empty())?;
        bytes = later;
    }
    Ok(())
}

pub async fn reply(response: ResponseFuture) -> Result<Reply, h2::Error> {
    let (head, mut body) = timeout(PATIENCE, response).await.unwrap()?.into_parts();
    let mut reply = Reply {
        status: head.status.as_u16(),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        body: Vec::new(),
        whole: true,
    };
    while let Some(data) = timeout(PATIENCE, body.data()).await.unwrap() {
        let Ok(data) = data else {
            reply.whole = false;
            break;
        };
        body.flow_control().release_capacity(data.len()).unwrap();
        reply.body.extend_from_slice(&data);
    }
    Ok(reply)
}

/// `call` as HTTP/2 says it: what is signed as `host` is `:authority`.
pub fn request(call: &Call) -> Request<()> {
    let head = String::from_utf8(call.head()).unwrap();
    let host = header_of(&head, "host").unwrap();
    let mut request = Request::builder()
        .version(Version::HTTP_2)
        .method(call.method.as_str())
        .uri(format!("https://{host}{}", call.target));
    for line in head.split("\r\n").skip(1).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        if !matches!(name, "host" | "transfer-encoding") {
            request = request.header(name, value);
        }
    }
    request.body(()).unwrap()
}
