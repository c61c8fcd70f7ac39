//! The keys of `[log]` and `[traces]`.

use super::{ConfigTable, Default, ENDPOINT, HOUR, MILLISECOND, PATH, Value, key};

pub(super) static LOG: ConfigTable = ConfigTable {
    about: "The access log and the program log: see [Metrics and logs](metrics-and-logs.md#access-log).",
    keys: &[
        key(
            "access",
            Value::Choice(&["json", "combined", "short", "off"]),
            Default::Is("json"),
            "Format of the access log: one JSON object, the combined format of Apache and nginx, or one short line for each request; or no access log.",
        ),
        key(
            "access_file",
            PATH,
            Default::Absent,
            "File that the access log is appended to. cosgate opens it again at SIGUSR1. Without it the access log goes to standard output.",
        ),
        key(
            "access_share",
            Value::Text("percentage"),
            Default::Is("100%"),
            "Share of the successful requests that the access log has. It always has errors, refusals and slow requests.",
        ),
        key(
            "access_slow",
            Value::Duration(MILLISECOND, HOUR),
            Default::Is("1s"),
            "A request that takes this time is slow.",
        ),
        key(
            "access_user_agent",
            Value::Flag,
            Default::Is("true"),
            "Write the `User-Agent` header and the host of the `Referer` header of clients to the access log.",
        ),
        key(
            "program",
            Value::Choice(&["text", "json"]),
            Default::Is("text"),
            "Format of the program log on standard error.",
        ),
    ],
};

pub(super) static TRACES: ConfigTable = ConfigTable {
    about: "Traces of requests: see [Traces](metrics-and-logs.md#traces).",
    keys: &[
        key(
            "enabled",
            Value::Flag,
            Default::Is("false"),
            "Begin a trace for each request whose client names none, and record traces.",
        ),
        key(
            "share",
            Value::Text("percentage"),
            Default::Is("1%"),
            "Share of the traces begun by cosgate that are recorded. cosgate records a trace of a client if its `traceparent` says so.",
        ),
        key(
            "endpoint",
            ENDPOINT,
            Default::Absent,
            "URL to which recorded traces are sent by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`. It needs a cosgate built with the feature `otel`.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with the authorities that `endpoint` is verified with. Without it they are those of the system.",
        ),
        key(
            "authorization",
            Value::Secret,
            Default::Absent,
            "`Authorization` header for `endpoint`.",
        ),
    ],
};
