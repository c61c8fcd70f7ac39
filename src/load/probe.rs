//! Isolation probes: a tenant requests another tenant's keys, and must be refused.

use http::Method;

use super::client::Reply;
use super::content::Content;
use super::listing::ListedPage;
use super::perform::LoadCaller;
use super::report::EXAMPLES;
use super::request::{Draft, Payload, copy_source};
use super::stats::OperationFailure;
use super::upload::{Slice, UploadForm};
use super::worker::Worker;

/// The kind of request.
#[derive(Clone, Copy, Debug)]
enum Probe {
    Get,
    Head,
    Put,
    Delete,
    List,
    CopyFrom,
}

const PROBES: [Probe; 6] = [
    Probe::Get,
    Probe::Head,
    Probe::Put,
    Probe::Delete,
    Probe::List,
    Probe::CopyFrom,
];
/// Maximum number of other tenants that are tried until one has an account of its own and an object.
const TRIES: usize = 8;

impl Worker {
    /// `tenant` requests a key of another tenant on the target.
    pub(super) async fn probe(&self, tenant: usize) {
        let Some((other, id)) = self.neighbour(tenant) else {
            return;
        };
        let (Some(caller), Some(account)) = (self.caller(0, tenant), self.plan.account(0, other))
        else {
            return;
        };
        let probe = self
            .random
            .borrow_mut()
            .choice(PROBES)
            .unwrap_or(Probe::Get);
        // The put of a probe has a name of its own, so that the sweep finds it as a phantom.
        let id = match probe {
            Probe::Put => self.ledger.borrow_mut().serial(false).0,
            _ => id,
        };
        let key = self.key(0, other, id);
        let folder = self.plan.folder(0, other, self.thread);
        let own = self.key(0, tenant, id);
        let draft = |method| Draft::new(method, &account.bucket, &key);
        let draft = match probe {
            Probe::Get => draft(Method::GET),
            Probe::Head => draft(Method::HEAD),
            Probe::Delete => draft(Method::DELETE),
            Probe::Put => {
                let content = Slice::whole(Content::new(id, 16));
                draft(Method::PUT).with_payload(Payload::Content(content, UploadForm::SIGNED))
            }
            Probe::List => Draft::new(Method::GET, &account.bucket, "")
                .with("list-type", "2")
                .with("prefix", folder),
            Probe::CopyFrom => caller
                .draft(Method::PUT, &own)
                .with_header("x-amz-copy-source", &copy_source(&account.bucket, &key)),
        };
        let reply = self.send_probe(&caller, draft).await;
        self.judge_probe(probe, &key, tenant, &reply);
    }

    async fn send_probe(
        &self,
        caller: &LoadCaller<'_>,
        draft: Draft<'_>,
    ) -> Result<Reply, OperationFailure> {
        let host = caller.address.host(draft.bucket);
        let request = caller.sign(draft)?;
        caller.client.call(&host, request).await
    }

    fn judge_probe(
        &self,
        probe: Probe,
        key: &str,
        tenant: usize,
        reply: &Result<Reply, OperationFailure>,
    ) {
        let name = self
            .plan
            .tenants
            .get(tenant)
            .map_or("", |tenant| tenant.name.as_str());
        let mut measured = self.shared.measured();
        let isolation = &mut measured.isolation;
        isolation.probes += 1;
        match reply {
            // An empty page shows no key of another tenant: a store may return it for any prefix.
            Ok(reply) if matches!(probe, Probe::List) && shows_nothing(reply) => {
                isolation.inconclusive += 1;
            }
            Ok(_) => {
                isolation.holes += 1;
                if isolation.examples.len() < EXAMPLES {
                    isolation
                        .examples
                        .push(format!("{probe:?} by {name} succeeded: {key}"));
                }
            }
            Err(failure) if failure.is_refusal() => isolation.refused += 1,
            Err(_) => isolation.inconclusive += 1,
        }
    }

    /// Another tenant with another account and an object of its own.
    fn neighbour(&self, tenant: usize) -> Option<(usize, u64)> {
        let place = |tenant| {
            let account = self.plan.account(0, tenant)?;
            Some((&account.bucket, &account.prefix))
        };
        let mut tries =
            (0..TRIES).map(|_| self.random.borrow_mut().usize(..self.plan.tenants.len()));
        tries.find_map(|other| {
            if place(other) == place(tenant) {
                return None;
            }
            let point = self.point();
            let held = self.ledger.borrow().any(self.group(0, other), point)?;
            Some((other, held.id))
        })
    }
}

fn shows_nothing(reply: &Reply) -> bool {
    ListedPage::parse(&reply.body).is_some_and(|page| page.objects.is_empty())
}
