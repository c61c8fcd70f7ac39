//! Shared limits: rates that all replicas keep together, counted in a Redis.
//!
//! One thread talks to the Redis. A request waits for it no longer than `limits_timeout`. When the Redis
//! fails, it is away: each replica keeps to its own rates at once, and the thread tries to reach it again.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hmac::{Hmac, Mac};
use redis::{Cmd, Pipeline, cmd};
use sha2::Sha256;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::redis_link::{REDIS_TIME, RedisConnection, RedisServer};
use crate::body::shape;
use crate::config::SharedCache;
use crate::encoding::hex::hex;
use crate::observe::SharedLimitsView;
use crate::seal::derive;
use crate::sign::mac::hmac_sha256;
use crate::tenant::shared_rate::{RateAccount, RateStore};

/// The version of the accounts: what [`SCRIPT`] keeps, and how they are named.
const PREFIX: &str = "cosgate:limit:1:";
/// What the key of the accounts' names is derived for.
const LABEL: &[u8] = b"shared limits 1";
/// Bytes of an account's name that are written, of 32.
const NAME_BYTES: usize = 16;
/// The time between two attempts to reach a Redis that is away. The first comes at once.
const RETRY: Duration = Duration::from_secs(1);
/// Limit of calls that are sent together.
const CALLS_TOGETHER: usize = 128;

/// The generic cell rate algorithm. An account is the time at which everything is paid for, by the Redis's own
/// clock, in microseconds. It expires when its credit is whole again. One that is further ahead than it can be was
/// written before the clock was set back: it is corrected, as is one that is no time at all.
const SCRIPT: &str = r"
local per_second, credit, units = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local cost = 1000000 / per_second
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ahead = (tonumber(redis.pcall('GET', KEYS[1])) or now) - now
local longest = tonumber(ARGV[5])
local is_wrong = ahead > longest or ahead ~= ahead
if ahead ~= ahead then ahead = 0 end
ahead = math.min(math.max(ahead, 0), longest)
if ARGV[4] == '0' then
  units = math.min(units, math.max(math.floor((credit - ahead + 1) / cost), 0))
end
if units > 0 or is_wrong then
  ahead = ahead + units * cost
  redis.call('SET', KEYS[1], string.format('%.0f', now + ahead), 'PX', math.ceil(ahead / 1000) + 1)
end
local next = cost
if ARGV[4] == '1' then next = 0 end
return {units, math.ceil(math.max(ahead + next - credit - 1, 0))}
";

/// The longest time of one unit: a rate has at least one a second.
const SECOND: Duration = Duration::from_secs(1);

/// The Redis as the store of shared rates. Its thread ends with the last that uses it.
pub struct SharedLimits {
    calls: mpsc::UnboundedSender<Arc<dyn RateAccount>>,
    names: Hmac<Sha256>,
    state: Arc<StoreState>,
    wait: Duration,
}

/// What requests and the thread both know.
#[derive(Debug)]
struct StoreState {
    is_away: AtomicBool,
    counters: Arc<CallCounters>,
}

/// Calls so far. They outlive a reload.
#[derive(Debug, Default)]
struct CallCounters {
    ok: AtomicU64,
    failed: AtomicU64,
}

/// A connection to a Redis that has the script.
struct ScriptedRedis {
    connection: RedisConnection,
    /// What the Redis calls the script.
    script: String,
}

/// What the thread has.
struct StoreThread {
    server: RedisServer,
    calls: mpsc::UnboundedReceiver<Arc<dyn RateAccount>>,
    state: Arc<StoreState>,
    wait: Duration,
}

impl SharedLimits {
    /// The store of `config` with a thread of its own; `None` if no limits are shared. `old` is what there was
    /// before a reload, of that configuration: it stays where nothing changes.
    pub fn start(
        config: Option<&SharedCache>,
        old: Option<(&Arc<Self>, Option<&SharedCache>)>,
    ) -> io::Result<Option<Arc<Self>>> {
        let Some(config) = config.filter(|config| config.limits) else {
            return Ok(None);
        };
        if let Some((store, before)) = old
            && before == Some(config)
        {
            return Ok(Some(Arc::clone(store)));
        }
        let state = Arc::new(StoreState {
            is_away: AtomicBool::new(true), // until it is reached
            counters: old.map_or_else(Arc::default, |(old, _)| Arc::clone(&old.state.counters)),
        });
        let (sender, calls) = mpsc::unbounded_channel();
        StoreThread {
            server: RedisServer::new(config).map_err(io::Error::other)?,
            calls,
            state: Arc::clone(&state),
            wait: config.limits_timeout,
        }
        .start()?;
        let key = derive(&config.key.value, LABEL);
        let key = key.ok_or_else(|| io::Error::other("credentials.shared.key: no key of it"))?;
        Ok(Some(Arc::new(Self {
            calls: sender,
            names: hmac_sha256(&*key),
            state,
            wait: config.limits_timeout,
        })))
    }

    /// How long a request may wait for the Redis.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// What the metrics show.
    pub fn view(&self) -> SharedLimitsView {
        SharedLimitsView {
            is_away: self.is_away(),
            calls_ok: self.state.counters.ok.load(Ordering::Relaxed),
            calls_failed: self.state.counters.failed.load(Ordering::Relaxed),
        }
    }
}

impl RateStore for SharedLimits {
    fn is_away(&self) -> bool {
        self.state.is_away.load(Ordering::Acquire)
    }

    fn call(&self, account: Arc<dyn RateAccount>) {
        if let Err(unsent) = self.calls.send(account) {
            self.state.is_away.store(true, Ordering::Release); // the thread has ended
            unsent.0.failed();
        }
    }

    /// Keyed, so that nobody who reads the Redis learns or guesses names of tenants, and deployments with
    /// another `key` have accounts of their own.
    fn account_name(&self, owner: &str, counted: &str) -> String {
        let mac = self.names.clone().chain_update(counted);
        let mac = mac.chain_update([0]).chain_update(owner).finalize();
        let bytes = mac.into_bytes();
        let name = bytes.get(..NAME_BYTES).unwrap_or(&bytes);
        format!("{PREFIX}{}", hex(name))
    }
}

impl fmt::Debug for SharedLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLimits")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl StoreThread {
    fn start(self) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("shared-limits".to_owned())
            .spawn(move || {
                runtime.block_on(self.run());
                runtime.shutdown_background(); // a name that is being resolved must not hold us
            })?;
        Ok(())
    }

    /// Makes calls until nobody can request any more.
    async fn run(mut self) {
        let mut is_said = false;
        loop {
            let began = Instant::now();
            let failure = match self.reach().await {
                Some(Ok(redis)) => {
                    tracing::info!("shared limits: the Redis of [credentials.shared] responds");
                    is_said = false;
                    match self.serve(redis).await {
                        Some(failure) => failure,
                        None => return,
                    }
                }
                Some(Err(failure)) => failure,
                None => return,
            };
            if !is_said {
                tracing::warn!(
                    cause = failure,
                    "shared limits: the Redis of [credentials.shared] does not respond: each cosgate counts alone"
                );
                is_said = true;
            }
            if began.elapsed() < RETRY && !self.refuse_calls(sleep(RETRY)).await {
                return;
            }
        }
    }

    /// Connects and loads the script. `None`: nobody can request any more.
    async fn reach(&mut self) -> Option<Result<ScriptedRedis, String>> {
        let wait = self.wait;
        let connecting = async {
            let connected = timeout(self.server.connect_time(), self.server.connect()).await;
            let mut connection = connected.map_err(|_| "no connection in time".to_owned())??;
            let load: Cmd = cmd("SCRIPT").arg("LOAD").arg(SCRIPT).to_owned();
            let loaded = timeout(REDIS_TIME, connection.query::<String>(&load)).await;
            let loaded = loaded.map_err(|_| "no response in time".to_owned())?;
            let script = loaded.map_err(|error| error.category().to_owned())?;
            // One that is slow would be away again with the first request.
            let time = timeout(wait, connection.query::<Vec<String>>(&cmd("TIME"))).await;
            let time = time.map_err(|_| "no response within `limits_timeout`".to_owned())?;
            time.map_err(|error| error.category().to_owned())?;
            Ok(ScriptedRedis { connection, script })
        };
        tokio::select! {
            connected = connecting => Some(connected),
            () = refused(&mut self.calls) => None,
        }
    }

    /// Makes calls until one fails; why it did. `None`: nobody can request any more.
    async fn serve(&mut self, mut redis: ScriptedRedis) -> Option<String> {
        self.state.is_away.store(false, Ordering::Release);
        let mut accounts = Vec::with_capacity(CALLS_TOGETHER);
        loop {
            if self.calls.recv_many(&mut accounts, CALLS_TOGETHER).await == 0 {
                return None;
            }
            let (calls, bounds) = pipeline(&redis.script, &accounts);
            let results = redis.connection.query_all::<Vec<(i64, i64)>>(&calls);
            let failure = match timeout(self.wait * 2, results).await {
                Ok(Ok(results)) => match within(&bounds, &results) {
                    Some(results) => {
                        self.count(accounts.len(), |counters| &counters.ok);
                        settle(&mut accounts, &results);
                        continue;
                    }
                    None => "results that these calls cannot have".to_owned(),
                },
                Ok(Err(error)) => error.category().to_owned(),
                Err(_) => "no response within twice `limits_timeout`".to_owned(),
            };
            self.state.is_away.store(true, Ordering::Release); // before anybody wakes
            self.count(accounts.len(), |counters| &counters.failed);
            accounts.drain(..).for_each(|account| account.failed());
            return Some(failure);
        }
    }

    /// Until `end` no call is made. Whether anybody can request still.
    async fn refuse_calls(&mut self, end: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = end => true,
            () = refused(&mut self.calls) => false,
        }
    }

    fn count(&self, calls: usize, which: impl Fn(&CallCounters) -> &AtomicU64) {
        let calls = u64::try_from(calls).unwrap_or(u64::MAX);
        which(&self.state.counters).fetch_add(calls, Ordering::Relaxed);
    }
}

/// Lets calls fail that are requested; ends when nobody can request any more.
async fn refused(calls: &mut mpsc::UnboundedReceiver<Arc<dyn RateAccount>>) {
    while let Some(account) = calls.recv().await {
        account.failed();
    }
}

/// What the result of a call can be at most.
struct ResultBounds {
    units: u64,
    /// In microseconds.
    wait: u64,
}

/// One call of the script for each of `accounts`, and what each can result in.
fn pipeline(script: &str, accounts: &[Arc<dyn RateAccount>]) -> (Pipeline, Vec<ResultBounds>) {
    let mut calls = Pipeline::with_capacity(accounts.len());
    let mut bounds = Vec::with_capacity(accounts.len());
    for account in accounts {
        let call = account.next_call();
        bounds.push(ResultBounds {
            units: call.units,
            // A debt has no bound here: who waits for it has one. Else it is the time of a unit.
            wait: if call.may_owe {
                u64::MAX
            } else {
                micros(call.longest_debt + SECOND)
            },
        });
        calls
            .cmd("EVALSHA")
            .arg(script)
            .arg(1)
            .arg(call.account)
            .arg(call.per_second)
            .arg(micros(call.credit))
            .arg(call.units)
            .arg(u8::from(call.may_owe))
            .arg(micros(call.longest_debt));
    }
    (calls, bounds)
}

/// `results`, if there is one for each of `bounds` and within them: a store that is none of ours could else let
/// everybody in, or nobody.
fn within(bounds: &[ResultBounds], results: &[(i64, i64)]) -> Option<Vec<(u64, Duration)>> {
    let checked = bounds.iter().zip(results).map(|(bounds, (units, wait))| {
        let (units, wait) = (u64::try_from(*units).ok()?, u64::try_from(*wait).ok()?);
        let is_within = units <= bounds.units && wait <= bounds.wait;
        is_within.then(|| (units, Duration::from_micros(wait)))
    });
    let checked: Option<Vec<_>> = checked.collect();
    checked.filter(|_| bounds.len() == results.len())
}

/// Gives each account its result.
fn settle(accounts: &mut Vec<Arc<dyn RateAccount>>, results: &[(u64, Duration)]) {
    let now = shape::now();
    for (account, (units, wait)) in accounts.drain(..).zip(results) {
        account.succeeded(now, *units, *wait);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_no_result_that_a_call_cannot_have() {
        let bounds = [ResultBounds {
            units: 10,
            wait: 1_000,
        }];
        let taken = |results: &[(i64, i64)]| within(&bounds, results);
        assert_eq!(
            taken(&[(10, 1_000)]),
            Some(vec![(10, Duration::from_millis(1))])
        );
        for results in [
            &[(11, 0)][..],
            &[(-1, 0)],
            &[(0, -1)],
            &[(0, 1_001)],
            &[(i64::MAX, 0)],
            &[],
            &[(1, 0), (1, 0)],
        ] {
            assert_eq!(taken(results), None, "{results:?}");
        }
    }
}
