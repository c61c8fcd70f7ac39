//! The keys of `[credentials]`, shared ones too.

use super::{ConfigTable, Default, MILLISECOND, PATH, SECOND, Value, key, table};

pub(super) static CREDENTIALS: ConfigTable = ConfigTable {
    about: "The cache of temporary keys.",
    keys: &[
        key(
            "entries",
            Value::Count(1, 10_000_000),
            Default::Is("10000"),
            "Maximum number of template subjects and session policies whose keys are cached.",
        ),
        key(
            "session_policies",
            Value::Count(1, 10_000_000),
            Default::Is("1000"),
            "Maximum number of session policies of one tenant whose keys are cached: see [Keys for one table](temporary-keys.md#keys-for-one-table).",
        ),
        key(
            "warm",
            Value::Flag,
            Default::Is("false"),
            "Fetch the keys of all tenants, 10 000 at most, at start and for new tenants after a reload. `/readyz` returns 503 until each has been tried once.",
        ),
        table("shared", Value::Table(&SHARED)),
    ],
};

static SHARED: ConfigTable = ConfigTable {
    about: "A Redis through which several cosgates share their temporary keys, and limits if you want: see [Shared keys](configuration-guide.md#shared-keys).",
    keys: &[
        key(
            "redis",
            Value::Secret,
            Default::Required("\"env:NAME\""),
            "`redis://[user:password@]host[:port][/number]`, or `rediss://…` for TLS. With `sentinels` the host is the name of the master.",
        ),
        key(
            "sentinels",
            Value::Texts("host:port"),
            Default::Absent,
            "Redis Sentinels. cosgate finds out from them where the master is, again after each failure. They use TLS if `redis` does, and no password.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with authorities for `rediss://`. Without it cosgate uses those of the system.",
        ),
        key(
            "key",
            Value::Secret,
            Default::Required("\"env:NAME\""),
            "Secret of 32 or more characters, the same for all, that seals the entries (`openssl rand -base64 32`).",
        ),
        key(
            "limits",
            Value::Flag,
            Default::Is("false"),
            "The rates of tenants and of templates' subjects hold over all these cosgates together: see [Shared limits](configuration-guide.md#shared-limits).",
        ),
        key(
            "limits_timeout",
            Value::Duration(MILLISECOND, SECOND),
            Default::Is("20ms"),
            "How long a request waits for the Redis at most. After that its own cosgate decides alone.",
        ),
    ],
};
