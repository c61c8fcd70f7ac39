//! Connecting to COS and STS: name, address, TCP, TLS.
//!
//! What is dialled may differ from what is requested (`connect_to`, like curl's `--connect-to`), but
//! the certificate is always checked against the name that was requested, and a connection that
//! should have TLS is never made without.

mod proxy;
mod roots;
mod stream;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::Authority;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

pub use proxy::HttpProxy;
pub use roots::Roots;
pub use roots::RootsError;
pub use stream::Stream;

/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;
/// Names whose addresses are remembered; beyond it, the memory starts anew.
const REMEMBERED_NAMES: usize = 4096;
/// For this long a response of DNS is used without asking again, so that a burst of connections costs
/// one look-up, and a DNS server that hangs holds one thread a name and not one a connection.
const DNS_FRESH: Duration = Duration::from_secs(10);

/// Makes connections. Each core has its own, so that nothing is shared for a connection.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// `None`: plain.
    tls: Option<Roots>,
    connect_to: Option<String>,
    proxy: Option<Box<HttpProxy>>,
    connect_timeout: Duration,
    tls_timeout: Duration,
    remembered: Mutex<HashMap<String, KnownAddresses>>,
}

/// The addresses of a name when they last served, and when DNS last resolved it.
#[derive(Debug)]
struct KnownAddresses {
    addresses: Vec<SocketAddr>,
    requested: Instant,
}

impl Dialer {
    /// `connect_timeout` covers the look-up and TCP to all addresses; `tls_timeout` the handshake.
    pub(crate) fn new(
        tls: Option<&Roots>,
        connect_to: Option<String>,
        connect_timeout: Duration,
        tls_timeout: Duration,
    ) -> Self {
        Self {
            tls: tls.cloned(),
            connect_to,
            proxy: None,
            connect_timeout,
            tls_timeout,
            remembered: Mutex::default(),
        }
    }

    /// The same through an HTTP proxy, which opens a tunnel (`CONNECT`, RFC 9110 section 9.3.6).
    #[must_use]
    pub(crate) fn through(self, proxy: HttpProxy) -> Self {
        Self {
            proxy: Some(Box::new(proxy)),
            ..self
        }
    }

    /// Connects to `authority` (`host` or `host:port`; the port is 443 with TLS and else 80).
    pub(crate) async fn dial(&self, authority: &str) -> Result<Stream, DialError> {
        let requested = HostPort::parse(authority, self.default_port())?;
        let dialled = match &self.connect_to {
            Some(address) => HostPort::parse(address, self.default_port())?,
            None => requested.clone(),
        };
        let connected = async {
            let Some(proxy) = &self.proxy else {
                return self.connect(&dialled).await;
            };
            let mut tcp = self.connect(&proxy.address).await?;
            let tunnel = proxy.open(&mut tcp, &dialled).await;
            tunnel.map_err(DialError::Proxy)?;
            Ok(tcp)
        };
        let tcp = timeout(self.connect_timeout, connected)
            .await
            .map_err(|_| DialError::ConnectTimeout(self.connect_timeout))??;
        tcp.set_nodelay(true).map_err(DialError::Connect)?;
        let Some(Roots(config, _)) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let name = ServerName::try_from(requested.host)
            .map_err(|_| DialError::Authority(authority.to_owned()))?;
        let handshake = TlsConnector::from(Arc::clone(config)).connect(name, tcp);
        let tls = timeout(self.tls_timeout, handshake)
            .await
            .map_err(|_| DialError::TlsTimeout(self.tls_timeout))?
            .map_err(DialError::Tls)?;
        Ok(Stream::Tls(Box::new(tls)))
    }

    fn default_port(&self) -> u16 {
        if self.tls.is_some() { 443 } else { 80 }
    }

    async fn connect(&self, to: &HostPort) -> Result<TcpStream, DialError> {
        let end = Instant::now() + self.connect_timeout;
        if let Ok(ip) = to.host.parse::<IpAddr>() {
            let address = SocketAddr::new(ip, to.port);
            return TcpStream::connect(address)
                .await
                .map_err(DialError::Connect);
        }
        let name = format!("{}:{}", to.host, to.port);
        let addresses = self.addresses(&name, to).await?;
        match try_each(&addresses, end).await {
            Ok((tcp, address)) => {
                self.remember(name, addresses, address);
                Ok(tcp)
            }
            Err(error) => {
                self.resolve_again(&name);
                Err(DialError::Connect(error))
            }
        }
    }

    /// What to try for `name`: what DNS says, and after that what served before.
    async fn addresses(&self, name: &str, to: &HostPort) -> Result<Vec<SocketAddr>, DialError> {
        let remembered = match self.recall(name) {
            Recalled::Fresh(addresses) => return Ok(addresses),
            Recalled::Stale(addresses) => addresses,
        };
        // Half of the time at most, so that the remembered addresses still get theirs.
        let requested = timeout(
            self.connect_timeout / 2,
            lookup_host((to.host.as_str(), to.port)),
        );
        let resolved = match requested.await {
            Ok(Ok(found)) => Ok(found.take(ADDRESSES).collect()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        candidates(resolved, remembered).map_err(DialError::Resolve)
    }

    fn recall(&self, name: &str) -> Recalled {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(known) = remembered.get_mut(name) else {
            return Recalled::Stale(Vec::new());
        };
        if known.requested.elapsed() < DNS_FRESH {
            return Recalled::Fresh(known.addresses.clone());
        }
        known.requested = Instant::now(); // the next connection makes no look-up of its own
        Recalled::Stale(known.addresses.clone())
    }

    /// Keeps `addresses`, the one that served first.
    fn remember(&self, name: String, mut addresses: Vec<SocketAddr>, served: SocketAddr) {
        addresses.retain(|address| *address != served);
        addresses.insert(0, served);
        addresses.truncate(ADDRESSES);
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = remembered.get_mut(&name) {
            known.addresses = addresses;
            return;
        }
        if remembered.len() >= REMEMBERED_NAMES {
            remembered.clear();
        }
        remembered.insert(
            name,
            KnownAddresses {
                addresses,
                requested: Instant::now(),
            },
        );
    }

    /// None of the addresses responded: resolve it at the next connection, but keep what served before.
    fn resolve_again(&self, name: &str) {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = remembered.get_mut(name) {
            known.requested = known
                .requested
                .checked_sub(DNS_FRESH)
                .unwrap_or(known.requested);
        }
    }
}

enum Recalled {
    /// Use these.
    Fresh(Vec<SocketAddr>),
    /// Resolve it, and use these after its response or in its place.
    Stale(Vec<SocketAddr>),
}

/// Tries `addresses` in turn, each for its share of the time until `end`.
async fn try_each(addresses: &[SocketAddr], end: Instant) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let share = end.saturating_duration_since(Instant::now()) / left.max(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok((tcp, *address)),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
        left = left.saturating_sub(1);
    }
    Err(last)
}

/// The response of DNS followed by what served before; an error only when there is neither.
fn candidates(
    resolved: io::Result<Vec<SocketAddr>>,
    remembered: Vec<SocketAddr>,
) -> io::Result<Vec<SocketAddr>> {
    let mut all = match resolved {
        Ok(found) => found,
        Err(_) if !remembered.is_empty() => Vec::new(),
        Err(error) => return Err(error),
    };
    for address in remembered {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    if all.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(all)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    /// A name or an address, without brackets.
    host: String,
    port: u16,
}

impl HostPort {
    fn parse(text: &str, default_port: u16) -> Result<Self, DialError> {
        let wrong = || DialError::Authority(text.to_owned());
        let authority: Authority = text.parse().map_err(|_| wrong())?;
        let (host, port) = (authority.host(), authority.port());
        let rest = authority.as_str().strip_prefix(host).ok_or_else(wrong)?;
        let port = match port {
            Some(port) => port.as_u16(),
            None if rest.is_empty() => default_port,
            None => return Err(wrong()),
        };
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host, port })
    }
}

/// The step at which a connection was not made. The texts are for the log.
#[derive(Debug)]
pub enum DialError {
    /// Not `host` or `host:port`.
    Authority(String),
    /// No address took the connection.
    Connect(io::Error),
    /// Look-up and TCP took longer than this.
    ConnectTimeout(Duration),
    /// The proxy opens no tunnel.
    Proxy(io::Error),
    /// DNS knows no address, and none is remembered.
    Resolve(io::Error),
    /// The handshake failed, or the certificate is not to be trusted.
    Tls(io::Error),
    /// The handshake took longer than this.
    TlsTimeout(Duration),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(text) => write!(f, "{text:?} is not a host or host:port"),
            Self::Connect(error) => write!(f, "connect: {error}"),
            Self::ConnectTimeout(limit) => write!(f, "connect: nothing within {limit:?}"),
            Self::Proxy(error) => write!(f, "proxy: {error}"),
            Self::Resolve(error) => write!(f, "resolve: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::TlsTimeout(limit) => write!(f, "TLS: no handshake within {limit:?}"),
        }
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(error) | Self::Proxy(error) | Self::Resolve(error) | Self::Tls(error) => {
                Some(error)
            }
            Self::Authority(_) | Self::ConnectTimeout(_) | Self::TlsTimeout(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(400);

    struct TlsServer {
        address: SocketAddr,
        roots: Roots,
    }

    /// A TLS server for `name` that echoes four bytes.
    async fn tls_server(name: &str) -> TlsServer {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    continue;
                };
                let mut four = [0; 4];
                if tls.read_exact(&mut four).await.is_ok() {
                    tls.write_all(&four).await.unwrap();
                    tls.flush().await.unwrap();
                }
            }
        });
        TlsServer {
            address,
            roots: Roots::from_pem(made.cert.pem().as_bytes()).unwrap(),
        }
    }

    fn dialer(tls: bool, to: SocketAddr, roots: &Roots) -> Dialer {
        Dialer::new(tls.then_some(roots), Some(to.to_string()), LIMIT, LIMIT)
    }

    #[tokio::test]
    async fn the_certificate_is_checked_against_the_name_that_was_requested() {
        let server = tls_server("sts.test").await;
        let dialer = dialer(true, server.address, &server.roots);
        let mut stream = dialer.dial("sts.test").await.unwrap();
        assert!(stream.is_write_vectored());
        assert!(stream.tcp().nodelay().unwrap());
        stream.write_all(b"ping").await.unwrap();
        stream.flush().await.unwrap();
        let mut four = [0; 4];
        stream.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"ping");
        for wrong in ["other.test", "127.0.0.1"] {
            assert!(
                matches!(dialer.dial(wrong).await, Err(DialError::Tls(_))),
                "{wrong}"
            );
        }
    }

    #[tokio::test]
    async fn a_stranger_s_certificate_is_refused() {
        let (server, other) = (tls_server("sts.test").await, tls_server("sts.test").await);
        let dialer = dialer(true, server.address, &other.roots);
        assert!(matches!(
            dialer.dial("sts.test").await,
            Err(DialError::Tls(_))
        ));
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        let server = tls_server("sts.test").await;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = dialer(true, silent.local_addr().unwrap(), &server.roots);
        assert!(matches!(
            dialer.dial("sts.test").await,
            Err(DialError::TlsTimeout(_))
        ));
    }

    #[tokio::test]
    async fn a_plain_connection_goes_to_the_configured_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = Dialer::new(None, Some(address.to_string()), LIMIT, LIMIT)
            .dial("bucket.cos.test:80")
            .await
            .unwrap();
        assert!(matches!(stream, Stream::Plain(_)));
        drop(listener);
        let refused = Dialer::new(None, Some(address.to_string()), LIMIT, LIMIT)
            .dial("bucket.cos.test")
            .await;
        assert!(matches!(refused, Err(DialError::Connect(_))));
    }

    #[tokio::test]
    async fn an_address_that_served_is_used_when_dns_has_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialer = Dialer::new(None, None, LIMIT, LIMIT);
        let authority = format!("gone.invalid:{}", address.port());
        let unknown = dialer.dial(&authority).await;
        assert!(
            matches!(
                unknown,
                Err(DialError::Resolve(_) | DialError::ConnectTimeout(_))
            ),
            "{unknown:?}"
        );
        dialer.remember(authority.clone(), vec![address], address);
        dialer.resolve_again(&authority);
        assert!(dialer.dial(&authority).await.is_ok());
    }

    #[test]
    fn dns_comes_before_memory_and_memory_before_an_error() {
        let [a, b] = [1, 2].map(|n| SocketAddr::from(([127, 0, 0, n], 1)));
        let down = || Err(io::Error::from(io::ErrorKind::TimedOut));
        assert_eq!(candidates(Ok(vec![a]), vec![b, a]).unwrap(), [a, b]);
        assert_eq!(candidates(Ok(vec![]), vec![b]).unwrap(), [b]);
        assert_eq!(candidates(down(), vec![b]).unwrap(), [b]);
        assert!(candidates(down(), vec![]).is_err());
        assert!(candidates(Ok(vec![]), vec![]).is_err());
    }

    #[test]
    fn reads_hosts_and_ports() {
        for (text, host, port) in [
            ("cos.test", "cos.test", 443),
            ("cos.test:9", "cos.test", 9),
            ("127.0.0.1:9", "127.0.0.1", 9),
            ("[::1]:9", "::1", 9),
            ("[::1]", "::1", 443),
        ] {
            let read = HostPort::parse(text, 443).unwrap();
            assert_eq!((read.host.as_str(), read.port), (host, port), "{text}");
        }
        for text in ["", ":9", "a b", "a:x", "a:99999", "user@a:1", "a/b"] {
            assert!(HostPort::parse(text, 443).is_err(), "{text:?}");
        }
    }
}
