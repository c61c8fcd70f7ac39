//! `[tenants.NAME.limits]` and `[templates.NAME.limits]`.

use super::model::TenantLimits;
use super::section::Section;

pub(super) fn tenant_limits(section: Section<'_>) -> TenantLimits {
    let limits = TenantLimits {
        requests_per_second: section.number_if_written("requests_per_second"),
        burst: section.number_if_written("burst"),
        concurrent_requests: section.number_if_written("concurrent_requests"),
        upload_rate: section.number_if_written("upload_rate"),
        download_rate: section.number_if_written("download_rate"),
        object_size: section.number_if_written("object_size"),
    };
    if limits.requests_per_second.is_none()
        && let Some(origin) = section.position_of("burst")
    {
        let message = "`burst` needs `requests_per_second`: alone it limits nothing";
        let fix = "add requests_per_second = 100, or remove burst";
        section.error(&origin, message, fix);
    }
    section.finish();
    limits
}
