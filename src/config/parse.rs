//! The file's sections, each into its type.

use toml::de::DeTable;

use super::endpoint::{self, EndpointTemplate, Placeholders};
use super::file::{ConfigFile, ConfigText, Sources};
use super::grammar;
use super::identities;
use super::include::{self, Included};
use super::issuers;
use super::log;
use super::model::{
    Config, SharedCache, StoredCheck, Sts, Upstream, UpstreamLimits, UpstreamSignature,
};
use super::problem::{Problem, Severity};
use super::regions;
use super::section::Section;
use super::server::{self, in_memory, refuse_short_seal};
use super::syntax;
use super::tenants;
use super::traces;

pub(super) fn parse(
    file_name: &str,
    text: &str,
    sources: &Sources<'_>,
) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let main = ConfigText::new(file_name.to_owned(), text.to_owned(), 0);
    let (tree, faults) = DeTable::parse_recoverable(text);
    let Included {
        texts,
        named,
        mistakes,
    } = include::included(&main, tree.get_ref(), sources);
    let texts: Vec<_> = [main].into_iter().chain(texts).collect();
    let file = ConfigFile::new(&texts, sources);
    for (origin, mistake) in mistakes {
        file.error(&origin, mistake);
    }
    let included = texts.iter().skip(1);
    let included: Vec<_> = included
        .map(|text| (text, DeTable::parse_recoverable(&text.text)))
        .collect();
    let first = texts.first().map(|text| (text, (tree, faults)));
    let trees: Vec<_> = first.into_iter().chain(included).collect();
    for (text, (_, faults)) in &trees {
        syntax::report(&file, text, faults);
    }
    if trees.iter().any(|(_, (_, faults))| !faults.is_empty()) {
        return Err(file.finish().0);
    }
    let roots = trees
        .iter()
        .map(|(text, (tree, _))| (text.base, tree.get_ref()));
    let config = config(Section::root(&file, roots));
    file.warn_of_unclaimed_variables();
    let (problems, others) = file.finish();
    match config {
        Some(mut config) if problems.iter().all(|p| p.severity == Severity::Warning) => {
            config.files = named;
            config.files.extend(others);
            Ok((config, problems))
        }
        _ => Err(problems),
    }
}

fn config(root: Section<'_>) -> Option<Config> {
    let include = root.section("include");
    include.texts("files"); // they are read already
    include.finish();
    let server = server::server(root.section("server"));
    let log = log::log(root.section("log"));
    let traces = traces::traces(root.section("traces"));
    let upstream = upstream(root.section("upstream"));
    let sts = sts(root.section("sts"));
    let issuers = issuers::issuers(&root);
    let identities = identities::identities(&root);
    let credentials = credentials(root.section("credentials"));
    let (tenants, templates) = tenants::tenants(&root, &issuers, &identities, server.as_ref());
    root.finish();
    Some(Config {
        server: server?,
        log: log?,
        traces: traces?,
        upstream: upstream?,
        sts: sts?,
        issuers: issuers.all,
        identities: identities.all,
        tenants,
        templates,
        credential_entries: credentials.entries,
        credential_session_policies: credentials.session_policies,
        credential_shared: credentials.shared,
        credential_warm: credentials.warm,
        files: Vec::new(),
    })
}

fn upstream(section: Section<'_>) -> Option<Upstream> {
    let connect_to = section.parsed("connect_to", endpoint::dial);
    let connect_to = connect_to.map(|found| found.value);
    let dialled = connect_to.as_deref();
    let endpoint = read_endpoint(&section, "endpoint", Placeholders::Bucket, dialled);
    let service = read_endpoint(&section, "service_endpoint", Placeholders::Region, dialled);
    let signature = section.choice("signature", |word| match word {
        "cos" => Some(UpstreamSignature::Cos),
        "s3" => Some(UpstreamSignature::S3),
        _ => None,
    });
    let stored_check = section.choice("stored_check", |word| match word {
        "crc64ecma" => Some(StoredCheck::Crc64Ecma),
        "md5" => Some(StoredCheck::Md5),
        "off" => Some(StoredCheck::Off),
        _ => None,
    });
    let ca_file = section.pem("ca_file");
    let spool_unknown_length = in_memory(section.number("spool_unknown_length"));
    let limits = upstream_limits(section.section("limits"));
    section.finish();
    Some(Upstream {
        endpoint: endpoint?,
        service_endpoint: service?,
        signature: signature?.value,
        connect_to,
        ca_file,
        stored_check: stored_check?.value,
        spool_unknown_length,
        limits,
    })
}

fn upstream_limits(section: Section<'_>) -> UpstreamLimits {
    let limits = UpstreamLimits {
        connect_timeout: section.duration("connect_timeout").value,
        tls_handshake_timeout: section.duration("tls_handshake_timeout").value,
        head_timeout: section.duration("head_timeout").value,
        idle_timeout: section.duration("idle_timeout").value,
        idle_connections: in_memory(section.number("idle_connections")),
    };
    section.finish();
    limits
}

fn sts(section: Section<'_>) -> Option<Sts> {
    let connect_to = section.parsed("connect_to", endpoint::dial);
    let connect_to = connect_to.map(|found| found.value);
    let endpoint = read_endpoint(
        &section,
        "endpoint",
        Placeholders::None,
        connect_to.as_deref(),
    );
    let region = section.parsed("region", grammar::region);
    if let Some(region) = &region {
        regions::warn_of_unknown(&section, "region", region);
    }
    let ca_file = section.pem("ca_file");
    let limits = section.section("limits");
    let timeout = limits.duration("timeout").value;
    let answer_bytes = in_memory(limits.number("answer_bytes"));
    limits.finish();
    section.finish();
    Some(Sts {
        endpoint: endpoint?,
        region: region?.value,
        connect_to,
        ca_file,
        timeout,
        answer_bytes,
    })
}

/// `[credentials]`
struct CredentialsSection {
    entries: usize,
    session_policies: usize,
    warm: bool,
    shared: Option<SharedCache>,
}

fn credentials(section: Section<'_>) -> CredentialsSection {
    let read = CredentialsSection {
        entries: in_memory(section.number("entries")),
        session_policies: in_memory(section.number("session_policies")),
        warm: section.flag("warm").value,
        shared: shared_cache(section.section("shared")),
    };
    section.finish();
    read
}

fn shared_cache(section: Section<'_>) -> Option<SharedCache> {
    if !section.is_written() {
        return None;
    }
    let redis = section.required_secret("redis");
    let key = section.required_secret("key");
    if let Some(redis) = &redis {
        let url = redis.value.value.expose();
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            let message = "`redis` is not a URL that starts with redis:// or rediss://";
            let fix = "write redis://HOST:6379, or rediss://HOST:6379 for TLS";
            section.error(&redis.origin, message, fix);
        }
    }
    let sentinels = section.texts("sentinels").into_iter();
    let sentinels = sentinels.filter_map(|written| match endpoint::dial(written.value) {
        Ok(address) => Some(address),
        Err(mistake) => {
            section.error(&written.origin, mistake.message, mistake.fix);
            None
        }
    });
    let sentinels = sentinels.collect();
    let ca_file = section.pem("ca_file");
    if let Some(key) = &key {
        refuse_short_seal(&section, "key", key);
    }
    let limits = section.flag("limits").value;
    let limits_timeout = section.duration("limits_timeout");
    if !limits && let Some(origin) = section.position_of("limits_timeout") {
        let message = "`limits_timeout` has no effect without `limits`";
        section.warning(
            &origin,
            message,
            "add limits = true, or remove limits_timeout",
        );
    }
    section.finish();
    Some(SharedCache {
        redis: redis?.value,
        sentinels,
        ca_file,
        key: key?.value,
        limits,
        limits_timeout: limits_timeout.value,
    })
}

fn read_endpoint(
    section: &Section<'_>,
    key: &'static str,
    placeholders: Placeholders,
    connect_to: Option<&str>,
) -> Option<EndpointTemplate> {
    let found = section.parsed(key, |text| match placeholders {
        Placeholders::None => endpoint::without_path(text),
        _ => endpoint::endpoint(text, placeholders),
    })?;
    let is_here = endpoint::is_loopback(connect_to.unwrap_or(&found.value.authority));
    if !found.value.tls && !is_here {
        let message =
            format!("`{key}` uses http://: session tokens and data cross the network unencrypted");
        section.warning(&found.origin, message, "write https://");
    }
    if let Some(doubt) = endpoint::doubt(&found.value) {
        let message = format!("`{key}`: {}", doubt.message);
        section.warning(&found.origin, message, doubt.fix);
    }
    Some(found.value)
}
