//! The plan of a run: the scenario with all defaults filled in and all names resolved.

use std::path::Path;
use std::time::Duration;

use super::arrivals::{Curve, Spacing, Stage};
use super::client::Connect;
use super::content::{Content, fraction, mix};
use super::ledger::Serial;
use super::names::{self, NameStyle};
use super::operation::Mix;
use super::quantity::{ByteSize, Span};
use super::request::LoadEndpoint;
use super::scenario::{BucketStyle, Scenario, Shard, Sweep};
use super::sizes::{SizeDistribution, Sizes};
use super::tenants::{Picker, TenantEntry, TenantProof};
use super::upload::UploadForms;
use crate::emulator::Faults;
use crate::timestamp::Timestamp;
use crate::upstream::dial::Roots;

const DURATION: Duration = Duration::from_secs(30);
const CONCURRENCY: u32 = 16;
const MAX_IN_FLIGHT: u32 = 1000;
const TIMEOUT: Duration = Duration::from_mins(1);
/// Maximum duration of a run with `--requests`.
const LONGEST: Duration = Duration::from_hours(7 * 24);
const OBJECTS: u64 = 100;
const MAX_OBJECTS: u64 = 200_000;
/// The minimum size of a part in S3, except the last one.
const PART_SIZE: u64 = 5 << 20;
const MULTIPART_SIZES: &str = "12MiB";
const REGION: &str = "ap-guangzhou";
/// Maximum number of tenants in a run.
const TENANTS: usize = 100_000;
/// Maximum number of threads in a process.
const THREADS: u32 = 256;
const SLOTS: u32 = 100_000;

/// Everything that a worker thread has to know. It never changes during a run.
#[derive(Debug)]
pub(super) struct Plan {
    /// The folder of this run, below each tenant's prefix.
    pub(super) folder: String,
    /// The seed of content, names and order.
    pub(super) seed: u64,
    /// The target, and the store behind it.
    pub(super) sides: Vec<SidePlan>,
    /// The tenants.
    pub(super) tenants: Vec<TenantPlan>,
    /// The share of requests of each tenant.
    pub(super) picker: Picker,
    /// The operations by weight.
    pub(super) mix: Mix,
    /// The sizes of simple uploads.
    pub(super) sizes: SizeDistribution,
    /// The sizes of multipart uploads.
    pub(super) multipart_sizes: SizeDistribution,
    /// The size of one part.
    pub(super) part_size: u64,
    /// The forms of uploads.
    pub(super) uploads: UploadForms,
    /// Maximum bytes of a range request.
    pub(super) range_size: u64,
    /// Keys on a page of a listing.
    pub(super) list_page: u32,
    /// Keys in a multi-delete.
    pub(super) delete_batch: u32,
    /// The share of puts that overwrite an object.
    pub(super) overwrite: f64,
    /// The style of key names.
    pub(super) names: NameStyle,
    /// Objects that are put before the load.
    pub(super) objects: u64,
    /// Maximum number of existing objects, on all threads.
    pub(super) max_objects: u64,
    /// The share of requests that are isolation probes.
    pub(super) probes: f64,
    /// Whether content that is read is compared.
    pub(super) verify: bool,
    /// The sweep at the end.
    pub(super) sweep: Sweep,
    /// Whether the objects are left in place.
    pub(super) keep: bool,
    /// Threads of this process.
    pub(super) threads: u32,
    /// The part of several processes.
    pub(super) shard: Shard,
    /// The loop and its level over time.
    pub(super) shape: LoopShape,
    /// Operations of all processes.
    pub(super) requests: Option<u64>,
    /// Faults.
    pub(super) faults: Faults,
    /// The time at which all machines start.
    pub(super) start_at: Option<Timestamp>,
}

/// The loop and its level over time.
#[derive(Clone, Debug)]
pub(super) enum LoopShape {
    /// Closed loop: a number of operations in flight at any time.
    Closed {
        /// The level.
        concurrency: Curve,
        /// The maximum of the level.
        slots: u32,
    },
    /// Open loop: a number of operations started each second.
    Open {
        /// The level.
        rate: Curve,
        /// The spacing of arrivals.
        spacing: Spacing,
        /// Maximum number of operations in flight.
        max_in_flight: u32,
    },
}

/// One side of a run.
#[derive(Debug)]
pub(super) struct SidePlan {
    /// `target` or `direct`.
    pub(super) name: &'static str,
    /// The endpoint as reports show it.
    pub(super) endpoint: String,
    /// The endpoint as requests name it.
    pub(super) address: LoadEndpoint,
    /// The way to connect.
    pub(super) connect: Connect,
}

/// One tenant.
#[derive(Debug)]
pub(super) struct TenantPlan {
    /// Its name in reports.
    pub(super) name: String,
    /// Its account on each side.
    pub(super) accounts: Vec<Account>,
}

/// A tenant's account on one side.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// Its identity there.
    pub(super) identity: TenantProof,
    /// Its bucket there.
    pub(super) bucket: String,
    /// Its prefix there, empty or with its last `/`.
    pub(super) prefix: String,
}

/// The inputs besides the scenario.
pub struct PlanInputs<'a> {
    /// Gives an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The number of cores of this machine.
    pub cores: u32,
}

impl Plan {
    /// Fills in the defaults and checks everything that can be checked before the first request.
    pub(super) fn new(scenario: &Scenario, inputs: &PlanInputs<'_>) -> Result<Self, String> {
        scenario.check_combinations()?;
        let sides = sides(scenario)?;
        let tenants = tenants(scenario, inputs)?;
        let picker = picker(scenario, &tenants)?;
        let seed = scenario.seed.unwrap_or_else(|| fastrand::u64(..));
        let mix = scenario.mix.clone().unwrap_or_default();
        let needs_objects = mix.needs_objects() || scenario.probe_isolation.is_some();
        let objects = if needs_objects { OBJECTS } else { 0 };
        let threads = scenario.threads.unwrap_or(inputs.cores / 2).max(1);
        let plan = Self {
            folder: format!("cosgate-load-{:016x}", fastrand::u64(..)),
            seed,
            sides,
            tenants,
            picker,
            mix,
            sizes: scenario.sizes.clone().unwrap_or_default().distribution()?,
            multipart_sizes: match &scenario.multipart_sizes {
                Some(given) => given.distribution()?,
                None => MULTIPART_SIZES.parse::<Sizes>()?.distribution()?,
            },
            part_size: bytes(scenario.part_size, PART_SIZE),
            uploads: scenario.uploads.clone().unwrap_or_default(),
            range_size: bytes(scenario.range_size, 64 << 10),
            list_page: scenario.list_page.unwrap_or(1000),
            delete_batch: scenario.delete_batch.unwrap_or(10),
            overwrite: scenario.overwrite.map_or(0.0, |share| share.0),
            names: scenario.names.unwrap_or_default(),
            objects: scenario.objects.unwrap_or(objects),
            max_objects: scenario.max_objects.unwrap_or(MAX_OBJECTS),
            probes: scenario.probe_isolation.map_or(0.0, |share| share.0),
            verify: !scenario.no_verify,
            sweep: scenario.sweep.unwrap_or_default(),
            keep: scenario.keep,
            threads,
            shard: scenario.shard.unwrap_or(Shard { index: 0, count: 1 }),
            shape: shape(scenario)?,
            requests: scenario.requests,
            faults: Faults {
                faults: scenario.faults.clone(),
                seed: scenario.faults_seed.unwrap_or(seed),
                ..Faults::default()
            },
            start_at: scenario.start_time()?,
        };
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), String> {
        if self.threads > THREADS {
            return Err(format!("threads: at most {THREADS}"));
        }
        if !(1..=1000).contains(&self.list_page) || !(1..=1000).contains(&self.delete_batch) {
            return Err("list_page and delete_batch: 1 to 1000, as S3 allows".to_owned());
        }
        if self.part_size == 0 || self.range_size == 0 {
            return Err("part_size and range_size: at least 1".to_owned());
        }
        if self.probes > 0.0 {
            let place = |tenant: &TenantPlan| {
                let account = tenant.accounts.first();
                account.map(|account| (account.bucket.clone(), account.prefix.clone()))
            };
            let first = self.tenants.first().map(place);
            if self
                .tenants
                .iter()
                .all(|tenant| Some(place(tenant)) == first)
            {
                return Err(
                    "probe_isolation needs two tenants with different buckets or prefixes"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// The content of a write.
    pub(super) fn content(&self, serial: Serial) -> Content {
        let seed = mix(self.seed ^ mix(serial.0));
        let sizes = if serial.is_multipart() {
            &self.multipart_sizes
        } else {
            &self.sizes
        };
        let length = sizes.sample(fraction(seed ^ 1), fraction(seed ^ 2));
        Content::new(seed, length)
    }

    /// The folder of a thread on one side, in a tenant's prefix.
    pub(super) fn folder(&self, side: usize, tenant: usize, thread: u32) -> String {
        let prefix = self
            .account(side, tenant)
            .map_or("", |account| account.prefix.as_str());
        format!("{prefix}{}/{side}-{thread}/", self.folder)
    }

    /// The key of an object below its folder.
    pub(super) fn name(&self, id: u64) -> String {
        names::name(self.names, self.seed, id)
    }

    /// A tenant's account on a side.
    pub(super) fn account(&self, side: usize, tenant: usize) -> Option<&Account> {
        self.tenants.get(tenant)?.accounts.get(side)
    }

    /// The share of this thread among all threads of all processes.
    pub(super) fn part(&self, thread: u32) -> (u32, u32) {
        (
            self.shard.index * self.threads + thread,
            self.shard.count * self.threads,
        )
    }
}

impl LoopShape {
    /// Its planned duration.
    pub(super) fn length(&self) -> Duration {
        let curve = match self {
            Self::Closed { concurrency, .. } => concurrency,
            Self::Open { rate, .. } => rate,
        };
        Duration::from_secs_f64(curve.length())
    }
}

/// The connection to a side, as a scenario describes it.
struct SideConnection<'a> {
    connect_to: Option<&'a str>,
    ca_file: Option<&'a Path>,
    style: Option<BucketStyle>,
    region: Option<&'a str>,
    is_http2: bool,
}

impl SidePlan {
    fn new(
        name: &'static str,
        endpoint: &str,
        connection: &SideConnection<'_>,
        (timeout, keep_alive): (Duration, bool),
    ) -> Result<Self, String> {
        let style = connection.style.unwrap_or_default();
        let region = connection.region.unwrap_or(REGION);
        let mut address = LoadEndpoint::parse(endpoint, style, region)?;
        if connection.is_http2 && !address.is_tls {
            return Err("http2 needs an https endpoint".to_owned());
        }
        address.is_http2 = connection.is_http2;
        let roots = Roots::for_endpoint(address.is_tls, connection.ca_file);
        Ok(Self {
            name,
            endpoint: endpoint.to_owned(),
            connect: Connect {
                roots: roots.map_err(|error| error.to_string())?,
                dialled: connection.connect_to.map(str::to_owned),
                timeout,
                keep_alive,
                is_http2: connection.is_http2,
            },
            address,
        })
    }
}

/// The target, and the store behind it if they are compared.
fn sides(scenario: &Scenario) -> Result<Vec<SidePlan>, String> {
    let endpoint = scenario
        .endpoint
        .as_deref()
        .ok_or("set --endpoint and --bucket, or leave both out for the embedded target")?;
    let timeout = scenario.timeout.map_or(TIMEOUT, |Span(timeout)| timeout);
    let mut sides = vec![SidePlan::new(
        "target",
        endpoint,
        &SideConnection {
            connect_to: scenario.connect_to.as_deref(),
            ca_file: scenario.ca_file.as_deref(),
            style: scenario.style,
            region: scenario.region.as_deref(),
            is_http2: scenario.http2,
        },
        (timeout, !scenario.no_keep_alive),
    )?];
    if scenario.against.is_some() {
        let direct = scenario.direct.as_ref().ok_or(
            "--against direct needs the embedded target, or [direct] with endpoint and keys in the scenario",
        )?;
        let connection = SideConnection {
            connect_to: direct.connect_to.as_deref(),
            ca_file: direct.ca_file.as_deref(),
            style: direct.style,
            region: direct.region.as_deref(),
            is_http2: false,
        };
        let waits = (timeout, !scenario.no_keep_alive);
        sides.push(SidePlan::new(
            "direct",
            &direct.endpoint,
            &connection,
            waits,
        )?);
    }
    Ok(sides)
}

fn picker(scenario: &Scenario, tenants: &[TenantPlan]) -> Result<Picker, String> {
    let weights: Vec<(&str, f64)> = tenants
        .iter()
        .zip(&weights(scenario))
        .map(|(tenant, weight)| (tenant.name.as_str(), *weight))
        .collect();
    let skew = scenario.skew.clone().unwrap_or_default();
    Picker::new(&skew, &weights)
}

fn bytes(size: Option<ByteSize>, default: u64) -> u64 {
    size.map_or(default, |ByteSize(size)| size)
}

fn weights(scenario: &Scenario) -> Vec<f64> {
    if scenario.tenants.is_empty() {
        return vec![1.0];
    }
    let tenants = scenario.tenants.iter();
    tenants.map(|tenant| tenant.weight.unwrap_or(1.0)).collect()
}

/// The tenants of the scenario, or the one tenant of its flags.
fn tenants(scenario: &Scenario, inputs: &PlanInputs<'_>) -> Result<Vec<TenantPlan>, String> {
    let one = [TenantEntry {
        name: "all".to_owned(),
        access_key: scenario
            .access_key
            .clone()
            .or_else(|| (inputs.env)("AWS_ACCESS_KEY_ID").filter(|_| scenario.bearer.is_none())),
        secret_key: scenario.secret_key.clone(),
        session_token: scenario.session_token.clone(),
        bearer: scenario.bearer.clone(),
        ..TenantEntry::default()
    }];
    let entries = if scenario.tenants.is_empty() {
        one.as_slice()
    } else {
        &scenario.tenants
    };
    if entries.len() > TENANTS {
        return Err(format!("tenants: at most {TENANTS}"));
    }
    let mut names = std::collections::HashSet::new();
    let mut tenants = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.name.is_empty() || !names.insert(&entry.name) {
            return Err(format!(
                "tenants: the name `{}` is empty or used twice",
                entry.name
            ));
        }
        tenants.push(tenant(entry, scenario, inputs)?);
    }
    Ok(tenants)
}

fn tenant(
    entry: &TenantEntry,
    scenario: &Scenario,
    inputs: &PlanInputs<'_>,
) -> Result<TenantPlan, String> {
    let mut entry = entry.clone();
    if entry.access_key.is_some() && entry.secret_key.is_none() {
        entry.secret_key = Some("env:AWS_SECRET_ACCESS_KEY".to_owned());
        if entry.session_token.is_none() && (inputs.env)("AWS_SESSION_TOKEN").is_some() {
            entry.session_token = Some("env:AWS_SESSION_TOKEN".to_owned());
        }
    }
    let bucket = entry.bucket.as_ref().or(scenario.bucket.as_ref());
    let bucket = bucket.ok_or_else(|| format!("tenant {}: set bucket", entry.name))?;
    let prefix = entry.prefix.as_ref().or(scenario.prefix.as_ref());
    let mut accounts = vec![Account {
        identity: entry.identity(inputs.env)?,
        bucket: bucket.clone(),
        prefix: folder(prefix),
    }];
    if scenario.against.is_some()
        && let Some(direct) = &scenario.direct
    {
        let account = TenantEntry {
            name: entry.name.clone(),
            access_key: direct
                .access_key
                .clone()
                .or_else(|| entry.access_key.clone()),
            secret_key: direct
                .secret_key
                .clone()
                .or_else(|| entry.secret_key.clone()),
            session_token: direct.session_token.clone(),
            ..TenantEntry::default()
        };
        accounts.push(Account {
            identity: account.identity(inputs.env)?,
            bucket: direct.bucket.clone().unwrap_or_else(|| bucket.clone()),
            prefix: folder(direct.prefix.as_ref().or(prefix)),
        });
    }
    Ok(TenantPlan {
        name: entry.name,
        accounts,
    })
}

/// A prefix that is a folder, so that the run's keys match no other keys.
fn folder(prefix: Option<&String>) -> String {
    match prefix.map(|prefix| prefix.trim_end_matches('/')) {
        None | Some("") => String::new(),
        Some(prefix) => format!("{prefix}/"),
    }
}

fn shape(scenario: &Scenario) -> Result<LoopShape, String> {
    let is_open = is_open(scenario)?;
    let stages = stages(scenario, is_open)?;
    let highest = stages.iter().map(|stage| stage.from.max(stage.to));
    let highest = highest.fold(0.0, f64::max);
    if !highest.is_finite() || highest <= 0.0 {
        return Err("the rate or concurrency must be more than 0".to_owned());
    }
    if is_open {
        return Ok(LoopShape::Open {
            rate: Curve::of(&stages),
            spacing: scenario.arrivals.unwrap_or_default(),
            max_in_flight: scenario
                .max_in_flight
                .unwrap_or(MAX_IN_FLIGHT)
                .clamp(1, SLOTS),
        });
    }
    if highest > f64::from(SLOTS) {
        return Err(format!("concurrency: at most {SLOTS}"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and the limit"
    )]
    let slots = highest.ceil() as u32;
    Ok(LoopShape::Closed {
        concurrency: Curve::of(&stages),
        slots,
    })
}

/// Whether the scenario describes an open loop.
fn is_open(scenario: &Scenario) -> Result<bool, String> {
    let kinds: Vec<bool> = scenario.stages.iter().map(|stage| stage.is_rate).collect();
    let is_open = match (scenario.rate, scenario.concurrency, kinds.first()) {
        (Some(_), Some(_), _) => {
            return Err("choose --rate (open loop) or --concurrency (closed loop)".to_owned());
        }
        (Some(_), None, None) => true,
        (None, concurrency, None) => scenario.find_knee && concurrency.is_none(),
        (None, None, Some(is_rate)) => *is_rate,
        _ => return Err("use stages instead of --rate and --concurrency".to_owned()),
    };
    if kinds.iter().any(|kind| *kind != is_open) {
        return Err(
            "all stages must be rates (100/s), or all of them concurrencies (16)".to_owned(),
        );
    }
    Ok(is_open)
}

/// The stages, or the one stage of rate or concurrency and duration.
fn stages(scenario: &Scenario, is_open: bool) -> Result<Vec<Stage>, String> {
    let duration = match (scenario.duration, scenario.requests) {
        (Some(Span(duration)), _) => duration,
        (None, Some(_)) => LONGEST,
        (None, None) => DURATION,
    };
    if duration.is_zero() || duration > LONGEST {
        return Err("duration: more than 0s and at most 168h".to_owned());
    }
    if !scenario.stages.is_empty() {
        let total: Duration = scenario.stages.iter().map(|stage| stage.length.0).sum();
        return if total <= LONGEST {
            Ok(scenario.stages.clone())
        } else {
            Err("stages: at most 168h together".to_owned())
        };
    }
    let level = match scenario.rate {
        Some(rate) => rate,
        None => f64::from(scenario.concurrency.unwrap_or(CONCURRENCY)),
    };
    Ok(vec![Stage {
        length: Span(duration),
        from: level,
        to: level,
        is_rate: is_open,
    }])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::load) fn plan(text: &str) -> Result<Plan, String> {
        let text = format!("endpoint = \"http://127.0.0.1:9\"\nbucket = \"b\"\n{text}");
        let inputs = PlanInputs {
            env: &|name| {
                (name == "AWS_ACCESS_KEY_ID" || name == "AWS_SECRET_ACCESS_KEY")
                    .then(|| "x".to_owned())
            },
            cores: 4,
        };
        Plan::new(&Scenario::parse(&text)?, &inputs)
    }

    #[test]
    fn defaults_to_a_closed_loop_of_30_seconds() {
        let plan = plan("").unwrap();
        assert_eq!(plan.shape.length(), DURATION);
        assert!(matches!(
            plan.shape,
            LoopShape::Closed {
                slots: CONCURRENCY,
                ..
            }
        ));
        assert!(matches!(
            plan.tenants[0].accounts[0].identity,
            TenantProof::Key { .. }
        ));
    }

    #[test]
    fn rejects_mixed_loops() {
        assert!(matches!(
            plan("rate = 5.0").unwrap().shape,
            LoopShape::Open { .. }
        ));
        assert!(matches!(
            plan("stages = [\"1s:5/s\"]").unwrap().shape,
            LoopShape::Open { .. }
        ));
        for text in [
            "rate = 5.0\nconcurrency = 3",
            "stages = [\"1s:5/s\", \"1s:5\"]",
            "stages = [\"1s:5/s\"]\nrate = 5.0",
            "rate = 0.0",
            "duration = \"0s\"",
            "http2 = true",
            "against = \"direct\"",
            "probe_isolation = \"1%\"",
            "endpoint_ = 1",
            "list_page = 0",
            "skew = \"noisy:x\"",
            "find_knee = true\nshard = \"1/2\"",
            "find_knee = true\nstages = [\"1s:5/s\"]",
            "find_knee = true\nrequests = 5",
            "find_knee = true\nduration = \"5s\"",
            "knee_step = \"1s\"",
            "requests = 0",
            "start_at = \"noon\"",
            "sizes = \"file:/nothing/is/here\"",
        ] {
            assert!(plan(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_run_has_its_own_folder() {
        let text = "prefix = \"team/\"";
        let (one, two) = (plan(text).unwrap(), plan(text).unwrap());
        assert!(one.folder(0, 0, 1).starts_with("team/cosgate-load-"));
        assert_ne!(one.folder(0, 0, 0), two.folder(0, 0, 0));
        assert_ne!(one.folder(0, 0, 0), one.folder(0, 0, 1));
    }

    #[test]
    fn same_seed_gives_same_content_and_names() {
        let (one, two) = (plan("seed = 7").unwrap(), plan("seed = 7").unwrap());
        assert_eq!(one.content(Serial(5)), two.content(Serial(5)));
        assert_eq!(one.name(5), two.name(5));
        assert_ne!(
            one.content(Serial(5)),
            plan("seed = 8").unwrap().content(Serial(5))
        );
    }
}
