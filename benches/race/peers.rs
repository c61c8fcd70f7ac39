//! The proxies that are compared: their configurations, and their processes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::load::{self, Load, Until, Work};

/// The host that a request for COS carries.
pub(crate) const COS: &str = "examplebucket-1250000000.cos.ap-guangzhou.myqcloud.com";
/// Times that `T0keN` stands in the session token: 700 bytes, about as long as those of COS.
const TOKEN_REPEATS: usize = 140;
/// Under valgrind, cosgate needs a few seconds.
const READY: Duration = Duration::from_secs(90);
/// After this, a process that got to end is killed.
const STOPPED: Duration = Duration::from_secs(20);

/// How a proxy speaks to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Plain,
    Tls,
}

/// A proxy that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Cosgate,
    Nginx,
    /// nginx with buffers of 128 KiB, which large objects need.
    Nginx128k,
    NginxNjs,
    Haproxy,
    Envoy,
}

impl Proxy {
    pub(crate) const ALL: [Self; 6] = [
        Self::Cosgate,
        Self::Nginx,
        Self::Nginx128k,
        Self::NginxNjs,
        Self::Haproxy,
        Self::Envoy,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cosgate => "cosgate",
            Self::Nginx => "nginx",
            Self::Nginx128k => "nginx, 128 KiB buffers",
            Self::NginxNjs => "nginx + njs",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
        }
    }

    /// The name and the text of its configuration file.
    fn template(self) -> (&'static str, &'static str) {
        match self {
            Self::Cosgate => ("cosgate.toml", include_str!("peers/cosgate.toml")),
            Self::Nginx | Self::Nginx128k => ("nginx.conf", include_str!("peers/nginx.conf")),
            Self::NginxNjs => ("nginx-njs.conf", include_str!("peers/nginx-njs.conf")),
            Self::Haproxy => ("haproxy.cfg", include_str!("peers/haproxy.cfg")),
            Self::Envoy => ("envoy.yaml", include_str!("peers/envoy.yaml")),
        }
    }

    /// Its executable.
    pub(crate) fn program(self, site: &Site) -> PathBuf {
        match self {
            Self::Cosgate => site.cosgate.clone(),
            Self::Nginx | Self::Nginx128k | Self::NginxNjs => "nginx".into(),
            Self::Haproxy => "haproxy".into(),
            Self::Envoy => site.envoy.clone(),
        }
    }

    fn command(self, site: &Site, config: &Path) -> Vec<OsString> {
        let mut command = vec![self.program(site).into_os_string()];
        let words = match self {
            Self::Cosgate => "serve --config",
            Self::Nginx | Self::Nginx128k | Self::NginxNjs => "-c",
            Self::Haproxy => "-db -f",
            Self::Envoy => "--concurrency 1 --disable-hot-restart --log-level error -c",
        };
        command.extend(words.split(' ').map(OsString::from));
        command.push(config.into());
        command
    }
}

/// Where proxies run: programs, upstreams, and a folder for their files.
pub(crate) struct Site {
    pub(crate) folder: PathBuf,
    pub(crate) cosgate: PathBuf,
    pub(crate) envoy: PathBuf,
    pub(crate) plain: SocketAddr,
    /// Its certificate is `upstream.pem` in the folder.
    pub(crate) tls: Option<SocketAddr>,
    /// The core for the proxies, where there are two.
    pub(crate) core: Option<usize>,
}

/// A proxy that runs, until this is dropped.
pub(crate) struct Running {
    pub(crate) proxy: Proxy,
    pub(crate) scheme: Scheme,
    pub(crate) addr: SocketAddr,
    child: Child,
}

impl Running {
    /// Starts it and sees that it carries objects both ways.
    pub(crate) fn start(site: &Site, proxy: Proxy, scheme: Scheme) -> io::Result<Self> {
        Self::start_under(site, proxy, scheme, &[])
    }

    /// The same, under another program.
    pub(crate) fn start_under(
        site: &Site,
        proxy: Proxy,
        scheme: Scheme,
        under: &[OsString],
    ) -> io::Result<Self> {
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = write_config(site, proxy, scheme, addr.port())?;
        let mut command = Vec::new();
        if let Some(core) = site.core {
            command.extend(["taskset".into(), "-c".into(), core.to_string().into()]);
        }
        command.extend_from_slice(under);
        command.extend(proxy.command(site, &config));
        let log = site.folder.join(format!("{}.log", addr.port()));
        let child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut running = Self {
            proxy,
            scheme,
            addr,
            child,
        };
        let ready = running.wait_until_ready().and_then(|()| running.check());
        ready.map_err(|error| {
            let printed = fs::read_to_string(&log).unwrap_or_default();
            io::Error::other(format!("{}: {error} {printed}", proxy.name()))
        })?;
        Ok(running)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.addr).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("ended with {status}")));
            }
            if began.elapsed() > READY {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Whatever has another status or length is an error of the load.
    fn check(&self) -> io::Result<()> {
        for work in [Work::Get(1024), Work::Put(1024)] {
            let load = Load {
                work,
                connections: 1,
                rate: None,
                until: Until::Requests(50),
            };
            load::run(self.addr, load)?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(self.pid(), Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < STOPPED {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(site: &Site, proxy: Proxy, scheme: Scheme, port: u16) -> io::Result<PathBuf> {
    let (name, template) = proxy.template();
    let path = site.folder.join(format!("{port}-{name}"));
    fs::write(&path, filled_in(template, site, proxy, scheme, port)?)?;
    if proxy == Proxy::NginxNjs {
        let script = filled_in(include_str!("peers/sigv4.js"), site, proxy, scheme, port)?;
        fs::write(site.folder.join("sigv4.js"), script)?;
    }
    Ok(path)
}

/// The template with its `@NAMES@` replaced, and its lines after `#plain ` or `#tls ` where they apply.
fn filled_in(
    template: &str,
    site: &Site,
    proxy: Proxy,
    scheme: Scheme,
    port: u16,
) -> io::Result<String> {
    let (upstream, name, applies, not) = match scheme {
        Scheme::Plain => (Some(site.plain), "http", "#plain ", "#tls "),
        Scheme::Tls => (site.tls, "https", "#tls ", "#plain "),
    };
    let upstream = upstream.ok_or_else(|| io::Error::other("no TLS upstream"))?;
    let lines = template.lines().filter(|line| !line.starts_with(not));
    let mut text: String = lines
        .flat_map(|line| [line.strip_prefix(applies).unwrap_or(line), "\n"])
        .collect();
    let folder = site.folder.display().to_string();
    for (name, value) in [
        ("@PORT@", port.to_string()),
        ("@UPSTREAM@", upstream.port().to_string()),
        ("@SCHEME@", name.to_owned()),
        ("@FOLDER@", folder),
        ("@COS@", COS.to_owned()),
        ("@TOKEN@", "T0keN".repeat(TOKEN_REPEATS)),
        (
            "@BUFFER@",
            if proxy == Proxy::Nginx128k {
                "128k"
            } else {
                "16k"
            }
            .to_owned(),
        ),
    ] {
        text = text.replace(name, &value);
    }
    Ok(text)
}
