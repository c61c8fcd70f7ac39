//! A scenario: all options of a run. Each key of a scenario file is a flag of `cosgate load`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::arrivals::{Spacing, Stage};
use super::expression::Expression;
use super::names::NameStyle;
use super::operation::Mix;
use super::quantity::{ByteSize, Share, Span};
use super::sizes::Sizes;
use super::tenants::{Skew, TenantEntry};
use super::upload::UploadForms;
use crate::emulator::{FaultEntry, FaultFile};
use crate::timestamp::Timestamp;
use crate::transport::bounded_file::read_text_file;

/// The options of a run. All are optional: without an endpoint the embedded COS and the proxy are the target.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// A name for the report
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    pub name: Option<String>,

    /// The S3 endpoint; without it, an embedded COS behind cosgate is used
    #[arg(long, value_name = "URL", help_heading = "Target")]
    pub endpoint: Option<String>,
    /// Connect to this address, whatever the name of the endpoint
    #[arg(long, value_name = "ADDRESS", help_heading = "Target")]
    pub connect_to: Option<String>,
    /// Certificates to trust in place of the system's
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub ca_file: Option<PathBuf>,
    /// The region that requests are signed for
    #[arg(long, value_name = "REGION", help_heading = "Target")]
    pub region: Option<String>,
    /// The position of the bucket's name
    #[arg(long, value_enum, value_name = "STYLE", help_heading = "Target")]
    pub style: Option<BucketStyle>,
    /// Use HTTP/2, which needs https
    #[arg(long, help_heading = "Target")]
    pub http2: bool,
    /// Open a connection for each request
    #[arg(long, help_heading = "Target")]
    pub no_keep_alive: bool,
    /// The bucket
    #[arg(long, value_name = "BUCKET", help_heading = "Target")]
    pub bucket: Option<String>,
    /// Put everything below this prefix, in a folder with a random name
    #[arg(long, value_name = "PREFIX", help_heading = "Target")]
    pub prefix: Option<String>,
    /// The access key id; without it `AWS_ACCESS_KEY_ID`
    #[arg(long, value_name = "ID", help_heading = "Target")]
    pub access_key: Option<String>,
    /// The secret key as `env:NAME` or `file:PATH`; without it `AWS_SECRET_ACCESS_KEY`
    #[arg(long, value_name = "SOURCE", help_heading = "Target")]
    pub secret_key: Option<String>,
    /// A session token as `env:NAME` or `file:PATH`
    #[arg(long, value_name = "SOURCE", help_heading = "Target")]
    pub session_token: Option<String>,
    /// A bearer token (JWT) as `env:NAME` or `file:PATH`, in place of a key
    #[arg(long, value_name = "SOURCE", help_heading = "Target")]
    pub bearer: Option<String>,
    /// Alternate with requests directly to the store: `direct` (embedded, or `[direct]` of the scenario)
    #[arg(long, value_name = "direct", help_heading = "Target")]
    pub against: Option<Against>,
    /// The store behind the target
    #[arg(skip)]
    pub direct: Option<DirectTarget>,
    /// The process id of the proxy: its CPU time and memory are measured (Linux)
    #[arg(long, value_name = "PID", help_heading = "Target")]
    pub proxy_pid: Option<u32>,
    /// The signature that the embedded proxy uses for the embedded COS
    #[arg(long, value_enum, value_name = "LANGUAGE", help_heading = "Target")]
    pub signature: Option<EmbeddedSignature>,

    /// The duration of the load; 30s
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub duration: Option<Span>,
    /// End after this number of operations
    #[arg(long, value_name = "COUNT", help_heading = "Load")]
    pub requests: Option<u64>,
    /// Closed loop: operations in flight at any time; 16
    #[arg(long, value_name = "COUNT", help_heading = "Load")]
    pub concurrency: Option<u32>,
    /// Open loop: operations started each second, even if earlier ones are in flight
    #[arg(long, value_name = "COUNT", help_heading = "Load")]
    pub rate: Option<f64>,
    /// The spacing of arrivals in an open loop
    #[arg(long, value_enum, value_name = "SPACING", help_heading = "Load")]
    pub arrivals: Option<Spacing>,
    /// Open loop: the maximum number of operations in flight; 1000
    #[arg(long, value_name = "COUNT", help_heading = "Load")]
    pub max_in_flight: Option<u32>,
    /// A stage: 30s:100/s, a ramp 1m:100/s..500/s, or closed loop 1m:16..64. May be repeated
    #[arg(long = "stage", value_name = "STAGE", help_heading = "Load")]
    pub stages: Vec<Stage>,
    /// Raise the rate until a bound is exceeded, and report the highest rate that held
    #[arg(long, help_heading = "Load")]
    pub find_knee: bool,
    /// A bound of the knee; `p99>100ms` and `errors>1%`. May be repeated
    #[arg(long = "knee-bound", value_name = "EXPRESSION", help_heading = "Load")]
    pub knee_bounds: Vec<Expression>,
    /// The duration of each rate; 5s
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub knee_step: Option<Span>,
    /// Threads that drive the load; half of the cores
    #[arg(long, value_name = "COUNT", help_heading = "Load")]
    pub threads: Option<u32>,
    /// Give up an operation after this time; 60s
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub timeout: Option<Span>,
    /// Start at this time (2026-01-15T12:30:45Z), as the other machines do
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub start_at: Option<String>,
    /// Drive part i of n equal parts, counted from 1; `load merge` joins the results
    #[arg(long, value_name = "I/N", help_heading = "Load")]
    pub shard: Option<Shard>,

    /// Operations by weight, such as put=20,get=60,list=5
    #[arg(long, value_name = "WEIGHTS", help_heading = "Requests")]
    pub mix: Option<Mix>,
    /// Sizes: 64KiB, 1KiB:70,1MiB:30, uniform:A..B, lognormal:MEDIAN:SIGMA, `file:PATH`
    #[arg(long, value_name = "SIZES", help_heading = "Requests")]
    pub sizes: Option<Sizes>,
    /// Sizes of multipart uploads; 12MiB
    #[arg(long, value_name = "SIZES", help_heading = "Requests")]
    pub multipart_sizes: Option<Sizes>,
    /// The size of a part; 5MiB
    #[arg(long, value_name = "SIZE", help_heading = "Requests")]
    pub part_size: Option<ByteSize>,
    /// Forms of an upload by weight: signed, unsigned, chunked, chunked-trailer, unsigned-trailer, with /CHECKSUM
    #[arg(long, value_name = "WEIGHTS", help_heading = "Requests")]
    pub uploads: Option<UploadForms>,
    /// Maximum bytes of a range request; 64KiB
    #[arg(long, value_name = "SIZE", help_heading = "Requests")]
    pub range_size: Option<ByteSize>,
    /// Keys on one page of a list request; 1000
    #[arg(long, value_name = "COUNT", help_heading = "Requests")]
    pub list_page: Option<u32>,
    /// Keys that one multi-delete names; 10
    #[arg(long, value_name = "COUNT", help_heading = "Requests")]
    pub delete_batch: Option<u32>,
    /// The share of puts that overwrite an object
    #[arg(long, value_name = "SHARE", help_heading = "Requests")]
    pub overwrite: Option<Share>,
    /// The style of key names
    #[arg(long, value_enum, value_name = "STYLE", help_heading = "Requests")]
    pub names: Option<NameStyle>,
    /// Objects that are put before the load starts; 100
    #[arg(long, value_name = "COUNT", help_heading = "Requests")]
    pub objects: Option<u64>,
    /// Maximum number of existing objects: at this number, puts overwrite; 200000
    #[arg(long, value_name = "COUNT", help_heading = "Requests")]
    pub max_objects: Option<u64>,
    /// The seed of content, names and order; random
    #[arg(long, value_name = "NUMBER", help_heading = "Requests")]
    pub seed: Option<u64>,

    /// A file of tenants: `[[tenants]]` with name, keys, bucket, prefix, weight
    #[arg(long = "tenants", value_name = "FILE", help_heading = "Tenants")]
    pub tenants_file: Option<PathBuf>,
    /// The tenants themselves
    #[arg(skip)]
    pub tenants: Vec<TenantEntry>,
    /// Tenants of the embedded target; 4
    #[arg(long, value_name = "COUNT", help_heading = "Tenants")]
    pub tenant_count: Option<u32>,
    /// The share of each tenant: uniform (by weight), zipf, zipf:EXPONENT, or noisy:NAME (10 times the others)
    #[arg(long, value_name = "SKEW", help_heading = "Tenants")]
    pub skew: Option<Skew>,
    /// The share of requests for another tenant's keys; one that succeeds fails the run
    #[arg(long, value_name = "SHARE", help_heading = "Tenants")]
    pub probe_isolation: Option<Share>,

    /// Do not compare content that is read with content that was written
    #[arg(long, help_heading = "Verification")]
    pub no_verify: bool,
    /// How the sweep at the end verifies the acknowledged objects
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Verification")]
    pub sweep: Option<Sweep>,
    /// Leave the objects in place
    #[arg(long, help_heading = "Verification")]
    pub keep: bool,

    /// A file of `[[faults]]`: what fails, for which requests, and when
    #[arg(long = "faults", value_name = "FILE", help_heading = "Faults")]
    pub faults_file: Option<PathBuf>,
    /// The faults themselves
    #[arg(skip)]
    pub faults: Vec<FaultEntry>,
    /// The seed of the file of faults
    #[arg(skip)]
    pub faults_seed: Option<u64>,
    /// The admin address of a `cosgate emulator` that makes the faults; the embedded one needs none
    #[arg(long, value_name = "URL", help_heading = "Faults")]
    pub faults_admin: Option<String>,

    /// Fail if this expression holds: p99>50ms, errors>0.1%, get.p99.9>200ms. May be repeated
    #[arg(long, value_name = "EXPRESSION", help_heading = "Output")]
    pub fail_if: Vec<Expression>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Write one line of CSV for each interval
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub csv: Option<PathBuf>,
    /// Write the report as one HTML file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Also store the JSON as this key of the bucket
    #[arg(long, value_name = "KEY", help_heading = "Output")]
    pub json_key: Option<String>,
    /// Print no progress
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
}

/// The position of the bucket's name in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BucketStyle {
    /// `http://host/bucket/key`
    #[default]
    Path,
    /// `http://bucket.host/key`
    Virtual,
}

/// The signature that the embedded proxy uses for COS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddedSignature {
    /// COS's own: q-sign-algorithm=sha1
    Cos,
    /// AWS `SigV4`
    #[default]
    S3,
}

/// The side that the target is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Against {
    /// The store itself, without the proxy.
    Direct,
}

/// The work of the sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sweep {
    /// Lists everything and reads every object
    #[default]
    Full,
    /// Lists everything and compares names and sizes
    List,
    /// Nothing
    None,
}

/// The store behind the target, as `[direct]` of a scenario.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectTarget {
    /// As of the scenario.
    pub endpoint: String,
    /// As of the scenario.
    pub connect_to: Option<String>,
    /// As of the scenario.
    pub ca_file: Option<PathBuf>,
    /// As of the scenario.
    pub region: Option<String>,
    /// As of the scenario.
    pub style: Option<BucketStyle>,
    /// As of the scenario.
    pub bucket: Option<String>,
    /// As of the scenario.
    pub prefix: Option<String>,
    /// As of the scenario.
    pub access_key: Option<String>,
    /// As of the scenario.
    pub secret_key: Option<String>,
    /// As of the scenario.
    pub session_token: Option<String>,
}

/// Part `index` (from 0) of `count` equal parts, written from 1: `2/4`. A scheduler that counts from 0 and cannot add
/// leaves the sum to us: `1+1/4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    /// From 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

/// Shards of one load.
const SHARDS: u32 = 10_000;

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let sum = |text: &str| match text.split_once('+') {
            Some((a, b)) => a.parse::<u32>().ok()?.checked_add(b.parse().ok()?),
            None => text.parse().ok(),
        };
        let numbers = parts.and_then(|(i, n)| Some((sum(i)?, n.parse().ok()?)));
        match numbers {
            Some((index @ 1.., count @ 1..=SHARDS)) if index <= count => Ok(Self {
                index: index - 1,
                count,
            }),
            _ => Err(format!("`{text}` is not a shard; write 1/4 to 4/4")),
        }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

super::quantity::as_text!(Shard);

/// A file of tenants holds only its list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantsFile {
    tenants: Vec<TenantEntry>,
}

impl Scenario {
    /// Reads a scenario file and the files that it names. Flags override the values of the file. Paths in the file
    /// are relative to it.
    pub fn read(file: Option<&Path>, flags: Self) -> Result<Self, String> {
        let mut scenario = match file {
            None => flags,
            Some(path) => Self::parse(&read(path)?)
                .map_err(|error| format!("{}: {error}", path.display()))?
                .relative_to(path.parent().unwrap_or_else(|| Path::new("")))
                .overlaid(&flags)?,
        };
        if let Some(path) = &scenario.tenants_file {
            let mut file: TenantsFile = toml::from_str(&read(path)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let folder = path.parent().unwrap_or_else(|| Path::new(""));
            let secrets = file.tenants.iter_mut().flat_map(TenantEntry::secrets);
            for secret in secrets.flatten() {
                make_relative_to(secret, folder);
            }
            scenario.tenants.extend(file.tenants);
        }
        if let Some(path) = &scenario.faults_file {
            let file = FaultFile::parse(&path.display().to_string(), &read(path)?)?;
            scenario.faults.extend(file.faults);
            scenario.faults_seed = scenario.faults_seed.or(file.seed);
        }
        Ok(scenario)
    }

    /// Reads the text of a scenario file. An error names line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Refuses options that would have no effect together.
    pub(super) fn check_combinations(&self) -> Result<(), String> {
        let knee = [
            (
                "--shard: each process would find a knee of its own",
                self.shard.is_some(),
            ),
            (
                "--stage: the search has its own rates",
                !self.stages.is_empty(),
            ),
            (
                "--requests: --knee-step is the length of each rate",
                self.requests.is_some(),
            ),
            (
                "--duration: --knee-step is the length of each rate",
                self.duration.is_some(),
            ),
            ("faults: they distort the knee", !self.faults.is_empty()),
        ];
        let other = knee.iter().find(|(_, is_set)| *is_set && self.find_knee);
        if let Some((other, _)) = other {
            return Err(format!("choose --find-knee or {other}"));
        }
        let has_knee = !self.knee_bounds.is_empty() || self.knee_step.is_some();
        if has_knee && !self.find_knee {
            return Err("--knee-bound and --knee-step need --find-knee".to_owned());
        }
        if self.requests == Some(0) {
            return Err("requests: at least 1".to_owned());
        }
        Ok(())
    }

    /// The time at which all machines start.
    pub(super) fn start_time(&self) -> Result<Option<Timestamp>, String> {
        let Some(text) = &self.start_at else {
            return Ok(None);
        };
        let time = Timestamp::parse_iso8601(text);
        time.map(Some)
            .ok_or_else(|| format!("`{text}` is not a time; write 2026-01-15T12:30:45Z"))
    }

    /// The scenario without secrets, for a report. It also removes secrets that were written in the file.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        for source in self.secrets().into_iter().flatten() {
            if !source.starts_with("env:") && !source.starts_with("file:") {
                "[secret]".clone_into(source);
            }
        }
        self
    }

    fn relative_to(mut self, folder: &Path) -> Self {
        let direct_ca = self.direct.as_mut().map(|direct| &mut direct.ca_file);
        for path in [
            &mut self.ca_file,
            &mut self.tenants_file,
            &mut self.faults_file,
        ]
        .into_iter()
        .chain(direct_ca)
        .flatten()
        {
            *path = folder.join(&*path);
        }
        let sizes = [&mut self.sizes, &mut self.multipart_sizes];
        for sizes in sizes.into_iter().flatten() {
            sizes.make_relative_to(folder);
        }
        for secret in self.secrets().into_iter().flatten() {
            make_relative_to(secret, folder);
        }
        self
    }

    /// All values that are secrets, or say where one is.
    fn secrets(&mut self) -> Vec<&mut Option<String>> {
        let mut all = vec![
            &mut self.secret_key,
            &mut self.session_token,
            &mut self.bearer,
        ];
        all.extend(self.tenants.iter_mut().flat_map(TenantEntry::secrets));
        if let Some(direct) = &mut self.direct {
            all.extend([&mut direct.secret_key, &mut direct.session_token]);
        }
        all
    }

    /// Overrides the values of the file with those of `flags`, key by key.
    fn overlaid(self, flags: &Self) -> Result<Self, String> {
        let table =
            |scenario: &Self| toml::Table::try_from(scenario).map_err(|error| error.to_string());
        let mut all = table(&self)?;
        for (key, value) in table(flags)? {
            let is_unset = match &value {
                toml::Value::Boolean(set) => !set,
                toml::Value::Array(values) => values.is_empty(),
                _ => false,
            };
            if !is_unset {
                all.insert(key, value);
            }
        }
        all.try_into()
            .map_err(|error: toml::de::Error| error.to_string())
    }
}

/// Resolves the path of a secret that is in a file.
fn make_relative_to(secret: &mut String, folder: &Path) {
    if let Some(path) = secret.strip_prefix("file:") {
        *secret = format!("file:{}", folder.join(path).display());
    }
}

/// The largest file of a scenario, in bytes.
const FILE_LIMIT: u64 = 64 << 20;

fn read(path: &Path) -> Result<String, String> {
    let mut text = read_text_file(path, FILE_LIMIT).map_err(|error| error.to_string())?;
    Ok(std::mem::take(&mut *text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scenario.toml");
        std::fs::write(
            &path,
            "rate = 50.0\nmix = \"get=1\"\nkeep = true\nstages = [\"1s:5/s\"]\nfaults_file = \"faults.toml\"\n",
        )
        .unwrap();
        std::fs::write(
            folder.path().join("faults.toml"),
            "[[faults]]\nservice = \"cos\"\nfrom = \"1s\"\nuntil = \"2s\"\ndo = \"slow-down\"\n",
        )
        .unwrap();
        let flags = Scenario {
            rate: Some(75.0),
            ..Scenario::default()
        };
        let scenario = Scenario::read(Some(&path), flags).unwrap();
        assert_eq!(scenario.rate, Some(75.0));
        assert!(scenario.keep);
        assert_eq!(scenario.mix, Some("get=1".parse().unwrap()));
        assert_eq!((scenario.stages.len(), scenario.faults.len()), (1, 1));
    }

    #[test]
    fn paths_are_relative_to_the_file_that_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let tenants = folder.path().join("tenants");
        std::fs::create_dir(&tenants).unwrap();
        std::fs::write(
            tenants.join("all.toml"),
            "[[tenants]]\nname = \"a\"\nbearer = \"file:a.jwt\"\n",
        )
        .unwrap();
        let path = folder.path().join("scenario.toml");
        std::fs::write(
            &path,
            "tenants_file = \"tenants/all.toml\"\nca_file = \"ca.pem\"\nsizes = \"file:census\"\nsecret_key = \"file:key\"\n[direct]\nca_file = \"store.pem\"\nsecret_key = \"env:KEY\"\n",
        )
        .unwrap();
        let scenario = Scenario::read(Some(&path), Scenario::default()).unwrap();
        let within = |name: &str| folder.path().join(name);
        let text = |name: &str| format!("file:{}", within(name).display());
        assert_eq!(scenario.ca_file, Some(within("ca.pem")));
        assert_eq!(scenario.sizes.unwrap().to_string(), text("census"));
        assert_eq!(scenario.secret_key, Some(text("key")));
        assert_eq!(scenario.tenants[0].bearer, Some(text("tenants/a.jwt")));
        let direct = scenario.direct.unwrap();
        assert_eq!(direct.ca_file, Some(within("store.pem")));
        assert_eq!(direct.secret_key.as_deref(), Some("env:KEY"));
    }

    #[test]
    fn error_names_line_and_column() {
        let error = Scenario::parse("rate = 5.0\nconcurency = 3\n").unwrap_err();
        assert!(error.contains("line 2, column 1"), "{error}");
        let error = Scenario::parse("mix = \"push=1\"\n").unwrap_err();
        assert!(error.contains("choose from put, get"), "{error}");
    }

    #[test]
    fn report_contains_no_secret() {
        let text = "secret_key = \"CANARY\"\nsession_token = \"env:TOKEN\"\n[[tenants]]\nname = \"a\"\nsecret_key = \"CANARY\"\nbearer = \"CANARY\"\n[direct]\nendpoint = \"http://x\"\nsecret_key = \"CANARY\"\n";
        let scenario = Scenario::parse(text).unwrap().without_secrets();
        let shown = serde_json::to_string(&scenario).unwrap();
        assert!(!shown.contains("CANARY"), "{shown}");
        assert!(shown.contains("env:TOKEN"));
    }

    #[test]
    fn counts_shards_from_one() {
        assert_eq!("2/4".parse(), Ok(Shard { index: 1, count: 4 }));
        assert_eq!("0+1/4".parse(), Ok(Shard { index: 0, count: 4 }));
        for text in [
            "0/4",
            "5/4",
            "1",
            "a/b",
            "1/0",
            "1/10001",
            "4+1/4",
            "+1/4",
            "4294967295+1/4",
        ] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
