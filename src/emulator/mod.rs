//! The embedded COS and STS: a strict double of the real ones, for `cosgate dev`, tests and load.
//!
//! It shares only the pure signature functions and the spelling of names with the proxy, and `s3s` verifies SigV4.
//! Mistakes of the proxy therefore show here. Where Tencent's behaviour is not known, the emulator is strict.
//!
//! - `wire` accepts connections and can cut them;
//! - `sts` issues temporary keys, which `keys` stores; `sts_v1` reads calls of the older form;
//! - `cos` checks a request's `head`; `native` translates a q-sign request to S3's headers; `form` finds who signed a form; `gate` enforces the
//!   key's policy (`cam`); `s3`, `listings`, `uploads`, `append` and `settings` carry out the operation on the
//!   `store`;
//!   `response` writes the result as COS does;
//! - `behaviour` lists where stores differ; `faults` describes what fails, and `fault_switch` decides by the `fault_target` which request meets it;
//!   `fault_body` breaks, changes or slows down a body; `counters` counts requests; `admin` serves all that over HTTP.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::config::{ClientAuth, ServerTls};
use crate::downstream::listen::bind_tcp;
use crate::downstream::tls;
use crate::proxy::spelling;
use crate::secret::Secret;
use crate::timestamp::Timestamp;

mod address;
mod admin;
mod append;
mod behaviour;
mod cam;
mod convert;
mod cos;
mod counters;
mod document;
mod fault_body;
mod fault_switch;
mod fault_target;
mod faults;
#[cfg(test)]
mod fences;
mod form;
mod gate;
mod head;
mod keys;
mod listings;
mod native;
pub(crate) mod quantity;
mod response;
mod routes;
mod s3;
mod seed;
mod settings;
mod store;
mod sts;
mod sts_v1;
mod uploads;
mod wire;

pub use behaviour::CosBehaviour;
pub use counters::{Counters, EmulatorCounts, RecordedHead};
pub use fault_switch::{FaultSwitch, MetCount};
pub use faults::{
    CommonFault, CosFault, FaultAction, FaultEntry, FaultFile, FaultLatency, FaultService, Faults,
    StsFault,
};
pub use quantity::{ByteSize, Share, Span};
pub use store::Fsync;

use append::Appends;
use cos::Cos;
use gate::{Hosts, Policies, SecretLookup};
use keys::AccountKeys;
use routes::Routes;
use s3::Operations;
use settings::Settings;
use store::Store;
use sts::EmbeddedSts;
use wire::Accepted;

/// Time limit for requests in flight when the emulator stops.
const STOP: Duration = Duration::from_secs(1);
/// The default region of buckets.
const REGION: &str = "ap-guangzhou";
/// The default account.
const APPID: &str = "1250000000";
/// The domain of COS.
const SUFFIX: &str = "myqcloud.com";
/// Default maximum length of a policy in characters. Tencent does not publish its limit.
const POLICY_LIMIT: usize = 4096;
/// Threads that serve requests.
const THREADS: usize = 2;

/// The configuration of an emulator.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// The folder of the objects; `None` means a temporary folder that is removed with the emulator.
    pub data: Option<PathBuf>,
    /// The address of COS; port 0 chooses a free one.
    pub cos_listen: SocketAddr,
    /// The address of STS.
    pub sts_listen: SocketAddr,
    /// The address of the admin listener for faults and counters; `None` means none.
    pub admin_listen: Option<SocketAddr>,
    /// The account's permanent keys: id and secret.
    pub keys: Vec<(String, Secret)>,
    /// The account's roles, which may do everything that the account may.
    pub roles: Vec<EmulatorRole>,
    /// The account's APPID: digits.
    pub appid: String,
    /// Buckets that are created if they do not exist: name with APPID, and region.
    pub buckets: Vec<(String, String)>,
    /// The domain: buckets are `<bucket>.cos.<region>.<suffix>`.
    pub suffix: String,
    /// Maximum length of a policy in characters.
    pub policy_limit: usize,
    /// The faults from the start.
    pub faults: Faults,
    /// Accounts besides the one of `appid`.
    pub accounts: Vec<EmulatorAccount>,
    /// When acknowledged writes reach the disk.
    pub fsync: Fsync,
    /// Whether COS accepts the bucket's name in the path if the Host is not one of its own. Stores for tests do
    /// this; the real COS does not.
    pub path_style: bool,
    /// A folder whose subfolders become buckets, and whose files become objects, unless they exist already.
    pub seed: Option<PathBuf>,
    /// The PEM files of a certificate chain and its key: COS and STS use TLS. The admin listener never does.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// An account, which has its own buckets.
#[derive(Clone, Debug)]
pub struct EmulatorAccount {
    /// Digits: the end of its buckets' names.
    pub appid: String,
    /// Its permanent keys: id and secret.
    pub keys: Vec<(String, Secret)>,
    /// Its roles.
    pub roles: Vec<EmulatorRole>,
}

/// A role that can be assumed.
#[derive(Clone, Debug)]
pub struct EmulatorRole {
    /// `qcs::cam::uin/100000000001:roleName/NAME`
    pub arn: String,
    /// The `ExternalId` that `AssumeRole` must give.
    pub external_id: Option<String>,
    /// The identity provider and its token that assumes the role. Without one, a key of the account assumes it.
    pub web_identity: Option<(String, Secret)>,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data: None,
            cos_listen: loopback,
            sts_listen: loopback,
            admin_listen: None,
            keys: Vec::new(),
            roles: Vec::new(),
            appid: APPID.into(),
            buckets: Vec::new(),
            suffix: SUFFIX.into(),
            policy_limit: POLICY_LIMIT,
            faults: Faults::default(),
            accounts: Vec::new(),
            fsync: Fsync::default(),
            path_style: false,
            seed: None,
            tls: None,
        }
    }
}

/// A running emulator, on threads of its own. It stops when dropped.
#[derive(Debug)]
pub struct Emulator {
    cos_addr: SocketAddr,
    sts_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    shared: EmulatorShared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _folder: Option<TempDir>,
}

/// The state that the listeners and the tests share.
#[derive(Clone, Debug)]
struct EmulatorShared {
    counters: Arc<Counters>,
    faults: Arc<FaultSwitch>,
    keys: Arc<AccountKeys>,
    store: Arc<Store>,
}

impl EmulatorShared {
    /// Spawns the embedded COS on the current runtime.
    fn serve_cos(
        &self,
        config: &EmulatorConfig,
        listener: TcpListener,
        tls: Option<EmulatorTls>,
    ) -> io::Result<()> {
        let cos = Arc::new(Cos {
            counters: Arc::clone(&self.counters),
            faults: Arc::clone(&self.faults),
            keys: Arc::clone(&self.keys),
            path_style: config.path_style,
            s3: s3_service(self, config, S3Config::default()),
            s3_of_any_time: s3_service(self, config, of_any_time()),
            spelling: spelling::of_cos(),
            store: Arc::clone(&self.store),
            suffix: config.suffix.clone(),
        });
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let counters = Arc::clone(&self.counters);
        let faults = Arc::clone(&self.faults);
        let accepts = move || {
            counters.cos_connection();
            match &tls {
                _ if faults.refuses_connection(FaultService::Cos) => Accepted::Refused,
                Some(tls) if faults.offers_http2() => Accepted::Tls(tls.with_http2.clone()),
                Some(tls) => Accepted::Tls(tls.plain.clone()),
                None => Accepted::Plain,
            }
        };
        tokio::spawn(wire::serve(listener, accepts, move |request, peer| {
            let cos = Arc::clone(&cos);
            async move { Box::pin(cos.respond(request, peer)).await }
        }));
        Ok(())
    }

    /// Spawns the embedded STS.
    fn serve_sts(
        &self,
        config: EmulatorConfig,
        listener: TcpListener,
        tls: Option<EmulatorTls>,
    ) -> io::Result<()> {
        let sts = Arc::new(EmbeddedSts {
            counters: Arc::clone(&self.counters),
            faults: Arc::clone(&self.faults),
            keys: Arc::clone(&self.keys),
            policy_limit: config.policy_limit,
            roles: roles(config.roles, &config.appid, config.accounts),
        });
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let faults = Arc::clone(&self.faults);
        let accepts = move || match &tls {
            _ if faults.refuses_connection(FaultService::Sts) => Accepted::Refused,
            Some(tls) => Accepted::Tls(tls.plain.clone()),
            None => Accepted::Plain,
        };
        tokio::spawn(wire::serve(listener, accepts, move |request, peer| {
            let sts = Arc::clone(&sts);
            async move { sts.respond(request, peer).await }
        }));
        Ok(())
    }

    /// Spawns the admin listener for faults and counters.
    fn serve_admin(&self, address: SocketAddr, listener: TcpListener) -> io::Result<()> {
        let is_loopback = address.ip().to_canonical().is_loopback();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shared = self.clone();
        tokio::spawn(wire::serve(
            listener,
            || Accepted::Plain,
            move |request, _| {
                let shared = shared.clone();
                async move { Ok(admin::respond(&shared, is_loopback, request).await) }
            },
        ));
        Ok(())
    }
}

/// The store in the folder `data`, with the buckets and objects that `config` names.
fn open_store(config: &EmulatorConfig, data: PathBuf) -> io::Result<Store> {
    let store = Store::open(data, config.fsync)?;
    for (name, region) in &config.buckets {
        store.create_bucket(name, region, clock())?;
    }
    if let Some(folder) = &config.seed {
        seed::seed(&store, folder, &config.appid)?;
    }
    Ok(store)
}

impl Emulator {
    /// Starts an emulator. It fails when a listener cannot be bound or the data cannot be read.
    pub fn start(mut config: EmulatorConfig) -> io::Result<Self> {
        let (folder, data) = if let Some(data) = config.data.take() {
            (None, data)
        } else {
            let folder = TempDir::with_prefix("cosgate-")?;
            let data = folder.path().to_owned();
            (Some(folder), data)
        };
        let store = open_store(&config, data)?;
        if folder.is_some() {
            store.snapshot()?; // a reset restores the start
        }
        let mut accounts = vec![EmulatorAccount {
            appid: config.appid.clone(),
            keys: std::mem::take(&mut config.keys),
            roles: Vec::new(),
        }];
        accounts.extend(config.accounts.iter().cloned());
        let shared = EmulatorShared {
            counters: Arc::default(),
            faults: Arc::default(),
            keys: Arc::new(AccountKeys::new(accounts)),
            store: Arc::new(store),
        };
        shared.faults.set(std::mem::take(&mut config.faults));
        let tls = config.tls.take().map(EmulatorTls::read).transpose()?;
        let (cos_listener, cos_addr) = bind(config.cos_listen)?;
        let (sts_listener, sts_addr) = bind(config.sts_listen)?;
        let admin = config.admin_listen.map(bind).transpose()?;
        let admin_addr = admin.as_ref().map(|(_, addr)| *addr);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("emulator")
            .enable_all()
            .build()?;
        {
            let _inside = runtime.enter();
            shared.serve_cos(&config, cos_listener, tls.clone())?;
            shared.serve_sts(config, sts_listener, tls)?;
            if let Some((listener, address)) = admin {
                shared.serve_admin(address, listener)?;
            }
        }
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("emulator".into())
            .spawn(|| run(runtime, stopped))?;
        Ok(Self {
            cos_addr,
            sts_addr,
            admin_addr,
            shared,
            stop: Some(stop),
            thread: Some(thread),
            _folder: folder,
        })
    }

    /// The address of COS.
    pub fn cos_addr(&self) -> SocketAddr {
        self.cos_addr
    }

    /// The address of STS.
    pub fn sts_addr(&self) -> SocketAddr {
        self.sts_addr
    }

    /// The address of the admin listener.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The active faults.
    pub fn faults(&self) -> &FaultSwitch {
        &self.shared.faults
    }

    /// The counters of requests.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The ids of the valid temporary keys.
    pub fn issued_keys(&self) -> Vec<String> {
        self.shared.keys.issued()
    }

    /// Revokes one temporary key. Gives whether it existed.
    pub fn revoke_key(&self, id: &str) -> bool {
        self.shared.keys.revoke(id)
    }

    /// Revokes all temporary keys.
    pub fn revoke_all_keys(&self) {
        self.shared.keys.revoke_all();
    }

    /// Stores an object as another client would.
    pub fn put_object(&self, bucket: &str, key: &str, content: &[u8]) -> io::Result<()> {
        let new = store::NewObject {
            received: self.shared.store.received(content)?,
            attributes: store::Attributes::default(),
            modified: clock(),
        };
        let put = self
            .shared
            .store
            .put_object(bucket, key, new, |_, _| Ok(()));
        put.map(drop).map_err(store::StoreError::into_io)
    }

    /// Creates an upload as another client would. Gives its id.
    pub fn create_upload(&self, bucket: &str, key: &str) -> io::Result<String> {
        let attributes = store::Attributes::default();
        let created = self
            .shared
            .store
            .create_upload(bucket, key, attributes, clock());
        created.map_err(store::StoreError::into_io)
    }

    /// The unfinished uploads of a bucket: key and id, sorted.
    pub fn uploads(&self, bucket: &str) -> Vec<(String, String)> {
        self.shared.store.uploads(bucket)
    }

    /// Removes all objects and uploads of a bucket.
    pub fn empty_bucket(&self, bucket: &str) -> io::Result<()> {
        let store = &self.shared.store;
        let all = store::list::Listing {
            prefix: "",
            delimiter: "",
            after: "",
            limit: usize::MAX,
        };
        let listed = store.list_versions(bucket, &all, "");
        for version in listed.map_err(store::StoreError::into_io)?.items {
            let store::StoredObject { key, version, .. } = &*version.object;
            store
                .delete_version(bucket, key, version)
                .map_err(store::StoreError::into_io)?;
        }
        for (key, id) in store.uploads(bucket) {
            store
                .abort_upload(bucket, &key, &id)
                .map_err(store::StoreError::into_io)?;
        }
        Ok(())
    }

    /// The document that is configured under a parameter of a bucket, as it arrived.
    pub fn setting(&self, bucket: &str, parameter: &str) -> Option<String> {
        let about = self.shared.store.bucket(bucket)?;
        about.settings.get(parameter).cloned()
    }

    /// Configures a bucket as another client would.
    pub fn configure(&self, bucket: &str, parameter: &str, document: &str) -> io::Result<()> {
        let set = |about: &mut store::BucketAbout| {
            about
                .settings
                .insert(parameter.to_owned(), document.to_owned());
        };
        let done = self.shared.store.change_bucket(bucket, set);
        done.map_err(store::StoreError::into_io)
    }

    /// Saves the state of all buckets, in place of an earlier snapshot.
    pub fn snapshot(&self) -> io::Result<()> {
        self.shared.store.snapshot()
    }

    /// Restores the state of the snapshot; `false` when there is none. With a temporary folder, the first snapshot is
    /// the state at the start.
    pub fn reset(&self) -> io::Result<bool> {
        self.shared.store.reset()
    }

    /// The buckets of all accounts: name and region.
    pub fn buckets(&self) -> Vec<(String, String)> {
        let buckets = self.shared.store.buckets().into_iter();
        buckets.map(|about| (about.name, about.region)).collect()
    }

    /// Whether an object is stored.
    pub fn object_exists(&self, bucket: &str, key: &str) -> bool {
        self.shared.store.object(bucket, key).is_ok()
    }

    /// The keys of all objects in a bucket, sorted; none if the bucket does not exist.
    pub fn object_keys(&self, bucket: &str) -> Vec<String> {
        self.shared.store.keys(bucket)
    }

    /// The content of a stored object; `None` when there is none.
    pub fn object_bytes(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let (_, mut file) = self.shared.store.open_object(bucket, key).ok()?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).ok()?;
        Some(bytes)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of the thread was printed already
        }
    }
}

/// The current time. COS and STS have clocks of their own, apart from the proxy's.
#[expect(
    clippy::disallowed_methods,
    reason = "the emulator is another machine, with its own clock"
)]
fn clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The accounts and their roles.
fn roles(
    own: Vec<EmulatorRole>,
    appid: &str,
    others: Vec<EmulatorAccount>,
) -> Vec<(String, EmulatorRole)> {
    let own = own.into_iter().map(|role| (appid.to_owned(), role));
    let others = others.into_iter().flat_map(|account| {
        let appid = account.appid;
        let roles = account.roles.into_iter();
        roles.map(move |role| (appid.clone(), role))
    });
    own.chain(others).collect()
}

/// What `s3s` has to say of the time of a signature is left out.
fn of_any_time() -> S3Config {
    let mut config = S3Config::default();
    config.presigned_url_max_skew_time_secs = u32::MAX;
    config
}

fn s3_service(shared: &EmulatorShared, config: &EmulatorConfig, s3s: S3Config) -> S3Service {
    let mut builder = S3ServiceBuilder::new(Operations {
        store: Arc::clone(&shared.store),
    });
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(s3s))));
    builder.set_auth(SecretLookup(Arc::clone(&shared.keys)));
    builder.set_access(Policies);
    builder.set_route(Routes {
        appends: Appends {
            store: Arc::clone(&shared.store),
        },
        settings: Settings {
            store: Arc::clone(&shared.store),
        },
    });
    builder.set_host(Hosts {
        suffix: config.suffix.clone(),
        path_style: config.path_style,
    });
    builder.build()
}

/// TLS without client certificates.
#[derive(Clone)]
struct EmulatorTls {
    /// HTTP/1.1 alone.
    plain: TlsAcceptor,
    /// HTTP/2 is offered.
    with_http2: TlsAcceptor,
}

impl EmulatorTls {
    fn read((cert, key): (PathBuf, PathBuf)) -> io::Result<Self> {
        let files = ServerTls {
            cert,
            key,
            client_ca: None,
            client_crl: None,
            client_auth: ClientAuth::Optional,
        };
        Ok(Self {
            plain: tls::acceptor_of(&files, false)?,
            with_http2: tls::acceptor_of(&files, true)?,
        })
    }
}

fn bind(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = bind_tcp(listen, false)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {listen}: {e}")))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

/// Keeps the runtime until the emulator is dropped.
fn run(runtime: Runtime, stopped: oneshot::Receiver<()>) {
    let _ = runtime.block_on(stopped); // the sender is dropped and sends nothing
    runtime.shutdown_timeout(STOP);
}
