//! A real Redis (Debian's `redis-server`) for one test.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::support::{Authority, eventually};

/// A Redis for one test. It ends when it is dropped.
pub(crate) struct Redis {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Redis {
    /// `None`, with a message, if Redis is not installed. `TEST_REDIS` makes that an error.
    pub(crate) fn start() -> Option<Self> {
        let port = free_port();
        Self::start_with(port, &["--port", &port.to_string()])
    }

    /// The same with these arguments, which make it listen on `port`.
    pub(crate) fn start_with(port: u16, arguments: &[&str]) -> Option<Self> {
        let child = Command::new("redis-server")
            .args(arguments)
            .args(["--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            assert!(std::env::var_os("TEST_REDIS").is_none(), "no redis-server");
            println!("SKIPPED: redis-server is not installed (apt-get install redis-server)");
            return None;
        };
        let redis = Self { child, port };
        eventually("redis-server", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(redis)
    }

    /// The same with TLS by a certificate of `authority` for `localhost`, and this password; and its port.
    pub(crate) fn start_with_tls(authority: &Authority, password: &str) -> Option<(Self, u16)> {
        let (certificate, key) = authority.pair("localhost");
        let (port, ca) = (free_port(), authority.ca());
        let files = [&certificate, &key, &ca].map(|path| path.to_str().unwrap());
        let [certificate, key, ca_file] = files;
        let tls = ["--port", "0", "--tls-port", &port.to_string()].map(str::to_owned);
        let files = ["--tls-cert-file", certificate, "--tls-key-file", key];
        let more = ["--tls-ca-cert-file", ca_file, "--tls-auth-clients", "no"];
        let password = ["--requirepass", password];
        let arguments = tls.iter().map(String::as_str);
        let arguments: Vec<_> = arguments.chain(files).chain(more).chain(password).collect();
        Some((Self::start_with(port, &arguments)?, port))
    }

    pub(crate) fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(url(self.port)).unwrap();
        client.get_connection().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}
