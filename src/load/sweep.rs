//! The sweep at the end lists and reads all acknowledged objects; the clean-up removes them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use http::Method;
use tokio::task::JoinSet;

use super::client::Reply;
use super::ledger::{ExpectedGroup, Possible, Serial};
use super::listing::ListedPage;
use super::names::id_of;
use super::perform::{LoadCaller, delete_keys, pause};
use super::report::Truth;
use super::request::Draft;
use super::scenario::Sweep;
use super::stats::OperationFailure;
use super::worker::{PARALLEL, Worker};

/// Maximum attempts of each request of the sweep: the store may need a moment to recover from a fault.
const ATTEMPTS: u32 = 7;
/// Maximum number of keys in one delete.
const BATCH: usize = 500;
/// Maximum number of pages of one folder; each has a thousand keys.
const PAGES: usize = 1_000_000;

/// An object that the sweep has to read.
#[derive(Debug)]
struct Task {
    key: String,
    possible: Possible,
    /// The size in the listing; `None` when it is not listed.
    listed: Option<u64>,
}

/// The result of reading an object.
enum ReadBack {
    /// The content of one of the possible writes.
    Whole,
    /// Other content.
    Other,
    /// No object.
    Absent,
    /// No response of the store.
    Unknown(String),
}

impl Worker {
    /// Compares each folder of this thread with the ledger.
    pub(super) async fn sweep(self: Rc<Self>) {
        for side in 0..self.plan.sides.len() {
            for tenant in 0..self.plan.tenants.len() {
                let truth = Rc::clone(&self).sweep_folder(side, tenant).await;
                self.shared.measured().truth.merge(&truth);
            }
        }
        let uncertain = self.ledger.borrow().uncertain();
        self.shared.measured().truth.uncertain += uncertain;
    }

    async fn sweep_folder(self: Rc<Self>, side: usize, tenant: usize) -> Truth {
        let mut truth = Truth::default();
        let group = self.group(side, tenant);
        let mut expected = self.ledger.borrow().expected(group);
        let Some(caller) = self.caller(side, tenant) else {
            return truth;
        };
        let folder = self.plan.folder(side, tenant, self.thread);
        let mut tasks = Vec::new();
        let mut next = None;
        for _ in 0..PAGES {
            match list_page(&caller, &folder, next.take()).await {
                Ok(page) => {
                    for (key, size) in page.objects {
                        self.sort(
                            &mut expected,
                            &folder,
                            (key, size),
                            (&mut tasks, &mut truth),
                        );
                    }
                    next = page.next;
                }
                Err(failure) => {
                    truth.unchecked += (expected.live.len() + expected.uncertain.len()) as u64;
                    truth.example(format!("{folder}: cannot be listed: {}", failure.label));
                    return truth;
                }
            }
            if next.is_none() {
                break;
            }
        }
        // The objects that were not in the listing.
        let live = expected
            .live
            .into_iter()
            .map(|(id, serial)| (id, certain(serial)));
        let uncertain = expected.uncertain.into_iter();
        for (id, possible) in live.chain(uncertain.filter(|(_, p)| !p.may_be_absent)) {
            tasks.push(Task {
                key: format!("{folder}{}", self.plan.name(id)),
                possible,
                listed: None,
            });
        }
        self.check(side, tenant, tasks)
            .await
            .into_iter()
            .for_each(|found| truth.merge(&found));
        truth
    }

    /// Classifies a listed key: an object to read, or a phantom.
    fn sort(
        &self,
        expected: &mut ExpectedGroup,
        folder: &str,
        (key, size): (String, u64),
        (tasks, truth): (&mut Vec<Task>, &mut Truth),
    ) {
        let name = key.strip_prefix(folder);
        let id = name
            .and_then(id_of)
            .filter(|id| name == Some(self.plan.name(*id).as_str()));
        let possible = id.and_then(|id| {
            let live = expected.live.remove(&id).map(certain);
            live.or_else(|| expected.uncertain.remove(&id))
        });
        match possible {
            Some(possible) => tasks.push(Task {
                key,
                possible,
                listed: Some(size),
            }),
            None if id.is_some() && expected.has_forgotten => truth.uncertain += 1,
            None => {
                truth.phantom += 1;
                truth.example(format!(
                    "{key}: present, but never acknowledged, or deleted"
                ));
            }
        }
    }

    /// Reads all of `tasks`, several at once.
    async fn check(self: Rc<Self>, side: usize, tenant: usize, tasks: Vec<Task>) -> Vec<Truth> {
        let tasks = Rc::new(RefCell::new(tasks));
        let mut readers = JoinSet::new();
        for _ in 0..PARALLEL {
            let (worker, tasks) = (Rc::clone(&self), Rc::clone(&tasks));
            readers.spawn_local(async move {
                let mut truth = Truth::default();
                let Some(caller) = worker.caller(side, tenant) else {
                    return truth;
                };
                loop {
                    let Some(task) = tasks.borrow_mut().pop() else {
                        return truth;
                    };
                    worker.check_one(&caller, &task, &mut truth).await;
                }
            });
        }
        let mut found = Vec::new();
        while let Some(truth) = readers.join_next().await {
            found.extend(truth.ok());
        }
        found
    }

    async fn check_one(&self, caller: &LoadCaller<'_>, task: &Task, truth: &mut Truth) {
        let found = match task.listed {
            Some(size) if !self.is_possible_size(&task.possible, size) => ReadBack::Other,
            Some(_) if self.plan.sweep == Sweep::List => ReadBack::Whole,
            _ => self.read_back(caller, task).await,
        };
        let is_listed = task.listed.is_some();
        let what = match found {
            ReadBack::Whole if is_listed => {
                truth.swept += 1;
                return;
            }
            ReadBack::Whole => {
                truth.unlisted += 1;
                "present, but not in the listing".to_owned()
            }
            ReadBack::Other => {
                truth.corrupted += 1;
                "not what was written".to_owned()
            }
            ReadBack::Absent => {
                truth.lost += 1;
                "acknowledged, but missing".to_owned()
            }
            ReadBack::Unknown(why) => {
                truth.unchecked += 1;
                format!("cannot be read: {why}")
            }
        };
        truth.example(format!("{}: {what}", task.key));
    }

    fn is_possible_size(&self, possible: &Possible, size: u64) -> bool {
        let mut serials = possible.serials.iter();
        serials.any(|serial| self.plan.content(*serial).length == size)
    }

    async fn read_back(&self, caller: &LoadCaller<'_>, task: &Task) -> ReadBack {
        let mut last = ReadBack::Absent;
        for serial in &task.possible.serials {
            let content = self.plan.content(*serial);
            let mut attempt = 0;
            last = loop {
                let draft = caller.draft(Method::GET, &task.key);
                let read = match caller.sign(draft) {
                    Ok(request) => {
                        let comparison = Some(content.compare(0, content.length));
                        let host = caller.host();
                        caller.client.download(&host, request, comparison).await
                    }
                    Err(failure) => Err(failure),
                };
                match read {
                    Ok(download) if download.is_whole => return ReadBack::Whole,
                    Ok(_) => break ReadBack::Other,
                    Err(failure) if failure.label.starts_with("404") => break ReadBack::Absent,
                    Err(failure) if attempt + 1 >= ATTEMPTS => {
                        break ReadBack::Unknown(failure.label);
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(pause(attempt)).await;
                attempt += 1;
            };
            if !matches!(last, ReadBack::Other) {
                return last;
            }
        }
        last
    }

    /// Removes the objects and the unfinished uploads of this thread. Gives the number of objects that remain.
    pub(super) async fn clean(self: Rc<Self>) -> u64 {
        let mut left = 0;
        if !self.ledger.borrow().is_used() {
            return left;
        }
        for side in 0..self.plan.sides.len() {
            for tenant in 0..self.plan.tenants.len() {
                if let Some(caller) = self.caller(side, tenant) {
                    let folder = self.plan.folder(side, tenant, self.thread);
                    left += clean_folder(&caller, &folder).await;
                    abort_uploads(&caller, &folder).await;
                }
            }
        }
        left
    }
}

fn certain(serial: Serial) -> Possible {
    Possible {
        serials: vec![serial],
        may_be_absent: false,
    }
}

/// Deletes a folder page by page. Gives the number of keys that could not be deleted.
async fn clean_folder(caller: &LoadCaller<'_>, folder: &str) -> u64 {
    let (mut next, mut left) = (None, 0);
    for _ in 0..PAGES {
        let Ok(page) = list_page(caller, folder, next.take()).await else {
            return left + 1;
        };
        // A listing with foreign keys must not decide what is deleted.
        let keys: Vec<String> = page
            .objects
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| key.starts_with(folder))
            .collect();
        for batch in keys.chunks(BATCH) {
            left += delete_batch(caller, batch).await;
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    left
}

async fn delete_batch(caller: &LoadCaller<'_>, keys: &[String]) -> u64 {
    let failed: HashMap<String, OperationFailure> = match delete_keys(caller, keys).await {
        Ok(failed) => failed.into_iter().collect(),
        Err(failure) => keys
            .iter()
            .map(|key| (key.clone(), failure.clone()))
            .collect(),
    };
    let mut left = 0;
    for key in failed.keys() {
        let deleted = persistently(|| caller.draft(Method::DELETE, key), caller).await;
        left += u64::from(deleted.is_err());
    }
    left
}

async fn abort_uploads(caller: &LoadCaller<'_>, folder: &str) {
    let draft = || {
        caller
            .draft(Method::GET, "")
            .with("uploads", "")
            .with("prefix", folder.to_owned())
    };
    // Not every store lists uploads. A store that does not has a rule that ends them.
    let Ok(reply) = caller.call(draft()).await else {
        return;
    };
    let Some(page) = ListedPage::parse(&reply.body) else {
        return;
    };
    for ((key, _), id) in page.objects.iter().zip(&page.upload_ids) {
        if key.starts_with(folder) {
            let draft = caller
                .draft(Method::DELETE, key)
                .with("uploadId", id.clone());
            let _ = caller.call(draft).await;
        }
    }
}

async fn list_page(
    caller: &LoadCaller<'_>,
    folder: &str,
    next: Option<String>,
) -> Result<ListedPage, OperationFailure> {
    let draft = || {
        let draft = caller
            .draft(Method::GET, "")
            .with("list-type", "2")
            .with("prefix", folder.to_owned());
        match &next {
            Some(next) => draft.with("continuation-token", next.clone()),
            None => draft,
        }
    };
    let reply = persistently(draft, caller).await?;
    ListedPage::parse(&reply.body).ok_or_else(|| super::client::silent("not a listing"))
}

/// Repeats a request until it succeeds, up to a limit.
async fn persistently<'d>(
    draft: impl Fn() -> Draft<'d>,
    caller: &LoadCaller<'_>,
) -> Result<Reply, OperationFailure> {
    let mut attempt = 0;
    loop {
        match caller.call(draft()).await {
            Err(_) if attempt + 1 < ATTEMPTS => {}
            done => return done,
        }
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}
