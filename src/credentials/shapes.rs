//! Temporary keys in the formats that other tools read. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::credential::Credential;
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// What AWS tools read from a `credential_process`.
    AwsProcess,
    /// The configuration of `coscli`: `~/.cos.yaml`.
    Cos,
    /// The configuration of `coscmd`: `~/.cos.conf`.
    Coscmd,
    /// Lines for a shell, for Tencent's tools and AWS's.
    Env,
    /// What `getCredential` of the COS STS SDKs (Python, Node, Java, PHP) returns.
    Json,
    /// As STS itself responds, with the start that Tencent's Go and .NET SDKs add.
    Raw,
}

/// A bucket that a configuration of Tencent's tools names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedBucket {
    /// What it is called in the tool.
    pub alias: String,
    /// Its full name.
    pub bucket: String,
    /// Its region.
    pub region: String,
}

/// Writes `credential`. `duration` is the life that was requested: as in the SDKs, the start is that long
/// before the end. A permanent key has neither token nor times. `buckets` are for the configurations of
/// Tencent's tools; `coscmd` knows one bucket, the first.
pub fn render(
    shape: Shape,
    credential: &Credential,
    duration: Duration,
    buckets: &[NamedBucket],
) -> Zeroizing<String> {
    let times = credential.expires.map(|end| Times {
        start: end.plus(-i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)),
        end,
    });
    let text = match shape {
        Shape::AwsProcess => pretty(aws_process(credential, times.as_ref())),
        Shape::Cos => coscli(credential, buckets),
        Shape::Coscmd => coscmd(credential, buckets.first()),
        Shape::Env => env(credential, times.as_ref()),
        Shape::Json => pretty(sdk_json(credential, times.as_ref())),
        Shape::Raw => pretty(raw(credential, times.as_ref())),
    };
    Zeroizing::new(text)
}

struct Times {
    start: Timestamp,
    end: Timestamp,
}

fn aws_process(credential: &Credential, times: Option<&Times>) -> Map<String, Value> {
    let mut out = Map::new();
    put(&mut out, "Version", 1);
    put(&mut out, "AccessKeyId", credential.secret_id.as_str());
    put(&mut out, "SecretAccessKey", credential.secret_key.expose());
    if let Some(token) = &credential.token {
        put(&mut out, "SessionToken", token.expose());
    }
    if let Some(times) = times {
        put(&mut out, "Expiration", times.end.iso8601());
    }
    out
}

fn raw(credential: &Credential, times: Option<&Times>) -> Map<String, Value> {
    let mut out = Map::new();
    put(
        &mut out,
        "Credentials",
        json!({
            "Token": credential.token.as_ref().map(Secret::expose),
            "TmpSecretId": credential.secret_id,
            "TmpSecretKey": credential.secret_key.expose(),
        }),
    );
    if let Some(times) = times {
        put(&mut out, "ExpiredTime", times.end.unix());
        put(&mut out, "Expiration", times.end.iso8601());
        put(&mut out, "StartTime", times.start.unix());
        put(&mut out, "RequestId", credential.request_id.as_str());
    }
    out
}

fn sdk_json(credential: &Credential, times: Option<&Times>) -> Map<String, Value> {
    let mut out = Map::new();
    put(
        &mut out,
        "credentials",
        json!({
            "tmpSecretId": credential.secret_id,
            "tmpSecretKey": credential.secret_key.expose(),
            "sessionToken": credential.token.as_ref().map(Secret::expose),
        }),
    );
    if let Some(times) = times {
        put(&mut out, "startTime", times.start.unix());
        put(&mut out, "expiredTime", times.end.unix());
        put(&mut out, "expiration", times.end.iso8601());
        put(&mut out, "requestId", credential.request_id.as_str());
    }
    out
}

fn env(credential: &Credential, times: Option<&Times>) -> String {
    let mut out = String::new();
    let mut export = |names: &[&str], value: &str| {
        for name in names {
            let _ = writeln!(out, "export {name}={}", quoted(value)); // into a String: cannot fail
        }
    };
    export(
        &["TENCENTCLOUD_SECRET_ID", "AWS_ACCESS_KEY_ID"],
        &credential.secret_id,
    );
    export(
        &["TENCENTCLOUD_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"],
        credential.secret_key.expose(),
    );
    if let Some(token) = &credential.token {
        // The Node SDK reads the first of these, tccli the second.
        let names = [
            "TENCENTCLOUD_SESSION_TOKEN",
            "TENCENTCLOUD_TOKEN",
            "AWS_SESSION_TOKEN",
        ];
        export(&names, token.expose());
    }
    if let Some(times) = times {
        export(&["AWS_CREDENTIAL_EXPIRATION"], &times.end.iso8601());
    }
    out
}

/// YAML, whose quoted texts are those of JSON. Without `disableencryption` newer versions take the
/// secrets for encrypted ones.
fn coscli(credential: &Credential, buckets: &[NamedBucket]) -> String {
    let token = credential.token.as_ref().map_or("", Secret::expose);
    let mut out = format!(
        "cos:\n  base:\n    secretid: {}\n    secretkey: {}\n    sessiontoken: {}\n    protocol: https\n    \
         mode: SecretKey\n    disableencryption: \"true\"\n  buckets:{}\n",
        Value::from(credential.secret_id.as_str()),
        Value::from(credential.secret_key.expose()),
        Value::from(token),
        if buckets.is_empty() { " []" } else { "" },
    );
    for bucket in buckets {
        let endpoint = format!("cos.{}.myqcloud.com", bucket.region);
        let _ = writeln!(
            out,
            "  - name: {}\n    alias: {}\n    region: {}\n    endpoint: {}\n    ofs: false",
            Value::from(bucket.bucket.as_str()),
            Value::from(bucket.alias.as_str()),
            Value::from(bucket.region.as_str()),
            Value::from(endpoint),
        );
    }
    out
}

/// INI; neither keys nor tokens have line ends.
fn coscmd(credential: &Credential, bucket: Option<&NamedBucket>) -> String {
    let mut out = format!(
        "[common]\nsecret_id = {}\nsecret_key = {}\n",
        credential.secret_id,
        credential.secret_key.expose()
    );
    if let Some(token) = &credential.token {
        let _ = writeln!(out, "token = {}", token.expose());
    }
    if let Some(NamedBucket { bucket, region, .. }) = bucket {
        let _ = writeln!(out, "bucket = {bucket}\nregion = {region}");
    }
    out + "schema = https\n"
}

/// `value` as one word of a POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn put(out: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    out.insert(name.to_owned(), value.into());
}

fn pretty(value: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of `fake_response` in the vectors.
    fn temporary() -> Credential {
        let expires = Some(Timestamp::from_unix(1_700_001_800));
        let token = Some(Secret::new("FAKETOKEN"));
        let mut key = Credential::new(
            "AKIDFAKETMP".into(),
            Secret::new("FAKETMPKEY="),
            token,
            expires,
        )
        .unwrap();
        key.request_id = "00000000-0000-4000-8000-000000000000".into();
        key
    }

    fn parsed(shape: Shape, credential: &Credential) -> Value {
        serde_json::from_str(&render(shape, credential, Duration::from_mins(30), &[])).unwrap()
    }

    #[test]
    fn writes_json_and_raw_as_the_sdks_do() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/sts-policy.json")).unwrap();
        let shapes = &vectors["result_shapes"];
        for sdk in ["python", "nodejs", "java", "php"] {
            assert_eq!(parsed(Shape::Json, &temporary()), shapes[sdk], "{sdk}");
        }
        for sdk in ["go", "dotnet"] {
            assert_eq!(parsed(Shape::Raw, &temporary()), shapes[sdk], "{sdk}");
        }
    }

    #[test]
    fn writes_what_botocore_reads() {
        let expected = json!({
            "Version": 1,
            "AccessKeyId": "AKIDFAKETMP",
            "SecretAccessKey": "FAKETMPKEY=",
            "SessionToken": "FAKETOKEN",
            "Expiration": "2023-11-14T22:43:20Z",
        });
        assert_eq!(parsed(Shape::AwsProcess, &temporary()), expected);
    }

    #[test]
    fn writes_configurations_of_tencents_tools() {
        let bucket = NamedBucket {
            alias: "photos".into(),
            bucket: "shared-1250000000".into(),
            region: "ap-guangzhou".into(),
        };
        let of = |shape, buckets: &[_]| render(shape, &temporary(), Duration::ZERO, buckets);
        let cli = of(Shape::Cos, std::slice::from_ref(&bucket));
        for line in [
            "    secretid: \"AKIDFAKETMP\"\n",
            "    sessiontoken: \"FAKETOKEN\"\n",
            "    mode: SecretKey\n",
            "  - name: \"shared-1250000000\"\n    alias: \"photos\"\n",
            "    endpoint: \"cos.ap-guangzhou.myqcloud.com\"\n",
        ] {
            assert!(cli.contains(line), "{}", *cli);
        }
        assert!(of(Shape::Cos, &[]).ends_with("buckets: []\n"));
        assert_eq!(
            *of(Shape::Coscmd, &[bucket]),
            "[common]\nsecret_id = AKIDFAKETMP\nsecret_key = FAKETMPKEY=\ntoken = FAKETOKEN\n\
             bucket = shared-1250000000\nregion = ap-guangzhou\nschema = https\n"
        );
    }

    #[test]
    fn quotes_for_a_shell() {
        let permanent = Credential::new("A'B $(x)".into(), Secret::new("K"), None, None).unwrap();
        let text = render(Shape::Env, &permanent, Duration::ZERO, &[]);
        assert!(
            text.starts_with("export TENCENTCLOUD_SECRET_ID='A'\\''B $(x)'\n"),
            "{}",
            *text
        );
        assert!(!text.contains("TOKEN") && !text.contains("EXPIRATION"));
        let text = render(Shape::Env, &temporary(), Duration::ZERO, &[]);
        assert!(text.contains("export AWS_SESSION_TOKEN='FAKETOKEN'\n"));
        assert_eq!(text.lines().count(), 8);
    }
}
