//! The keys of `[upstream]`, `[sts]` and their limits.

use super::{
    ConfigTable, Default, ENDPOINT, HOST_AND_PORT, KIB, MIB, PATH, TIMEOUT, Value, key, table,
};

pub(super) static UPSTREAM: ConfigTable = ConfigTable {
    about: "COS, or another store that speaks one of its two protocols.",
    keys: &[
        key(
            "endpoint",
            ENDPOINT,
            Default::Is("https://{bucket}.cos.{region}.myqcloud.com"),
            "Endpoint of buckets, with the placeholders `{bucket}` (required) and `{region}`. Its host is signed.",
        ),
        key(
            "service_endpoint",
            ENDPOINT,
            Default::Is("https://service.cos.myqcloud.com"),
            "Endpoint of the account; it may contain `{region}`. It is kept for requests that name no bucket: today cosgate sends none, since it responds to ListBuckets itself.",
        ),
        key(
            "signature",
            Value::Choice(&["s3", "cos"]),
            Default::Is("s3"),
            "Signature of requests to the store: AWS SigV4, or COS's own. Copies between regions need `\"cos\"`.",
        ),
        key(
            "connect_to",
            HOST_AND_PORT,
            Default::Absent,
            "Connect to this address, whatever the endpoint says.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with authorities. Without it cosgate uses those of the system.",
        ),
        key(
            "stored_check",
            Value::Choice(&["crc64ecma", "md5", "off"]),
            Default::Is("crc64ecma"),
            "Checksum by which cosgate compares each upload with what the store says it stored.",
        ),
        key(
            "spool_unknown_length",
            Value::Size(0, 32 * MIB),
            Default::Is("0"),
            "Maximum size of an upload without a length that cosgate holds in memory, since COS requires a length. With `0` they get 411.",
        ),
        table("limits", Value::Table(&UPSTREAM_LIMITS)),
    ],
};

static UPSTREAM_LIMITS: ConfigTable = ConfigTable {
    about: "Connections to the store.",
    keys: &[
        key(
            "connect_timeout",
            TIMEOUT,
            Default::Is("3s"),
            "Time within which a connection must open.",
        ),
        key(
            "tls_handshake_timeout",
            TIMEOUT,
            Default::Is("5s"),
            "Time within which a TLS handshake must finish.",
        ),
        key(
            "head_timeout",
            TIMEOUT,
            Default::Is("30s"),
            "Time from the last byte of a request to the response head.",
        ),
        key(
            "idle_timeout",
            TIMEOUT,
            Default::Is("50s"),
            "Time after which an idle connection is closed.",
        ),
        key(
            "idle_connections",
            Value::Count(0, 65_536),
            Default::Is("256"),
            "Maximum number of idle connections for each thread and host.",
        ),
    ],
};

pub(super) static STS: ConfigTable = ConfigTable {
    about: "Tencent Cloud's STS, which issues temporary keys.",
    keys: &[
        key(
            "endpoint",
            ENDPOINT,
            Default::Is("https://sts.tencentcloudapi.com"),
            "Endpoint without placeholders or path. Its host is signed.",
        ),
        key(
            "region",
            Value::Text("region"),
            Default::Is("ap-guangzhou"),
            "Value of the `X-TC-Region` header.",
        ),
        key(
            "connect_to",
            HOST_AND_PORT,
            Default::Absent,
            "Connect to this address, whatever the endpoint says.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with authorities. Without it cosgate uses those of the system.",
        ),
        table("limits", Value::Table(&STS_LIMITS)),
    ],
};

static STS_LIMITS: ConfigTable = ConfigTable {
    about: "Calls to STS.",
    keys: &[
        key(
            "timeout",
            TIMEOUT,
            Default::Is("5s"),
            "Time for one call, from the connection to the last byte.",
        ),
        key(
            "answer_bytes",
            Value::Size(KIB, MIB),
            Default::Is("64KiB"),
            "Maximum size of a response.",
        ),
    ],
};
