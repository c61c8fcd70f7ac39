//! Properties that compare both checks of a request: a temporary key, as the emulator's CAM judges it, never
//! allows more than the grants that it was made for.

use proptest::prelude::*;

use super::cam::{Attempt, ParsedPolicy};
use super::gate::action_of;
use super::settings::is_action;
use crate::config::{self, PrefixPattern};
use crate::encoding::percent::push_encoded;
use crate::s3::vend::VendRequest;
use crate::s3::{CopySource, Local, ObjectKey, Operation, Performer, Query, S3Request, Target};
use crate::tenant::policy::{client_policy, tenant_policy};
use crate::tenant::vend::narrowed;
use crate::tenant::{Grant, ListingPage, Permit, Tenant};

const BUCKETS: [&str; 2] = ["one-1250000000", "two-1250000000"];
const REGIONS: [&str; 2] = ["ap-beijing", "ap-guangzhou"];

/// A key or prefix by its name at COS, with its bucket and region.
#[derive(Clone, Debug)]
struct CosName {
    bucket: &'static str,
    region: &'static str,
    name: String,
}

/// The policy of a temporary key, evaluated by the emulator.
struct FenceKey(Option<ParsedPolicy>);

impl FenceKey {
    fn of(tenant: &Tenant) -> Self {
        // STS refuses an empty policy, so that there is no key.
        Self::read(&tenant_policy(tenant).json())
    }

    fn read(policy: &str) -> Self {
        let policy = ParsedPolicy::parse(policy).ok();
        Self(policy.map(|policy| policy.of_account("1250000000")))
    }

    fn may(&self, action: &str, cos_name: &CosName, facts: &[(&'static str, String)]) -> bool {
        let path = format!("{}/{}", cos_name.bucket, cos_name.name);
        self.allows(action, cos_name.region, Some(&path), facts)
    }

    fn allows(
        &self,
        action: &str,
        region: &str,
        path: Option<&str>,
        facts: &[(&'static str, String)],
    ) -> bool {
        let attempt = Attempt {
            action,
            region,
            appid: "1250000000",
            path,
            facts,
        };
        self.0.as_ref().is_some_and(|key| key.allows(&attempt))
    }

    /// Tencent's pages allow two readings: the prefix as a key, or as a condition. The result is for each.
    fn may_list(&self, action: &str, prefix: &CosName) -> [bool; 2] {
        let mut encoded = String::new();
        push_encoded(&mut encoded, prefix.name.as_bytes());
        let facts = [("cos:prefix", encoded)];
        let bucket = CosName {
            name: String::new(),
            ..prefix.clone()
        };
        [
            self.may(action, prefix, &facts),
            self.may(action, &bucket, &facts),
        ]
    }
}

/// The grants in whose bucket `cos_name` lies, each with the name that the client uses.
fn names<'t>(
    tenant: &'t Tenant,
    cos_name: &'t CosName,
) -> impl Iterator<Item = (&'t Grant, &'t str)> {
    tenant.grants.iter().filter_map(|grant| {
        let is_there = grant.bucket == cos_name.bucket && grant.region == cos_name.region;
        let name = cos_name.name.strip_prefix(&grant.root)?;
        is_there.then_some((grant, name))
    })
}

fn request<'r>(
    operation: Operation,
    grant: &'r Grant,
    key: Option<&str>,
    query: Query<'r>,
) -> S3Request<'r> {
    S3Request {
        operation,
        bucket: Some(grant.name.as_str().into()),
        key: key.map(|key| ObjectKey::from_decoded(key.to_owned()).unwrap()),
        query,
        copy_source: None,
    }
}

/// Whether some client request that the proxy allows for the tenant becomes this one at COS.
fn proxy_allows(
    tenant: &Tenant,
    operation: Operation,
    cos_name: &CosName,
    source: &CosName,
) -> bool {
    names(tenant, cos_name).any(|(grant, name)| {
        let none = Query::parse("").unwrap();
        match operation {
            Operation::DeleteObjects => {
                let permit = Permit::for_test(tenant, request(operation, grant, None, none));
                permit.is_ok_and(|permit| permit.may_delete(name, false))
            }
            Operation::CopyObject | Operation::UploadPartCopy => {
                names(tenant, source).any(|(from, source)| {
                    let request_of_copy = S3Request {
                        copy_source: Some(CopySource {
                            bucket: from.name.clone(),
                            key: ObjectKey::from_decoded(source.to_owned()).unwrap(),
                            version_id: None,
                        }),
                        ..request(operation, grant, Some(name), none.clone())
                    };
                    Permit::for_test(tenant, request_of_copy).is_ok()
                })
            }
            _ if is_listing(operation) => {
                let query = format!("prefix={name}");
                let listing = request(operation, grant, None, Query::parse(&query).unwrap());
                let permit = Permit::for_test(tenant, listing);
                permit.is_ok_and(|permit| *permit.listing_page() == ListingPage::AsRequested)
            }
            _ => Permit::for_test(tenant, request(operation, grant, Some(name), none)).is_ok(),
        }
    })
}

/// The operations that need a permission at COS. A form reaches COS as a `PutObject`, and an object's attributes
/// as a `HeadObject`. cosgate itself responds to reads of a bucket's configuration.
fn operations() -> impl Iterator<Item = Operation> {
    let is_requested = |operation: &Operation| match operation.performer() {
        Performer::Cos => true,
        Performer::AsPutObject | Performer::CosByHead | Performer::CosIfGranted(_) => false,
        Performer::Cosgate(local) => matches!(
            local,
            Local::Buckets | Local::CreatedBefore | Local::Location | Local::Region
        ),
    };
    Operation::ALL.iter().copied().filter(is_requested)
}

/// The action that the embedded COS checks.
fn right_of(operation: Operation) -> &'static str {
    action_of(operation.name()).unwrap_or_else(|| {
        assert!(is_action(operation.action()), "{operation:?}");
        operation.action()
    })
}

fn is_listing(operation: Operation) -> bool {
    operation.target() == Target::Listing
}

fn some_cos_name() -> impl Strategy<Value = CosName> {
    let bucket = prop::sample::select(BUCKETS.to_vec());
    let region = prop::sample::select(REGIONS.to_vec());
    // Each rest of the name is a key: no slash stands where a client's key could begin.
    let name = "([ab]{1,2}/){0,2}[ab]{1,2}";
    (bucket, region, name).prop_map(|(bucket, region, name)| CosName {
        bucket,
        region,
        name,
    })
}

fn some_pattern() -> impl Strategy<Value = PrefixPattern> {
    prop_oneof![
        Just(PrefixPattern::Any),
        "[ab]{1,2}(/[ab]{0,2})?".prop_map(PrefixPattern::Exact),
        "[ab]{1,2}(/[ab]{0,2})?".prop_map(PrefixPattern::StartsWith),
    ]
}

fn some_grant() -> impl Strategy<Value = Grant> {
    let actions: Vec<String> = operations().map(|o| o.action().into()).collect();
    let max = actions.len();
    (
        some_cos_name(),
        prop::sample::select(vec!["", "a/", "a/b/", "b/"]),
        prop::collection::vec(some_pattern(), 0..3),
        prop::sample::subsequence(actions, 0..=max),
    )
        .prop_map(|(cos_name, root, prefixes, actions)| Grant {
            name: String::new(),
            bucket: cos_name.bucket.into(),
            region: cos_name.region.into(),
            root: root.into(),
            prefixes,
            actions,
            headers: Vec::new(),
            policy: None,
            attachment: false,
            cors: [].into(),
            session: None,
        })
}

fn some_tenant() -> impl Strategy<Value = Tenant> {
    prop::collection::vec(some_grant(), 0..4).prop_map(|mut grants| {
        for (index, grant) in grants.iter_mut().enumerate() {
            grant.name = format!("alias-{index}");
        }
        Tenant {
            index: 0,
            name: "acme".into(),
            grants,
            limits: None,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn temporary_key_allows_what_the_proxy_allows(
        tenant in some_tenant(),
        cos_names in prop::collection::vec((some_cos_name(), some_cos_name()), 8),
    ) {
        let key = FenceKey::of(&tenant);
        for (cos_name, source) in &cos_names {
            for operation in operations() {
                let action = right_of(operation);
                match operation {
                    Operation::ListBuckets => prop_assert!(!key.allows(action, cos_name.region, None, &[])),
                    // The proxy responds itself; the key must still be limited.
                    Operation::CreateBucket | Operation::GetBucketLocation | Operation::HeadBucket => {
                        let bucket = CosName { name: String::new(), ..cos_name.clone() };
                        let whole = |grant: &Grant| grant.root.is_empty() && grant.covers("") && grant.allows(action);
                        let granted = names(&tenant, &bucket).any(|(grant, _)| whole(grant));
                        prop_assert_eq!(key.may(action, &bucket, &[]), granted, "{:?}", operation);
                    }
                    _ if operation.target() == Target::WholeBucket => {
                        let bucket = CosName { name: String::new(), ..cos_name.clone() };
                        let proxy = names(&tenant, &bucket).any(|(grant, _)| {
                            let none = Query::parse("").unwrap();
                            Permit::for_test(&tenant, request(operation, grant, None, none)).is_ok()
                        });
                        prop_assert_eq!(key.may(action, &bucket, &[]), proxy, "{:?}", operation);
                    }
                    // The key may do more: in a virtual bucket the proxy refuses it.
                    _ if operation.target() == Target::RealKey => {
                        let proxy = proxy_allows(&tenant, operation, cos_name, source);
                        prop_assert!(key.may(action, cos_name, &[]) || !proxy, "{:?} {:?}", operation, cos_name);
                    }
                    _ if is_listing(operation) => {
                        let proxy = proxy_allows(&tenant, operation, cos_name, source);
                        prop_assert_eq!(key.may_list(action, cos_name), [proxy; 2], "{:?} {:?}", operation, cos_name);
                    }
                    _ => {
                        let reads = operation.copy_source_action().is_none_or(|read| key.may(read, source, &[]));
                        let proxy = proxy_allows(&tenant, operation, cos_name, source);
                        prop_assert_eq!(key.may(action, cos_name, &[]) && reads, proxy, "{:?} {:?}", operation, cos_name);
                    }
                }
            }
        }
    }

    /// If COS gives a listing's page, the key may list that prefix, and all keys below it are granted. If the
    /// grant gives the page, it shows only the way to what is granted.
    #[test]
    fn temporary_key_may_list_what_the_proxy_lists(
        tenant in some_tenant(),
        queries in prop::collection::vec(("[ab/]{0,3}", "/?", "[ab/]{0,3}", 0..4_usize), 8),
    ) {
        let key = FenceKey::of(&tenant);
        let found = |known: &[&'static str], name: &str| known.iter().copied().find(|k| *k == name).unwrap();
        for grant in &tenant.grants {
            for (operation, (prefix, delimiter, marker, room)) in operations().filter(|o| is_listing(*o)).zip(queries.iter().cycle()) {
                let query = format!(
                    "prefix={prefix}&delimiter={delimiter}&marker={marker}&key-marker={marker}&start-after={marker}&max-keys={room}&max-uploads={room}"
                );
                let listing = request(operation, grant, None, Query::parse(&query).unwrap());
                let Ok(permit) = Permit::for_test(&tenant, listing) else { continue };
                prop_assert_eq!(permit.grant().unwrap().bucket.as_str(), grant.bucket.as_str());
                let listed = match permit.listing_page() {
                    ListingPage::AsRequested => prefix,
                    ListingPage::Below { prefix: below, .. } => {
                        prop_assert!(below.starts_with(prefix.as_str()));
                        below
                    }
                    ListingPage::CommonPrefixes { names, .. } => {
                        for name in names {
                            let leads = |pattern: &PrefixPattern| pattern.start().starts_with(name.as_str());
                            prop_assert!(name.starts_with(prefix.as_str()) && grant.prefixes.iter().any(leads));
                        }
                        continue;
                    }
                    ListingPage::Folder => return Err(TestCaseError::fail("a listing is no folder")),
                };
                prop_assert!(grant.covers_list(listed));
                let cos_name = CosName {
                    bucket: found(&BUCKETS, &grant.bucket),
                    region: found(&REGIONS, &grant.region),
                    name: grant.upstream_name(listed).into_owned(),
                };
                prop_assert_eq!(key.may_list(right_of(operation), &cos_name), [true; 2]);
            }
        }
    }

    /// However a client narrows its key, the key allows no more than the tenant's own key. It also respects the
    /// denials of another grant's policy.
    #[test]
    fn client_key_allows_no_more_than_the_tenant_key(
        tenant in some_tenant(),
        statements in prop::collection::vec(some_statement(), 1..4),
        narrowing in (0..4_usize, prop::option::of(some_pattern()), prop::option::of(prop::sample::select(vec!["GetObject", "read", "write", "list"]))),
        cos_names in prop::collection::vec(some_cos_name(), 8),
    ) {
        let mut tenant = tenant;
        for grant in &mut tenant.grants {
            (grant.bucket, grant.region) = (BUCKETS[0].into(), REGIONS[0].into());
        }
        let raw = config::RawPolicy::new(config::cam::Policy::new(statements), BUCKETS[0], REGIONS[0]);
        if let (Ok(raw), Some(grant)) = (raw, tenant.grants.first_mut()) {
            grant.root = String::new();
            grant.policy = Some(raw.into());
        }
        let (number, prefix, actions) = narrowing;
        let mut body = serde_json::json!({"bucket": format!("alias-{number}")});
        if let Some(prefix) = prefix {
            body["allowPrefixes"] = prefix.to_string().into();
        }
        if let Some(actions) = actions {
            body["allowActions"] = actions.into();
        }
        let vend_request = VendRequest::parse(body.to_string().as_bytes()).unwrap();
        let Ok((_, policy)) = narrowed(&tenant, &vend_request) else { return Ok(()) };
        let given = FenceKey::read(&policy.json());
        let own = FenceKey::of(&tenant);
        for CosName { name, .. } in cos_names {
            let cos_name = &CosName { bucket: BUCKETS[0], region: REGIONS[0], name };
            for operation in operations() {
                let action = right_of(operation);
                prop_assert!(!given.may(action, cos_name, &[]) || own.may(action, cos_name, &[]), "{} {:?}", action, cos_name);
                let (given, own) = (given.may_list(action, cos_name), own.may_list(action, cos_name));
                prop_assert!(given.iter().zip(&own).all(|(given, own)| given <= own), "{} {:?}", action, cos_name);
            }
        }
    }

    /// A grant with a policy: COS allows each request that the proxy allows. Listings are checked by their prefix,
    /// as the policy's own resources are.
    #[test]
    fn raw_policy_key_allows_what_the_proxy_allows(
        statements in prop::collection::vec(some_statement(), 1..4),
        name in "[ab/]{0,4}",
    ) {
        let policy = config::cam::Policy::new(statements);
        let Ok(policy) = config::RawPolicy::new(policy, BUCKETS[0], REGIONS[0]) else { return Ok(()) };
        let key = FenceKey::read(&policy.policy.json());
        let cos_name = CosName { bucket: BUCKETS[0], region: REGIONS[0], name: name.clone() };
        for action in RAW_ACTIONS {
            if policy.allows(action, &name) {
                prop_assert!(key.may(action, &cos_name, &[]), "{}", action);
            }
        }
        if policy.allows_list(RAW_ACTIONS[0], &name) {
            prop_assert!(key.may_list(RAW_ACTIONS[0], &cos_name).contains(&true));
        }
    }
}

/// The actions that S3 checks for an operation, on the latest version and on one that the request names
/// (AWS's "Actions, resources, and condition keys for Amazon S3").
fn of_aws(operation: Operation) -> Option<[&'static str; 2]> {
    Some(match operation {
        Operation::AbortMultipartUpload => ["s3:AbortMultipartUpload"; 2],
        Operation::CompleteMultipartUpload
        | Operation::CreateMultipartUpload
        | Operation::PutObject
        | Operation::UploadPart => ["s3:PutObject"; 2],
        Operation::DeleteObject | Operation::DeleteObjects => {
            ["s3:DeleteObject", "s3:DeleteObjectVersion"]
        }
        Operation::DeleteObjectTagging => {
            ["s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"]
        }
        Operation::GetObject | Operation::HeadObject => ["s3:GetObject", "s3:GetObjectVersion"],
        Operation::GetObjectTagging => ["s3:GetObjectTagging", "s3:GetObjectVersionTagging"],
        Operation::ListMultipartUploads => ["s3:ListBucketMultipartUploads"; 2],
        Operation::ListObjects | Operation::ListObjectsV2 => ["s3:ListBucket"; 2],
        Operation::ListObjectVersions => ["s3:ListBucketVersions"; 2],
        Operation::ListParts => ["s3:ListMultipartUploadParts"; 2],
        Operation::PutObjectTagging => ["s3:PutObjectTagging", "s3:PutObjectVersionTagging"],
        _ => return None,
    })
}

/// Whether `text` matches `pattern`: tries every split.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|taken| is_like(rest, &text[taken..])),
        Some((byte, rest)) => text.first() == Some(byte) && is_like(rest, &text[1..]),
    }
}

/// AWS's evaluation of a policy document. `prefix` is the prefix of a listing.
fn aws_allows(document: &serde_json::Value, action: &str, arn: &str, prefix: Option<&str>) -> bool {
    let texts = |value: &serde_json::Value| -> Vec<String> {
        match value {
            serde_json::Value::String(one) => vec![one.clone()],
            list => serde_json::from_value(list.clone()).unwrap(),
        }
    };
    let like = |value: &serde_json::Value, text: &str| {
        let all = texts(value);
        all.iter()
            .any(|pattern| is_like(pattern.as_bytes(), text.as_bytes()))
    };
    let applies = |statement: &&serde_json::Value| {
        let condition = statement["Condition"]["StringLike"]["s3:prefix"].clone();
        let holds = condition.is_null() || prefix.is_some_and(|prefix| like(&condition, prefix));
        like(&statement["Action"], action) && like(&statement["Resource"], arn) && holds
    };
    let statements = document["Statement"].as_array().unwrap();
    let mut applying = statements.iter().filter(applies).map(|s| &s["Effect"]);
    let all: Vec<_> = applying.by_ref().collect();
    all.iter().any(|effect| *effect == "Allow") && !all.iter().any(|effect| *effect == "Deny")
}

/// Whether AWS allows `operation` on `name` in `bucket`. `version` chooses the latest version or a named one.
fn aws_lets(
    document: &serde_json::Value,
    operation: Operation,
    (bucket, name): (&str, &str),
    version: usize,
) -> bool {
    let action = of_aws(operation).unwrap()[version];
    if !is_listing(operation) {
        return aws_allows(
            document,
            action,
            &format!("arn:aws:s3:::{bucket}/{name}"),
            None,
        );
    }
    // The listing of uploads has no s3:prefix.
    let prefix = (operation != Operation::ListMultipartUploads).then_some(name);
    aws_allows(document, action, &format!("arn:aws:s3:::{bucket}"), prefix)
}

/// `document` without denials that cover only one kind of version. COS has one action for all versions, so that
/// the proxy enforces these denials and its key cannot contain them.
fn expressible(
    document: &serde_json::Value,
    operation: Operation,
    named: (&str, &str),
) -> serde_json::Value {
    let mut expressible = document.clone();
    let statements = expressible["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| {
        let mut allowing = statement.clone();
        allowing["Effect"] = "Allow".into();
        let alone = serde_json::json!({"Version": "2012-10-17", "Statement": [allowing]});
        let about = [0, 1].map(|version| aws_lets(&alone, operation, named, version));
        statement["Effect"] == "Allow" || about[0] == about[1]
    });
    expressible
}

fn some_session() -> impl Strategy<Value = serde_json::Value> {
    let actions = prop::sample::subsequence(
        vec![
            "s3:*",
            "s3:Get*",
            "s3:*Object",
            "s3:GetObject",
            "s3:GetObjectVersion",
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:DeleteObjectVersion",
            "s3:ListBucket",
            "s3:ListBucketVersions",
            "s3:ListBucketMultipartUploads",
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
            "s3:GetObjectTagging",
        ],
        1..=4,
    );
    let name = "(\\*/)?([ab]{1,2}/){0,2}[ab]?\\*?";
    let resource = prop_oneof![
        2 => Just("*".to_owned()),
        3 => (0..3_usize).prop_map(|n| format!("arn:aws:s3:::alias-{n}")),
        6 => (0..3_usize, name).prop_map(|(n, name)| format!("arn:aws:s3:::alias-{n}/{name}")),
    ];
    let prefixes = prop::option::of(prop::collection::vec("([ab]{1,2}/){0,2}\\*?", 1..3));
    let statement = (
        0..4_usize,
        actions,
        prop::collection::vec(resource, 1..4),
        prefixes,
    );
    let statement = statement.prop_map(|(effect, actions, resources, prefixes)| {
        let effect = if effect == 0 { "Deny" } else { "Allow" };
        let mut statement =
            serde_json::json!({"Effect": effect, "Action": actions, "Resource": resources});
        if let Some(prefixes) = prefixes {
            statement["Condition"] = serde_json::json!({"StringLike": {"s3:prefix": prefixes}});
        }
        statement
    });
    prop::collection::vec(statement, 1..4).prop_map(
        |statements| serde_json::json!({"Version": "2012-10-17", "Statement": statements}),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// A session may do exactly what its caller may and its policy allows, as AWS evaluates it. Its key for COS
    /// allows all of that, and nothing beyond what the caller may and the policy allows of some version.
    /// A key for a client allows only what the policy allows of every version.
    #[test]
    fn session_allows_what_caller_and_policy_allow(
        tenant in some_tenant(),
        document in some_session(),
        cos_names in prop::collection::vec(some_cos_name(), 8),
    ) {
        let policy = config::SessionPolicy::parse(&document.to_string()).unwrap();
        let session = tenant.narrowed(&policy.into());
        let (own, key) = (FenceKey::of(&tenant), FenceKey::of(&session));
        let client = FenceKey::read(&client_policy(&session).json());
        let denies = document["Statement"].as_array().unwrap().iter().any(|s| s["Effect"] == "Deny");
        for cos_name in &cos_names {
            for operation in operations().filter(|operation| of_aws(*operation).is_some()) {
                let action = operation.action();
                let (mut lets, mut may_hold) = ([false; 2], false);
                for (grant, name) in names(&tenant, cos_name) {
                    let alone = |of: &Tenant| Tenant {
                        index: 0,
                        name: String::new(),
                        grants: of.grants.iter().filter(|g| g.name == grant.name).cloned().collect(),
                        limits: None,
                    };
                    let aws = [0, 1].map(|version| aws_lets(&document, operation, (&grant.name, name), version));
                    let whole = proxy_allows(&alone(&tenant), operation, cos_name, cos_name);
                    let narrowed = proxy_allows(&alone(&session), operation, cos_name, cos_name);
                    prop_assert_eq!(narrowed, whole && aws[0], "{:?} {} {}", operation, grant.name, name);
                    let grant = session.grants.iter().find(|g| g.name == grant.name).unwrap();
                    if !is_listing(operation) {
                        let of_version = grant.allows_on_version(action, name, true);
                        prop_assert_eq!(of_version, whole && aws[1], "{:?} {} {}", operation, grant.name, name);
                    }
                    let expressed = expressible(&document, operation, (&grant.name, name));
                    let may_do = |version| aws_lets(&expressed, operation, (&grant.name, name), version);
                    may_hold |= whole && (may_do(0) || may_do(1));
                    lets = [lets[0] || (whole && (aws[0] || aws[1])), lets[1] || (whole && aws[0] && aws[1])];
                }
                let allowed = |key: &FenceKey| {
                    if is_listing(operation) {
                        key.may_list(action, cos_name)
                    } else {
                        [key.may(action, cos_name, &[]); 2]
                    }
                };
                let proxy = proxy_allows(&session, operation, cos_name, cos_name);
                prop_assert!(denies || !proxy || allowed(&key) == [true; 2], "{:?} {:?}", operation, cos_name);
                for ((mine, whole), handed) in allowed(&key).into_iter().zip(allowed(&own)).zip(allowed(&client)) {
                    prop_assert!(!mine || (whole && may_hold), "{:?} {:?}", operation, cos_name);
                    prop_assert!(!handed || (mine && lets[1]), "{:?} {:?}", operation, cos_name);
                }
            }
        }
    }
}

/// The first action is a listing.
const RAW_ACTIONS: [&str; 3] = [
    "name/cos:GetBucket",
    "name/cos:GetObject",
    "name/cos:PutObject",
];

/// The forms of a resource in Tencent's documents and SDKs, and some invalid ones.
fn some_form() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "qcs::cos:ap-beijing:uid/1250000000:one-1250000000/NAME",
            "qcs::cos:ap-beijing:uid/1250000000:prefix//1250000000/one/NAME",
        ]),
        1 => prop::sample::select(vec![
            "*",
            "qcs::cos:*:uid/1250000000:*",
            "qcs::cos:*:uid/1250000000:one-1250000000/NAME",
            "qcs::cos::uid/1250000000:prefix//1250000000/one/NAME",
            "qcs::cos:ap-beijing::one-1250000000/NAME",
            "qcs::cos:ap-beijing:uid/1250000000:one-1250000000",
            "qcs::cos:ap-beijing:uid/1250000000:prefix//1250000000/one",
            "qcs::cos:ap-beijing:uid/1250000000:prefix//1250000000/one*",
            "qcs::cos:ap-beijing:uid/1250000000:prefix//1250000000/NAME",
            "qcs::cos:ap-beijing:uid/1250000000:prefix/1250000000/one/NAME",
            "qcs::cos:ap-guangzhou:uid/1250000000:prefix//1250000000/one/NAME",
            "NAME",
        ]),
    ]
}

/// Policies that the STS SDKs have sent: the embedded COS and the proxy read them alike.
#[test]
fn cos_and_proxy_read_policies_of_sts_sdks_alike() {
    let file = include_str!("../../tests/vectors/sts-sdk-policies.json");
    let file: serde_json::Value = serde_json::from_str(file).unwrap();
    let texts = |value: &serde_json::Value| -> Vec<String> {
        serde_json::from_value(value.clone()).unwrap()
    };
    let keys = texts(&file["keys"]);
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let name = format!("{} {}", case["sdk"], case["name"]);
        let (text, bucket) = (case["policy"].to_string(), case["bucket"].as_str().unwrap());
        let raw = config::cam::Policy::parse(&text).expect(&name);
        let is_conditional = raw.statement.iter().any(|s| !s.condition.is_empty());
        let raw = config::RawPolicy::new(raw, bucket, "ap-guangzhou").expect(&name);
        let (as_made, as_sent) = (FenceKey::read(&text), FenceKey::read(&raw.policy.json()));
        for (action, allowed) in case["allowed"].as_object().unwrap() {
            let allowed = texts(allowed);
            for key in &keys {
                let is_allowed = allowed.contains(key);
                let path = format!("{bucket}/{key}");
                for cos in [&as_made, &as_sent] {
                    let cos = cos.allows(action, "ap-guangzhou", Some(&path), &[]);
                    assert_eq!(cos, is_allowed, "{name}: {action} {key}");
                }
                if !is_conditional {
                    assert_eq!(
                        raw.allows(action, key),
                        is_allowed,
                        "{name}: {action} {key}"
                    );
                }
            }
        }
    }
    assert_eq!(cases.len(), 34);
}

/// The embedded STS accepts each policy that the six STS SDKs have sent, except those without an action, a
/// resource or an account.
#[test]
fn accepts_policies_of_sts_sdks() {
    let file = include_str!("../../tests/vectors/sts-policy.json");
    let file: serde_json::Value = serde_json::from_str(file).unwrap();
    let (mut good, mut odd) = (0, Vec::new());
    for case in file["cases"].as_array().unwrap() {
        for (sdk, sent) in case["sdks"].as_object().unwrap() {
            let expected = &case["expected_policy"];
            let policy = sent.get("policy").unwrap_or(expected);
            if policy.is_null() {
                continue;
            }
            match ParsedPolicy::parse(&policy.to_string()) {
                Ok(policy) if policy.other_account("1250000000").is_none() => good += 1,
                _ => odd.push(format!("{} {sdk}", case["name"].as_str().unwrap())),
            }
        }
    }
    odd.retain(|odd| !odd.starts_with("actions-empty ") && !odd.starts_with("bucket-no-dash "));
    assert_eq!(
        odd,
        ["scopes-leading-slash python"],
        "an SDK's slip: it names no resource"
    );
    assert!(good > 150, "{good}");
}

fn some_statement() -> impl Strategy<Value = config::cam::Statement> {
    let name = "(a|b)?/?(a|b|ab)?/?\\*?";
    let name = name.prop_map(|name| name.strip_prefix('/').unwrap_or(&name).to_owned());
    let resource = (name, some_form()).prop_map(|(name, form)| form.replace("NAME", &name));
    let actions = prop::sample::subsequence(
        [
            "name/cos:GetBucket",
            "name/cos:Get*",
            "name/cos:PutObject",
            "name/cos:*",
        ]
        .to_vec(),
        1..=2,
    );
    let prefix = prop::option::of(prop::sample::select(vec!["*", "a*", "a%2F*", "b%2Fa*"]));
    (
        any::<bool>(),
        actions,
        prop::collection::vec(resource, 1..3),
        prefix,
    )
        .prop_map(|(allow, actions, resource, prefix)| {
            let action = actions.iter().map(ToString::to_string).collect();
            let mut statement = config::cam::Statement::allow(action, resource);
            if !allow {
                statement.effect = config::cam::Effect::Deny;
            } else if let Some(prefix) = prefix {
                let keys = [("cos:prefix".to_owned(), prefix.into())];
                statement
                    .condition
                    .insert("string_like".into(), keys.into());
            }
            statement
        })
}
