//! Listeners: a TCP address, or a Unix socket whose file is made and removed with it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::Listen;
use crate::tenant::{Peer, UnixUser};

/// Connections that wait to be accepted; Linux takes no more than `net.core.somaxconn`. A connection
/// that finds no room comes back after a second (RFC 6298 section 2.1).
const BACKLOG: i32 = 4096;

/// A socket that listens.
#[derive(Debug)]
pub enum Listening {
    /// On an address.
    Tcp(StdTcpListener),
    /// On a path.
    Unix(UnixSocket),
}

/// A Unix socket that listens. Its file goes when it is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: StdUnixListener,
    path: PathBuf,
    /// `None`: the socket was inherited, and its file is another's to remove.
    file: Option<SocketFile>,
}

/// The file of a socket, if it is still the one that was made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    made: (u64, u64),
}

/// A client's socket on its way to a core.
#[derive(Debug)]
pub(crate) enum ClientSocket {
    /// From [`Listening::Tcp`].
    Tcp(StdTcpStream),
    /// From [`Listening::Unix`].
    Unix(StdUnixStream),
}

/// A listener that accepts.
#[derive(Debug)]
pub(crate) struct Accepting {
    socket: AcceptingSocket,
    is_loopback: bool,
}

#[derive(Debug)]
enum AcceptingSocket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        _file: Option<SocketFile>,
        /// The user that runs cosgate.
        own: u32,
    },
}

/// What [`Accepting::accept`] gives.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) socket: ClientSocket,
    pub(crate) peer: Peer,
    /// Both ends are loopback addresses.
    pub(crate) is_loopback: bool,
}

impl Listening {
    /// Listens where `listen` says; `mode` is of a Unix socket's file. The file of a socket that nobody
    /// listens on any more is removed first. Other processes of this user may listen on the same address if it
    /// `shares_port`.
    pub fn bind(listen: &Listen, mode: u32, shares_port: bool) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => bind_tcp(*address, shares_port).map(Self::Tcp),
            Listen::Unix(path) => UnixSocket::bind(path, mode).map(Self::Unix),
        }
    }

    /// A Unix socket at `path` that another process has made.
    pub fn inherited(path: &Path, listener: StdUnixListener) -> Self {
        Self::Unix(UnixSocket {
            listener,
            path: path.to_owned(),
            file: None,
        })
    }

    /// Where it listens, its port found out.
    pub fn local(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(socket) => Ok(Listen::Unix(socket.path.clone())),
        }
    }

    /// Accepts by the runtime that it is called in.
    pub(crate) fn accepting(self) -> io::Result<Accepting> {
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let is_loopback = listener.local_addr()?.ip().is_loopback();
                let socket = AcceptingSocket::Tcp(TcpListener::from_std(listener)?);
                Ok(Accepting {
                    socket,
                    is_loopback,
                })
            }
            Self::Unix(UnixSocket { listener, file, .. }) => {
                listener.set_nonblocking(true)?;
                // The kernel reports who is at a socket's other end: so it does for our own.
                let own = UnixStream::pair()?.0.peer_cred()?.uid();
                let socket = AcceptingSocket::Unix {
                    listener: UnixListener::from_std(listener)?,
                    _file: file,
                    own,
                };
                Ok(Accepting {
                    socket,
                    is_loopback: false,
                })
            }
        }
    }
}

/// Listens on `address`, with room for [`BACKLOG`] connections; `shares_port` with other processes of this user.
pub fn bind_tcp(address: SocketAddr, shares_port: bool) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?; // a restart finds the last one's connections in TIME_WAIT
    socket.set_reuse_port(shares_port)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl UnixSocket {
    fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let found = fs::symlink_metadata(path)?;
        let file = SocketFile {
            path: path.to_owned(),
            made: (found.dev(), found.ino()),
        };
        // Before it listens: nobody gets in by the rights that the umask gave it.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            listener: socket.into(),
            path: path.to_owned(),
            file: Some(file),
        })
    }
}

/// Removes a socket's file that was left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let message = "there is a file of this name, which is no socket: it is left alone";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another program listens there",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.made);
        if is_ours {
            let _ = fs::remove_file(&self.path); // the next start finds it stale
        }
    }
}

impl ClientSocket {
    /// The same socket under the lowest descriptor that is free.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Accepting {
    /// The next client.
    pub(crate) async fn accept(&self) -> io::Result<Arrival> {
        match &self.socket {
            AcceptingSocket::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok(tcp_arrival(socket.into_std()?, peer, self.is_loopback))
            }
            AcceptingSocket::Unix { listener, own, .. } => {
                let (socket, _) = listener.accept().await?;
                unix_arrival(socket, *own)
            }
        }
    }

    /// The clients that wait still. The socket closes after the last of them.
    pub(crate) fn close(self) -> impl Iterator<Item = Arrival> {
        let is_loopback = self.is_loopback;
        // The runtime may not know yet of the last ones: the sockets themselves are asked.
        let mut next: Box<dyn FnMut() -> io::Result<Arrival>> = match self.socket {
            AcceptingSocket::Tcp(listener) => {
                let mut listener = listener.into_std();
                Box::new(move || {
                    let listener = listener.as_mut().map_err(|_| io::ErrorKind::NotConnected)?;
                    let (socket, peer) = listener.accept()?;
                    socket.set_nonblocking(true)?;
                    Ok(tcp_arrival(socket, peer, is_loopback))
                })
            }
            AcceptingSocket::Unix {
                listener,
                own,
                _file: file,
            } => {
                drop(file); // nobody else shall come
                let mut listener = listener.into_std();
                Box::new(move || {
                    let listener = listener.as_mut().map_err(|_| io::ErrorKind::NotConnected)?;
                    let (socket, _) = listener.accept()?;
                    socket.set_nonblocking(true)?;
                    unix_arrival(UnixStream::from_std(socket)?, own)
                })
            }
        };
        // A flood must not keep it open for ever.
        let max = 2 * usize::try_from(BACKLOG).unwrap_or_default();
        std::iter::from_fn(move || next().ok()).take(max)
    }
}

fn tcp_arrival(socket: StdTcpStream, peer: SocketAddr, is_loopback: bool) -> Arrival {
    let _ = socket.set_nodelay(true);
    Arrival {
        socket: ClientSocket::Tcp(socket),
        peer: Peer::Tcp(peer),
        is_loopback: is_loopback && peer.ip().to_canonical().is_loopback(),
    }
}

fn unix_arrival(socket: UnixStream, own: u32) -> io::Result<Arrival> {
    let uid = socket.peer_cred()?.uid();
    let is_own = uid == own;
    Ok(Arrival {
        socket: ClientSocket::Unix(socket.into_std()?),
        peer: Peer::Unix(UnixUser { uid, is_own }),
        is_loopback: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path) -> io::Result<Listening> {
        Listening::bind(&Listen::Unix(path.to_owned()), 0o640, false)
    }

    /// Nobody accepts: all of them wait, and none is refused.
    #[test]
    fn a_thousand_connections_at_once_find_room() {
        let kernel = fs::read_to_string("/proc/sys/net/core/somaxconn");
        crate::transport::descriptors::raise_limit().unwrap();
        let room = kernel.map_or(128, |text| text.trim().parse().unwrap());
        let many = room.min(1000);
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listen = Listen::Tcp(address.parse().unwrap());
            let listening = Listening::bind(&listen, 0, false).unwrap();
            let Listen::Tcp(address) = listening.local().unwrap() else {
                unreachable!()
            };
            // A connection that finds no room is not made before a second has passed.
            let limit = std::time::Duration::from_millis(900);
            let connect = |_| StdTcpStream::connect_timeout(&address, limit).unwrap();
            let waiting: Vec<_> = (0..many).map(connect).collect();
            assert_eq!(waiting.len(), many);
        }
    }

    #[test]
    fn a_sockets_file_has_its_mode_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind(&path).unwrap();
        assert_eq!(first.local().unwrap(), Listen::Unix(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // As a program leaves it that is killed.
        let moved = folder.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        drop(first);
        fs::rename(&moved, &path).unwrap();
        let second = bind(&path).unwrap();
        assert!(StdUnixStream::connect(&path).is_ok());
        // What another program has put there since is not ours to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "theirs").unwrap();
        drop(second);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        let error = bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
