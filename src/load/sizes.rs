//! Object sizes: fixed, weighted, uniform, log-normal, or from a histogram file. Pure, except for reading that file.

use std::f64::consts::TAU;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::quantity::{ByteSize, as_text, weighted};

/// Maximum of a log-normal size: the distribution itself has none.
const LOG_NORMAL_LIMIT: f64 = 1_073_741_824.0;
/// Maximum size of one request in S3.
const OBJECT_LIMIT: u64 = 5 << 30;
/// Maximum number of lines of a histogram file.
const HISTOGRAM_LINES: usize = 10_000;

/// `64KiB`, `1KiB:70,1MiB:30`, `uniform:1KiB..1MiB`, `lognormal:64KiB:1.5` (median and sigma) or `file:PATH`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sizes {
    text: String,
    source: SizeSource,
}

#[derive(Clone, Debug, PartialEq)]
enum SizeSource {
    Given(SizeDistribution),
    /// Read when a run begins: a result names the file too, and may be read on another machine.
    File(PathBuf),
}

/// The sizes that a run draws.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SizeDistribution {
    /// Each size with the cumulative weight up to it.
    Weighted(Vec<(u64, f64)>),
    /// Both ends are possible.
    Uniform(u64, u64),
    /// Limited by [`LOG_NORMAL_LIMIT`].
    LogNormal {
        /// In bytes.
        median: f64,
        /// Of the logarithm.
        sigma: f64,
    },
}

impl SizeDistribution {
    /// The size for two random numbers from 0 to 1.
    pub(super) fn sample(&self, first: f64, second: f64) -> u64 {
        match self {
            Self::Weighted(sums) => {
                let total = sums.last().map_or(0.0, |(_, sum)| *sum);
                let index = sums.partition_point(|(_, sum)| *sum <= first * total);
                let found = sums.get(index).or_else(|| sums.last());
                found.map_or(0, |(size, _)| *size)
            }
            Self::Uniform(from, to) => from + floor((to - from + 1) as f64 * first),
            Self::LogNormal { median, sigma } => {
                // Box and Muller (1958).
                let normal = (-2.0 * (1.0 - first).ln()).sqrt() * (TAU * second).cos();
                floor((median * (sigma * normal).exp()).min(LOG_NORMAL_LIMIT))
            }
        }
    }
}

impl Sizes {
    /// Resolves the path of a histogram file against `folder`.
    pub(super) fn make_relative_to(&mut self, folder: &Path) {
        if let SizeSource::File(path) = &mut self.source {
            *path = folder.join(&*path);
            self.text = format!("file:{}", path.display());
        }
    }

    /// The distribution. Reads the histogram file if there is one.
    pub(super) fn distribution(&self) -> Result<SizeDistribution, String> {
        match &self.source {
            SizeSource::Given(distribution) => Ok(distribution.clone()),
            SizeSource::File(path) => histogram_file(path),
        }
    }

    fn parse(text: &str) -> Result<SizeSource, String> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(SizeSource::File(path.into()));
        }
        if let Some(range) = text.strip_prefix("uniform:") {
            let (from, to) = range.split_once("..").ok_or("write uniform:1KiB..1MiB")?;
            let (ByteSize(from), ByteSize(to)) = (from.parse()?, to.parse()?);
            if from > to || to > OBJECT_LIMIT {
                return Err("write uniform:SMALLEST..LARGEST, at most 5GiB".to_owned());
            }
            return Ok(SizeSource::Given(SizeDistribution::Uniform(from, to)));
        }
        if let Some(parameters) = text.strip_prefix("lognormal:") {
            let wrong = "write lognormal:MEDIAN:SIGMA, such as lognormal:64KiB:1.5";
            let (median, sigma) = parameters.split_once(':').ok_or(wrong)?;
            let ByteSize(median) = median.parse()?;
            let sigma: f64 = sigma.parse().map_err(|_| wrong)?;
            if median == 0 || !(0.0..=10.0).contains(&sigma) {
                return Err(wrong.to_owned());
            }
            return Ok(SizeSource::Given(SizeDistribution::LogNormal {
                median: median as f64,
                sigma,
            }));
        }
        let parts = weighted::<ByteSize>(text, ':')?;
        let parts = parts.into_iter();
        cumulative(parts.map(|(size, weight)| (size.0, weight))).map(SizeSource::Given)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size is neither negative nor beyond u64"
)]
fn floor(size: f64) -> u64 {
    size as u64
}

/// A file of lines `SIZE COUNT`, such as a census of a bucket.
fn histogram_file(path: &Path) -> Result<SizeDistribution, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let mut parts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let fields = line.split_once(char::is_whitespace);
        let part = fields.and_then(|(size, count)| {
            let ByteSize(size) = size.parse().ok()?;
            let count: f64 = count.trim().parse().ok()?;
            (count.is_finite() && count >= 0.0).then_some((size, count))
        });
        parts.push(part.ok_or_else(|| {
            format!(
                "{}:{}: write SIZE and COUNT, such as `64KiB 120`",
                path.display(),
                index + 1
            )
        })?);
    }
    if parts.len() > HISTOGRAM_LINES {
        return Err(format!(
            "{}: at most {HISTOGRAM_LINES} lines",
            path.display()
        ));
    }
    cumulative(parts)
}

fn cumulative(parts: impl IntoIterator<Item = (u64, f64)>) -> Result<SizeDistribution, String> {
    let mut sum = 0.0;
    let mut sums = Vec::new();
    for (size, weight) in parts {
        if size > OBJECT_LIMIT {
            return Err("S3 takes at most 5GiB in one request".to_owned());
        }
        sum += weight;
        sums.push((size, sum));
    }
    if sum <= 0.0 {
        return Err("no size has a positive weight".to_owned());
    }
    Ok(SizeDistribution::Weighted(sums))
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            text: "1KiB:40,16KiB:40,256KiB:18,1MiB:2".to_owned(),
            source: SizeSource::Given(SizeDistribution::Weighted(vec![
                (1 << 10, 40.0),
                (16 << 10, 80.0),
                (256 << 10, 98.0),
                (1 << 20, 100.0),
            ])),
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map(|source| Self {
            text: text.to_owned(),
            source,
        })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

as_text!(Sizes);

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(sizes: &str, count: usize) -> Vec<u64> {
        let sizes = sizes.parse::<Sizes>().unwrap().distribution().unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let mut sizes: Vec<u64> = (0..count)
            .map(|_| sizes.sample(random.f64(), random.f64()))
            .collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn default_is_its_text() {
        let text = Sizes::default().to_string();
        assert_eq!(text.parse(), Ok(Sizes::default()));
    }

    #[test]
    fn each_distribution_has_its_shape() {
        assert_eq!(drawn("64KiB", 3), [65536; 3]);
        let weighted = drawn("1KiB:75,1MiB:25", 10_000);
        let small = weighted.iter().filter(|size| **size == 1024).count();
        assert!((7300..7700).contains(&small), "{small}");
        let uniform = drawn("uniform:10..19", 10_000);
        assert_eq!((uniform[0], uniform[9999]), (10, 19));
        let log_normal = drawn("lognormal:64KiB:1", 10_000);
        assert!(
            (62_000..69_000).contains(&log_normal[5000]),
            "{}",
            log_normal[5000]
        );
        // 84.13 % of the sizes lie below the median times e^sigma.
        assert!(
            (160_000..200_000).contains(&log_normal[8413]),
            "{}",
            log_normal[8413]
        );
    }

    #[test]
    fn reads_a_histogram_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sizes");
        std::fs::write(&path, "# of our bucket\n1KiB 90\n1MiB 10\n").unwrap();
        let sizes = drawn(&format!("file:{}", path.display()), 1000);
        assert!((870..930).contains(&sizes.iter().filter(|size| **size == 1024).count()));
        std::fs::write(&path, "1KiB\n").unwrap();
        let sizes: Sizes = format!("file:{}", path.display()).parse().unwrap();
        assert!(
            sizes
                .distribution()
                .unwrap_err()
                .contains(":1: write SIZE and COUNT")
        );
    }

    #[test]
    fn path_of_a_histogram_file_is_relative_to_the_scenario() {
        let mut sizes: Sizes = "file:census".parse().unwrap();
        sizes.make_relative_to(Path::new("/loads"));
        assert_eq!(sizes.to_string(), "file:/loads/census");
        assert_eq!(sizes.source, SizeSource::File("/loads/census".into()));
        // The result of another machine is read without its files.
        let text = serde_json::to_string(&sizes).unwrap();
        assert_eq!(serde_json::from_str::<Sizes>(&text).unwrap(), sizes);
    }

    #[test]
    fn rejects_malformed_distributions() {
        for text in [
            "",
            "1KB",
            "1KiB:0",
            "uniform:2..1",
            "uniform:1",
            "lognormal:1KiB",
            "6GiB",
            "lognormal:0:1",
        ] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
