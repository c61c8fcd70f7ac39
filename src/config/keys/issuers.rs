//! The keys of `[issuers.NAME]`.

use std::time::Duration;

use super::{
    ASSUME_ROLE, ConfigKey, ConfigTable, Default, ENDPOINT, FEDERATION, NAME, PATH, SECOND, STATIC,
    Value, WEB_IDENTITY, key,
};

const fn issuer_key(
    kinds: &'static [&'static str],
    name: &'static str,
    value: Value,
    default: Default,
    meaning: &'static str,
) -> ConfigKey {
    ConfigKey {
        name,
        value,
        default,
        meaning,
        kinds,
    }
}

/// GetFederationToken: 36 hours for a sub-account (1312/48195).
const FEDERATION_LIFE: Value = Value::Duration(SECOND, Duration::from_hours(36));

/// `AssumeRole` and `AssumeRoleWithWebIdentity`: 43 200 s (1312/48197).
const ROLE_LIFE: Value = Value::Duration(SECOND, Duration::from_hours(12));

/// Calls in a second that STS takes of one account, and of web identities (1312/48195; the page of
/// `AssumeRoleWithWebIdentity`).
const CALLS: Value = Value::Count(1, 600);

const WEB_CALLS: Value = Value::Count(1, 20);

const OF_ROLES: &[&str] = &[ASSUME_ROLE, WEB_IDENTITY];

const WITH_A_KEY: &[&str] = &[FEDERATION, ASSUME_ROLE, STATIC];

const CALLS_SIGNED: &[&str] = &[FEDERATION, ASSUME_ROLE];

pub(super) static ISSUER: ConfigTable = ConfigTable {
    about: "An identity in Tencent Cloud (CAM) from which temporary keys come. Each `kind` has its own keys: see [Issuers](configuration-guide.md#issuers).",
    keys: &[
        key(
            "kind",
            Value::Choice(&[FEDERATION, ASSUME_ROLE, WEB_IDENTITY, STATIC]),
            Default::Required("\"federation\""),
            "How the issuer gets keys for tenants.",
        ),
        issuer_key(
            &[FEDERATION],
            "duration",
            FEDERATION_LIFE,
            Default::Is("2h"),
            "Lifetime of temporary keys. STS allows at most 2h for the key of a root account.",
        ),
        issuer_key(
            OF_ROLES,
            "duration",
            ROLE_LIFE,
            Default::Is("2h"),
            "Lifetime of temporary keys.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "calls_per_second",
            CALLS,
            Default::Is("100"),
            "Maximum average rate of STS calls. Tencent Cloud allows an account 600.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "burst",
            CALLS,
            Default::Is("200"),
            "Maximum number of STS calls at once after a pause.",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "calls_per_second",
            WEB_CALLS,
            Default::Is("15"),
            "Maximum average rate of STS calls. Tencent Cloud allows web identities 20.",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "burst",
            WEB_CALLS,
            Default::Is("15"),
            "Maximum number of STS calls at once after a pause.",
        ),
        issuer_key(
            WITH_A_KEY,
            "secret_id",
            Value::Secret,
            Default::Computed("required without another key"),
            "The issuer's own SecretId.",
        ),
        issuer_key(
            WITH_A_KEY,
            "secret_key",
            Value::Secret,
            Default::Computed("required without another key"),
            "The issuer's own SecretKey.",
        ),
        issuer_key(
            &[ASSUME_ROLE, STATIC],
            "token",
            Value::Secret,
            Default::Absent,
            "Session token, if the issuer's own key is a temporary one.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "profile",
            NAME,
            Default::Absent,
            "Profile of Tencent's credentials file that has the issuer's own key.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "profile_file",
            PATH,
            Default::Computed(
                "`TENCENTCLOUD_CREDENTIALS_FILE`, `~/.tencentcloud/credentials` or `/etc/tencentcloud/credentials`",
            ),
            "The credentials file for `profile`.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "command",
            Value::Texts("word of a command"),
            Default::Absent,
            "Program (absolute path) and arguments. It prints the issuer's own key as JSON.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "command_env",
            Value::Texts("variable"),
            Default::Absent,
            "Further environment variables that `command` gets, besides `PATH`, `HOME` and the like.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "cvm_role",
            NAME,
            Default::Absent,
            "Role of this machine, whose key its metadata service gives.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "metadata_endpoint",
            ENDPOINT,
            Default::Is("http://metadata.tencentyun.com"),
            "The metadata service for `cvm_role`, over plain HTTP.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "base",
            NAME,
            Default::Absent,
            "Another issuer, of kind assume-role or web-identity, whose key signs the calls.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "role_arn",
            Value::Text("role ARN"),
            Default::Required("\"qcs::cam::uin/UIN:roleName/NAME\""),
            "The role to assume.",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "role_arn",
            Value::Text("role ARN"),
            Default::Computed("`TKE_ROLE_ARN`"),
            "The role to assume.",
        ),
        issuer_key(
            OF_ROLES,
            "session_name",
            Value::Text("name with or without `{tenant}`"),
            Default::Is("{tenant}"),
            "The `RoleSessionName` that Tencent's audit shows.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "external_id",
            Value::Text("2 to 128 characters"),
            Default::Absent,
            "The external ID that the role's trust policy requires.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "source_identity",
            Value::Text("1 to 128 characters"),
            Default::Absent,
            "The `SourceIdentity` that Tencent's audit shows.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "tags",
            Value::Tables(&TAG),
            Default::Absent,
            "",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "provider_id",
            NAME,
            Default::Computed("`TKE_PROVIDER_ID`"),
            "Name of the identity provider in CAM.",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "token_file",
            PATH,
            Default::Computed("`TKE_WEB_IDENTITY_TOKEN_FILE` or `TKE_IDENTITY_TOKEN_FILE`"),
            "File with the token. cosgate reads it at each call.",
        ),
    ],
};

static TAG: ConfigTable = ConfigTable {
    about: "Session tags of an assume-role issuer, at most 50.",
    keys: &[
        key(
            "key",
            Value::Text("up to 128 characters"),
            Default::Required("\"team\""),
            "Key of the tag.",
        ),
        key(
            "value",
            Value::Text("up to 256 characters"),
            Default::Required("\"storage\""),
            "Value of the tag.",
        ),
    ],
};
