//! The keys of `[tenants.NAME]`, `[templates.NAME]`, `[identities.NAME]` and of grants.

use std::time::Duration;

use super::{
    ConfigKey, ConfigTable, DAY, Default, GIB, HOST_AND_PORT, KIB, NAME, PATH, REGION, TIB, TIME,
    Value, key, table,
};

const ISSUER_OF: ConfigKey = key(
    "issuer",
    NAME,
    Default::Required("\"NAME\" of an [issuers.NAME]"),
    "The issuer of its temporary keys.",
);

const GRANTS: ConfigKey = table("grants", Value::Tables(&GRANT));

const LIMITS: ConfigKey = table("limits", Value::Table(&TENANT_LIMITS));

const ALLOWED_IPS: ConfigKey = key(
    "allowed_ips",
    Value::Texts("network"),
    Default::Absent,
    "Networks from which it may call. Without it, any.",
);

const VEND: ConfigKey = key(
    "vend",
    Value::Flag,
    Default::Is("false"),
    "Let its clients get temporary keys for COS: see [Keys for clients](configuration-guide.md#keys-for-clients).",
);

/// Nobody can take such a key back, and one with under 20 minutes left is not handed out.
const VEND_DURATION: ConfigKey = key(
    "vend_duration",
    Value::Duration(Duration::from_mins(30), Duration::from_hours(12)),
    Default::Is("1h"),
    "Maximum lifetime of these keys.",
);

const NOT_BEFORE: ConfigKey = key(
    "sessions_not_before",
    TIME,
    Default::Absent,
    "Reject its session keys issued before this time.",
);

const REVOKED: ConfigKey = table("revoked_sessions", Value::Tables(&REVOKED_SESSION));

pub(super) static TENANT: ConfigTable = ConfigTable {
    about: "A tenant: its callers, and what they may do.",
    keys: &[
        ISSUER_OF,
        table("access_keys", Value::Tables(&ACCESS_KEY)),
        key(
            "identity",
            NAME,
            Default::Absent,
            "An identity with `tenant_claim`. A token whose claim is this tenant's name is this tenant's.",
        ),
        key(
            "anonymous",
            Value::Flag,
            Default::Is("false"),
            "Callers without credentials are this tenant. At most one tenant has it.",
        ),
        key(
            "client_certs",
            Value::Texts("certificate name"),
            Default::Absent,
            "Client certificates of this tenant: `\"san:dns:NAME\"`, `\"san:uri:URI\"` or `\"subject:CN=NAME\"`, exact. Needs `client_ca`.",
        ),
        key(
            "require_client_cert",
            Value::Flag,
            Default::Is("false"),
            "Require one of `client_certs` in addition to a key or token.",
        ),
        key(
            "unix_users",
            Value::Texts("user name or number"),
            Default::Absent,
            "Local users who are this tenant when they connect over the Unix socket.",
        ),
        ALLOWED_IPS,
        VEND,
        VEND_DURATION,
        key(
            "vend_tokens",
            Value::Secrets,
            Default::Absent,
            "Tokens of 16 or more characters. A client that sends one as `Authorization` gets a temporary key.",
        ),
        NOT_BEFORE,
        REVOKED,
        GRANTS,
        LIMITS,
    ],
};

static ACCESS_KEY: ConfigTable = ConfigTable {
    about: "A local access key of the tenant. `cosgate keygen` makes one. No two keys have the same id.",
    keys: &[
        key(
            "id",
            Value::Text("3 to 128 letters, digits, `-` `_` `.`"),
            Default::Required("\"ID\" (`cosgate keygen` makes one)"),
            "The access key ID that the client uses.",
        ),
        key(
            "secret",
            Value::Secret,
            Default::Required("\"env:NAME\""),
            "The secret access key that the client uses.",
        ),
        key(
            "not_after",
            TIME,
            Default::Absent,
            "End of the key. Requests that it signs, and session keys that it was exchanged for, are rejected after this time.",
        ),
    ],
};

static REVOKED_SESSION: ConfigTable = ConfigTable {
    about: "Session keys to reject, by the subject of the token that they were issued for.",
    keys: &[
        key(
            "subject",
            Value::Text("1 to 255 bytes"),
            Default::Required("\"SUB\", the tokens' sub"),
            "The `sub` of the tokens.",
        ),
        key(
            "before",
            TIME,
            Default::Required("\"2026-01-31T12:00:00Z\""),
            "Reject the subject's session keys issued before this time.",
        ),
    ],
};

static TENANT_LIMITS: ConfigTable = ConfigTable {
    about: "Limits of one tenant, over all threads. In a template they hold for each subject.",
    keys: &[
        key(
            "requests_per_second",
            Value::Count(1, 1_000_000),
            Default::Absent,
            "Maximum average rate of requests. Above it clients get 503 `SlowDown`.",
        ),
        key(
            "burst",
            Value::Count(1, 1_000_000),
            Default::Computed("`requests_per_second`"),
            "Maximum number of requests at once after a pause.",
        ),
        key(
            "concurrent_requests",
            Value::Count(1, 1_000_000),
            Default::Absent,
            "Maximum number of requests in flight. Above it clients get 503 `SlowDown`.",
        ),
        // A piece of a stream is up to 400 KiB, and between two pieces neither side may time out.
        key(
            "upload_rate",
            Value::Size(64 * KIB, TIB),
            Default::Absent,
            "Maximum bytes a second of all uploads together. cosgate slows bodies down.",
        ),
        key(
            "download_rate",
            Value::Size(64 * KIB, TIB),
            Default::Absent,
            "Maximum bytes a second of all downloads and listings together.",
        ),
        // COS's own limit of one request (436/14518).
        key(
            "object_size",
            Value::Size(1, 5 * GIB),
            Default::Absent,
            "Maximum size of one object or part that is uploaded.",
        ),
    ],
};

static GRANT: ConfigTable = ConfigTable {
    about: "What the client sees as one bucket: see [Grants](configuration-guide.md#grants).",
    keys: &[
        key(
            "name",
            Value::Text("S3 bucket name"),
            Default::Required("\"photos\""),
            "The bucket's name as the client uses it.",
        ),
        key(
            "bucket",
            Value::Text("`NAME-APPID`"),
            Default::Required("\"photos-1250000000\""),
            "The bucket in COS, with its APPID.",
        ),
        key(
            "region",
            REGION,
            Default::Required("\"ap-guangzhou\""),
            "The bucket's region.",
        ),
        key(
            "root",
            Value::Text("folder, with `/` at the end"),
            Default::Absent,
            "Folder of the bucket that the client sees as the whole bucket.",
        ),
        key(
            "prefixes",
            Value::Texts("`\"*\"`, `\"folder/*\"`, `\"start*\"` or a key"),
            Default::Computed("required; `[\"*\"]` with `root`"),
            "The keys that the client may use, as the client names them.",
        ),
        key(
            "list_default_prefix",
            Value::Flag,
            Default::Is("false"),
            "No effect any more: a listing without a prefix shows what the client may list.",
        ),
        key(
            "actions",
            Value::Texts("`read`, `write`, `list` or a COS action"),
            Default::Computed("required"),
            "What the client may do.",
        ),
        key(
            "policy",
            Value::Text("`file:PATH`"),
            Default::Absent,
            "A CAM policy in place of `root`, `prefixes` and `actions`: see [Policies](configuration-guide.md#policies).",
        ),
        key(
            "headers",
            Value::Texts("header name"),
            Default::Absent,
            "Request headers that the client may send only because they are listed here.",
        ),
        key(
            "attachment",
            Value::Flag,
            Default::Is("false"),
            "Make browsers save objects (`Content-Disposition: attachment`) and never show them.",
        ),
        table("cors", Value::Tables(&CORS)),
        key(
            "shared",
            Value::Flag,
            Default::Is("false"),
            "Allow another tenant's grant, which must say so too, to cover the same keys.",
        ),
    ],
};

static CORS: ConfigTable = ConfigTable {
    about: "A rule for web pages of other origins, in S3's model: see [Pages of another origin](browser-uploads.md#pages-of-another-origin). The first rule counts that matches the origin, the method and all requested headers.",
    keys: &[
        key(
            "origins",
            Value::Texts("`\"SCHEME://HOST[:PORT]\"`, with one `*`, or `\"*\"`"),
            Default::Computed("required"),
            "Origins of the pages, as browsers write them.",
        ),
        key(
            "methods",
            Value::Texts("`GET`, `PUT`, `POST`, `DELETE` or `HEAD`"),
            Default::Computed("required"),
            "Methods that the pages may use.",
        ),
        key(
            "headers",
            Value::Texts("header name, with one `*`, or `\"*\"`"),
            Default::Absent,
            "Request headers that the pages may set.",
        ),
        key(
            "expose",
            Value::Texts("header name"),
            Default::Absent,
            "Response headers that the pages may read, besides those that cosgate always exposes (`ETag`, `x-amz-*` and others of the response).",
        ),
        key(
            "max_age",
            Value::Duration(Duration::ZERO, DAY),
            Default::Is("1h"),
            "Time for which a browser may keep the response to a preflight.",
        ),
    ],
};

pub(super) static IDENTITY: ConfigTable = ConfigTable {
    about: "An identity provider whose tokens (JWT) cosgate accepts: see [Identities](configuration-guide.md#identities-and-templates).",
    keys: &[
        key(
            "issuer",
            Value::Text("1 to 512 bytes"),
            Default::Required("\"https://login.example.com/\""),
            "The tokens' `iss`, byte by byte.",
        ),
        key(
            "audience",
            Value::Text("1 to 512 bytes"),
            Default::Required("\"cosgate\""),
            "What the tokens' `aud` must be or contain.",
        ),
        key(
            "jwks",
            Value::Text("URL or `file:PATH`"),
            Default::Required(
                "\"https://login.example.com/.well-known/jwks.json\" or \"file:jwks.json\"",
            ),
            "The provider's public keys. A file is read again when it changes.",
        ),
        key(
            "tenant_claim",
            Value::Text("claim name"),
            Default::Absent,
            "The claim that names a tenant. A token that has it is that tenant's, or is rejected.",
        ),
        key(
            "refresh",
            Value::Duration(Duration::from_secs(10), DAY),
            Default::Is("5m"),
            "How often cosgate fetches the keys from a URL.",
        ),
        key(
            "max_key_age",
            Value::Duration(Duration::from_secs(10), Duration::from_hours(365 * 24)),
            Default::Computed("`24h`, at least twice `refresh`"),
            "How long keys stay valid after they were last fetched. It is at least twice `refresh`.",
        ),
        key(
            "connect_to",
            HOST_AND_PORT,
            Default::Absent,
            "Connect to this address, whatever the URL says.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with authorities for the URL. Without it cosgate uses those of the system.",
        ),
    ],
};

pub(super) static TEMPLATE: ConfigTable = ConfigTable {
    about: "A tenant for each subject of an identity: see [Templates](configuration-guide.md#identities-and-templates). Its `root` and `prefixes` may contain `{claim.NAME}`.",
    keys: &[
        ISSUER_OF,
        key(
            "identity",
            NAME,
            Default::Required("\"NAME\" of an [identities.NAME]"),
            "The identity whose subjects use the template.",
        ),
        ALLOWED_IPS,
        VEND,
        VEND_DURATION,
        NOT_BEFORE,
        REVOKED,
        GRANTS,
        LIMITS,
    ],
};
