//! `[tenants.NAME.limits]` and `[templates.NAME.limits]`: what a tenant may ask for at most.

use super::problem::Refusal;
use super::section::Section;

const KIB: u64 = 1 << 10;
const TIB: u64 = 1 << 40;
/// The largest object or part of one request is COS's own limit (436/14518).
const LARGEST_OBJECT: u64 = 5 << 30;
/// Requests a second, and at once.
const MOST_REQUESTS: u64 = 1_000_000;

/// `[tenants.NAME.limits]`: each `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// `requests_per_second`
    pub requests_per_second: Option<u64>,
    /// `burst`: how many requests may come at once after a rest; one second's if not written.
    pub burst: Option<u64>,
    /// `concurrent_requests`
    pub concurrent_requests: Option<u64>,
    /// `upload_rate`: bytes a second.
    pub upload_rate: Option<u64>,
    /// `download_rate`: bytes a second.
    pub download_rate: Option<u64>,
    /// `object_size`: bytes of one object or part as it is uploaded.
    pub object_size: Option<u64>,
}

/// Reads the section. Rates have a floor: a piece of a stream is up to 400 KiB, and between two
/// pieces neither side may take the other for dead.
pub(super) fn tenant_limits(mut section: Section<'_>) -> TenantLimits {
    let mut size = |key, range: std::ops::RangeInclusive<u64>| {
        section.place_of(key)?;
        Some(section.size(key, *range.start(), range))
    };
    let limits = TenantLimits {
        requests_per_second: size("requests_per_second", 1..=MOST_REQUESTS),
        burst: size("burst", 1..=MOST_REQUESTS),
        concurrent_requests: size("concurrent_requests", 1..=MOST_REQUESTS),
        upload_rate: size("upload_rate", 64 * KIB..=TIB),
        download_rate: size("download_rate", 64 * KIB..=TIB),
        object_size: size("object_size", 1..=LARGEST_OBJECT),
    };
    if limits.requests_per_second.is_none()
        && let Some(origin) = section.place_of("burst")
    {
        let message = "`burst` limits nothing without requests_per_second";
        let fix = "write requests_per_second too, or remove it";
        section
            .document()
            .error(&origin, Refusal::new(message, fix));
    }
    section.finish();
    limits
}
