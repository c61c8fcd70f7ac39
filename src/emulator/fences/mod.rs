//! Properties that compare both checks of a request: a temporary key, as the emulator's CAM judges it, never
//! allows more than the grants that it was made for.

mod raw_policy;
mod session;

use proptest::prelude::*;

use self::raw_policy::some_statement;
use super::cam::{Attempt, ParsedPolicy};
use super::gate::action_of;
use super::settings::is_action;
use crate::config::{self, PrefixPattern};
use crate::encoding::percent::push_encoded;
use crate::s3::vend::VendRequest;
use crate::s3::{CopySource, Local, ObjectKey, Operation, Performer, Query, S3Request, Target};
use crate::tenant::policy::tenant_policy;
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
}
