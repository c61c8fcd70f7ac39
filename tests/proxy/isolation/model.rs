//! The model: the objects of each tenant, and the response that each request must get.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use quick_xml::escape::escape;

use super::names::{Bucket, FAR, Folder, Name, PUBLIC, Who, climbs};
use super::operations::{
    Form, From, Listing, Operation, Page, Reading, Spot, Style, Tagging, Tamper, UploadOf,
};
use super::wire::{
    BOUNDARY, MARKS, decoded, entries, form_body, marked, marker, names_in, plain, readable,
    target, url,
};
use crate::support::{BUCKET, Call, Client, Reply, World, element, elements};

/// The content of the objects that all may read.
const PUBLIC_MARK: &str = "b0dy-public";
pub struct Model<'w> {
    world: &'w World,
    /// The signature for COS.
    signature: &'w str,
    /// The style in which the requests of a step name their bucket.
    style: Style,
    /// The page that makes a browser send them.
    page: Page,
    /// The one connection that both tenants use.
    client: Client,
    tenants: [Tenant; 2],
    public: BTreeMap<String, Object>,
    /// The number of objects written so far: no two have the same content.
    written: usize,
}

#[derive(Default)]
struct Tenant {
    objects: BTreeMap<(Bucket, String), Object>,
    uploads: Vec<Upload>,
    /// Texts of its own requests, which a response may repeat. The longer one sorts after its prefix.
    named: BTreeSet<String>,
    /// The tokens and markers of its listings.
    places: Vec<(Form, String)>,
}

#[derive(Clone)]
struct Object {
    bytes: Vec<u8>,
    owner: &'static str,
    tag: Option<String>,
}

#[derive(Clone)]
struct Upload {
    bucket: Bucket,
    key: String,
    id: String,
    parts: BTreeMap<u32, (Vec<u8>, String)>,
}

impl<'w> Model<'w> {
    pub fn new(world: &'w World, signature: &'w str) -> Self {
        let mut public = BTreeMap::new();
        for key in PUBLIC {
            let bytes = format!("{PUBLIC_MARK} {key}").into_bytes();
            let put = Call::new(world.gateway.addr, "PUT", &target(Bucket::Photos, key));
            let put = put.header("x-amz-meta-owner", PUBLIC_MARK);
            put.body(bytes.clone()).fetch().assert_ok();
            let (owner, tag) = (PUBLIC_MARK, None);
            public.insert(key.to_owned(), Object { bytes, owner, tag });
        }
        world.emulator.counters().reset();
        Self {
            world,
            signature,
            style: Style::Path,
            page: Page::Nobody,
            client: Client::connect(world.gateway.addr),
            tenants: Default::default(),
            public,
            written: 0,
        }
    }

    /// Carries out a step. Compares the response, the requests to COS and the store with the model.
    pub fn step(&mut self, who: Who, style: Style, page: Page, operation: &Operation) {
        self.style = style;
        self.page = page;
        match operation {
            Operation::Abort(of) => self.abort(who, *of),
            Operation::Begin(to) => self.begin(who, *to),
            Operation::Complete(of) => self.complete(who, *of),
            Operation::Copy { from, to } => self.copy(who, *from, *to),
            Operation::Delete(at) => self.delete(who, *at),
            Operation::Form { to, changed } => self.form(who, *to, *changed),
            Operation::Get(from, how) => self.get(who, *from, *how),
            Operation::Link(at, tamper) => self.link(who, *at, *tamper),
            Operation::List(listing) => self.list(who, listing),
            Operation::ListBuckets => self.list_buckets(who),
            Operation::ListParts(of) => self.list_parts(who, *of),
            Operation::MultiDelete {
                bucket,
                names,
                quiet,
            } => {
                self.multi_delete(who, *bucket, names, *quiet);
            }
            Operation::Part { of, number, size } => self.part(who, *of, *number, *size),
            Operation::PartCopy { of, number, from } => self.part_copy(who, *of, *number, *from),
            Operation::Preflight(bucket, method) => self.preflight(who, *bucket, method),
            Operation::Put { to, size } => self.put(who, *to, *size),
            Operation::Tag(at, what) => self.tag(who, *at, *what),
        }
        self.check_upstream(who);
        self.check_stored();
    }

    /// Reads all objects back in every way.
    pub fn end(&mut self) {
        for who in [Who::Acme, Who::Globex] {
            for (bucket, folder) in [
                (Bucket::Photos, Some((Folder::Own, None))),
                (Bucket::Photos, None),
                (Bucket::Box, None),
                (Bucket::Away, None),
            ] {
                for form in [Form::One, Form::Two, Form::Uploads, Form::Versions] {
                    self.list(
                        who,
                        &Listing {
                            bucket,
                            form,
                            prefix: folder,
                            delimiter: false,
                            max: None,
                            encoded: false,
                            from: From::Start,
                        },
                    );
                }
            }
            for ((bucket, key), object) in self.tenants[who as usize].objects.clone() {
                let (real, name) = who.real(bucket, &key);
                let stored = self.world.emulator.object_bytes(real, &name);
                assert_eq!(stored.as_ref(), Some(&object.bytes), "{who:?} {key}");
                let reply = self.send_target(who, "GET", &target(bucket, &key));
                expect_object(&reply, &object);
            }
            self.check_upstream(who);
        }
        for (key, object) in &self.public {
            let stored = self.world.emulator.object_bytes(BUCKET, key);
            assert_eq!(stored.as_ref(), Some(&object.bytes), "{key}");
        }
    }

    fn put(&mut self, who: Who, to: Spot, size: usize) {
        let key = who.name(to.name);
        let object = self.new_object(who, size);
        let put = self.call(who, "PUT", &target(to.bucket, &key));
        let put = put.header("x-amz-meta-owner", object.owner);
        let reply = self.send(who, &put.body(object.bytes.clone()));
        if who.writes(to.bucket, &key) {
            reply.assert_ok();
            self.keep(who, to.bucket, key, object);
        } else {
            self.assert_refused(&reply);
        }
    }

    fn get(&mut self, who: Who, from: Spot, how: Reading) {
        let key = who.name(from.name);
        let mut call = self.call(who, "GET", &target(from.bucket, &key));
        match how {
            Reading::Whole => {}
            Reading::Head => call.method = "HEAD".into(),
            Reading::Range(from, to) => call = call.header("range", &format!("bytes={from}-{to}")),
            Reading::Version { listed } => {
                call.target += if listed {
                    "?versionId=null"
                } else {
                    "?versionId=0th3r"
                };
            }
        }
        let reply = self.send(who, &call);
        if !who.reads(from.bucket, &key) {
            return self.assert_refused(&reply);
        }
        let unknown = matches!(how, Reading::Version { listed: false });
        match (self.find(who, from.bucket, &key), how) {
            (None, _) => assert!(matches!(reply.status, 400 | 404), "{reply:?}"),
            (Some(_), _) if unknown => assert!(matches!(reply.status, 400 | 404), "{reply:?}"),
            (Some(object), Reading::Head) => {
                assert_eq!(reply.status, 200);
                let length = object.bytes.len().to_string();
                assert_eq!(reply.header("content-length"), Some(length.as_str()));
                assert_eq!(reply.header("x-amz-meta-owner"), Some(object.owner));
            }
            (Some(object), Reading::Range(from, to)) => {
                assert_eq!(reply.status, 206);
                assert_eq!(
                    reply.body,
                    object.bytes[from..=to.min(object.bytes.len() - 1)]
                );
            }
            (Some(object), _) => expect_object(&reply, &object),
        }
    }

    fn delete(&mut self, who: Who, at: Spot) {
        let key = who.name(at.name);
        // Without versioning, each object is its version `null`, which a request may name.
        let version = if self.written.is_multiple_of(2) {
            ""
        } else {
            "?versionId=null"
        };
        let call = format!("{}{version}", target(at.bucket, &key));
        let reply = self.send_target(who, "DELETE", &call);
        if who.writes(at.bucket, &key) {
            reply.assert_ok();
            self.tenants[who as usize].objects.remove(&(at.bucket, key));
        } else {
            self.assert_refused(&reply);
        }
    }

    fn multi_delete(&mut self, who: Who, bucket: Bucket, names: &[Name], quiet: bool) {
        let mut keys: Vec<_> = names.iter().map(|name| who.name(*name)).collect();
        keys.sort();
        keys.dedup();
        let mut body = format!("<Delete><Quiet>{quiet}</Quiet>");
        for key in &keys {
            body += &format!("<Object><Key>{}</Key></Object>", escape(key.as_str()));
        }
        body += "</Delete>";
        let call = self.call(who, "POST", &format!("/{}?delete", bucket.alias()));
        let reply = self.send(who, &call.body(body));
        if matches!(bucket, Bucket::Public | Bucket::Real) {
            return self.assert_refused(&reply);
        }
        let text = reply.assert_ok().text();
        let (may, may_not): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| who.writes(bucket, key));
        let names_in = |entry: &str| {
            let entries = elements(&text, entry);
            let mut keys: Vec<_> = entries.iter().map(|e| plain(&element(e, "Key"))).collect();
            keys.sort();
            keys
        };
        assert_eq!(names_in("Error"), may_not, "{text}");
        assert_eq!(elements(&text, "Code"), vec!["AccessDenied"; may_not.len()]);
        assert_eq!(names_in("Deleted"), if quiet { &[][..] } else { &may });
        for key in may {
            self.tenants[who as usize].objects.remove(&(bucket, key));
        }
    }

    fn copy(&mut self, who: Who, from: Spot, to: Spot) {
        let (source, key) = (who.name(from.name), who.name(to.name));
        let call = self.call(who, "PUT", &target(to.bucket, &key));
        let version = if self.written.is_multiple_of(2) {
            ""
        } else {
            "?versionId=null"
        };
        let named = format!("{}{version}", target(from.bucket, &source));
        let call = call.header("x-amz-copy-source", &named);
        let reply = self.send(who, &call);
        if !who.writes(to.bucket, &key) || !who.reads(from.bucket, &source) {
            return self.assert_refused(&reply);
        }
        if self.is_too_far(from.bucket, to.bucket, &reply) {
            return;
        }
        match self.find(who, from.bucket, &source) {
            None => reply.assert_error(404, "NoSuchKey"),
            Some(_) if (from.bucket, &source) == (to.bucket, &key) => {
                reply.assert_error(400, "InvalidRequest");
            }
            Some(object) => {
                reply.assert_ok();
                self.keep(who, to.bucket, key, object);
            }
        }
    }

    fn tag(&mut self, who: Who, at: Spot, what: Tagging) {
        let key = who.name(at.name);
        let there = format!("{}?tagging", target(at.bucket, &key));
        let value = format!("{} {}", who.body_mark(), self.written);
        let call = match what {
            Tagging::Clear => self.call(who, "DELETE", &there),
            Tagging::Get => self.call(who, "GET", &there),
            Tagging::Set => self.call(who, "PUT", &there).body(format!(
                "<Tagging><TagSet><Tag><Key>k</Key><Value>{value}</Value></Tag></TagSet></Tagging>"
            )),
        };
        let reply = self.send(who, &call);
        let reads = matches!(what, Tagging::Get);
        if !(who.writes(at.bucket, &key) || reads && who.reads(at.bucket, &key)) {
            return self.assert_refused(&reply);
        }
        let Some(mut object) = self.find(who, at.bucket, &key) else {
            return reply.assert_error(404, "NoSuchKey");
        };
        let text = reply.assert_ok().text();
        match what {
            Tagging::Get => {
                let tags: Vec<_> = object.tag.into_iter().collect();
                return assert_eq!(elements(&text, "Value"), tags);
            }
            Tagging::Set => object.tag = Some(value),
            Tagging::Clear => object.tag = None,
        }
        self.keep(who, at.bucket, key, object);
    }

    fn form(&mut self, who: Who, to: Spot, changed: Option<Name>) {
        let signed = who.name(to.name);
        let key = changed.map_or_else(|| signed.clone(), |name| who.name(name));
        let object = self.new_object(who, 40);
        let body = form_body(who, to.bucket, &signed, &key, &object.bytes);
        let policy = marked(vec![signed.clone()]);
        self.tenants[who as usize].named.extend(policy);
        let call = self.bare("POST", &format!("/{}", to.bucket.alias()));
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let reply = self.send(who, &call.header("content-type", &kind).body(body));
        if key == signed && who.writes(to.bucket, &key) {
            reply.assert_ok();
            self.keep(who, to.bucket, key, object);
        } else {
            self.assert_refused(&reply);
        }
    }

    fn link(&mut self, who: Who, at: Spot, tamper: Tamper) {
        let key = who.name(at.name);
        let link = self
            .call(who, "GET", &target(at.bucket, &key))
            .presigned(60);
        let (path, query) = link.target.split_once('?').unwrap();
        let mut used = link.clone();
        match tamper {
            Tamper::Nothing => {}
            Tamper::Id => used.target = link.target.replace(who.key().0, who.other().key().0),
            Tamper::Method => used.method = "DELETE".into(),
            Tamper::Name(name) => {
                let other = self.bare("GET", &target(at.bucket, &who.name(name)));
                used.target = format!("{}?{query}", other.target);
            }
        }
        let as_signed = used.method == "GET" && used.target == format!("{path}?{query}");
        let reply = self.send(who, &used);
        if !as_signed || !who.reads(at.bucket, &key) {
            return self.assert_refused(&reply);
        }
        match self.find(who, at.bucket, &key) {
            None => reply.assert_error(404, "NoSuchKey"),
            Some(object) => expect_object(&reply, &object),
        }
    }

    fn list_buckets(&mut self, who: Who) {
        let reply = self.send_target(who, "GET", "/");
        let mut names = elements(&reply.assert_ok().text(), "Name");
        names.sort();
        assert_eq!(names, ["away", "box", "photos", "public"]);
    }

    fn begin(&mut self, who: Who, to: Spot) {
        let key = who.name(to.name);
        let call = self.call(who, "POST", &format!("{}?uploads", target(to.bucket, &key)));
        let reply = self.send(who, &call.header("x-amz-meta-owner", who.body_mark()));
        if !who.writes(to.bucket, &key) {
            return self.assert_refused(&reply);
        }
        let text = reply.assert_ok().text();
        assert_eq!(plain(&element(&text, "Key")), key);
        self.tenants[who as usize].uploads.push(Upload {
            bucket: to.bucket,
            key,
            id: element(&text, "UploadId"),
            parts: BTreeMap::new(),
        });
    }

    fn part(&mut self, who: Who, of: UploadOf, number: u32, size: usize) {
        let bytes = self.new_object(who, size).bytes;
        let (at, upload) = self.upload(who, of);
        let call = self.call(who, "PUT", &at.part(number)).body(bytes.clone());
        let reply = self.send(who, &call);
        if self.is_known(who, &at, upload, &reply) {
            let etag = reply.assert_ok().header("etag").unwrap().to_owned();
            self.keep_part(who, upload, number, bytes, etag);
        }
    }

    fn part_copy(&mut self, who: Who, of: UploadOf, number: u32, from: Spot) {
        let source = who.name(from.name);
        let (at, upload) = self.upload(who, of);
        let call = self.call(who, "PUT", &at.part(number));
        let call = call.header("x-amz-copy-source", &target(from.bucket, &source));
        let reply = self.send(who, &call);
        if !who.reads(from.bucket, &source) {
            return self.assert_refused(&reply);
        }
        if who.writes(at.bucket, &at.key) && self.is_too_far(from.bucket, at.bucket, &reply) {
            return;
        }
        if self.is_known(who, &at, upload, &reply) {
            match self.find(who, from.bucket, &source) {
                None => reply.assert_error(404, "NoSuchKey"),
                Some(object) => {
                    let etag = plain(&element(&reply.assert_ok().text(), "ETag"));
                    self.keep_part(who, upload, number, object.bytes, etag);
                }
            }
        }
    }

    /// Copies to the last part only: COS accepts no small parts before it.
    fn complete(&mut self, who: Who, of: UploadOf) {
        let (at, upload) = self.upload(who, of);
        let last = at.parts.last_key_value();
        let (number, etag) = last.map_or((1, "\"0\""), |(number, (_, etag))| (*number, etag));
        let body = format!(
            "<CompleteMultipartUpload><Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
            escape(etag)
        );
        let call = self.call(who, "POST", &at.target()).body(body);
        let reply = self.send(who, &call);
        if !self.is_known(who, &at, upload, &reply) {
            return;
        }
        let Some((_, (bytes, _))) = last else {
            return reply.assert_error(400, "InvalidPart");
        };
        assert_eq!(plain(&element(&reply.assert_ok().text(), "Key")), at.key);
        let (owner, tag) = (who.body_mark(), None);
        let bytes = bytes.clone();
        self.keep(who, at.bucket, at.key, Object { bytes, owner, tag });
        self.tenants[who as usize].uploads.remove(upload.unwrap());
    }

    fn abort(&mut self, who: Who, of: UploadOf) {
        let (at, upload) = self.upload(who, of);
        let reply = self.send_target(who, "DELETE", &at.target());
        if self.is_known(who, &at, upload, &reply) {
            reply.assert_ok();
            self.tenants[who as usize].uploads.remove(upload.unwrap());
        }
    }

    fn list_parts(&mut self, who: Who, of: UploadOf) {
        let (at, upload) = self.upload(who, of);
        let reply = self.send_target(who, "GET", &at.target());
        if self.is_known(who, &at, upload, &reply) {
            let text = reply.assert_ok().text();
            assert_eq!(plain(&element(&text, "Key")), at.key);
            let sizes: Vec<_> = at
                .parts
                .values()
                .map(|(bytes, _)| bytes.len().to_string())
                .collect();
            let numbers: Vec<_> = at.parts.keys().map(u32::to_string).collect();
            assert_eq!(elements(&text, "PartNumber"), numbers);
            assert_eq!(elements(&text, "Size"), sizes);
        }
    }

    fn list(&mut self, who: Who, listing: &Listing) {
        let Listing {
            bucket,
            form,
            delimiter,
            ..
        } = *listing;
        let prefix = listing.prefix_of(who);
        let query = listing.query(who);
        let (names, after) = (marker(form), self.start(who, listing));
        let mut from = match &after {
            None => String::new(),
            Some((true, marker)) if form == Form::Two => format!("&start-after={}", url(marker)),
            Some((_, marker)) => format!("&{}={}", names.parameter, url(marker)),
        };
        let covered = who.covers(bucket, &prefix) || who.is_above(bucket, &prefix);
        let mut shown = Vec::new();
        for page in 0.. {
            assert!(page < 40, "it never ends: {listing:?}");
            let target = format!("/{}?{query}{from}", bucket.alias()).replacen("?&", "?", 1);
            let reply = self.send_target(who, "GET", &target);
            if !covered {
                return self.assert_refused(&reply);
            }
            if (after.is_some() || climbs(&prefix)) && matches!(reply.status, 400 | 403) {
                return; // a marker of the neighbour
            }
            let text = reply.assert_ok().text();
            shown.extend(entries(&text, form, listing.encoded));
            if element(&text, "IsTruncated") != "true" {
                break;
            }
            let mut next = plain(&element(&text, names.element));
            assert!(!next.is_empty(), "{text}");
            if listing.encoded && form != Form::Two {
                next = decoded(&next);
            }
            self.tenants[who as usize].places.push((form, next.clone()));
            from = format!("&{}={}", names.parameter, url(&next));
            let id = element(&text, "NextUploadIdMarker");
            if !id.is_empty() {
                from += &format!("&upload-id-marker={id}");
            }
        }
        shown.sort();
        let marker = after.as_ref().map(|(_, marker)| marker.as_str());
        let exact = after.as_ref().is_none_or(|(named, _)| *named && !delimiter);
        let all = self.entries(
            who,
            bucket,
            form,
            &prefix,
            delimiter,
            marker.filter(|_| exact),
        );
        if exact {
            assert_eq!(shown, all, "{listing:?}");
        } else {
            assert!(
                shown.iter().all(|entry| all.contains(entry)),
                "{shown:?} {all:?}"
            );
        }
    }

    /// The start of a listing, and whether a key is its name.
    fn start(&self, who: Who, listing: &Listing) -> Option<(bool, String)> {
        match listing.from {
            From::Start => None,
            From::After(name) => Some((true, who.name(name))),
            From::Theirs(pick) => {
                let places = &self.tenants[who.other() as usize].places;
                let fit: Vec<_> = places
                    .iter()
                    .filter(|(form, _)| *form == listing.form)
                    .collect();
                let (_, place) = fit.get(pick % fit.len().max(1))?;
                Some((false, place.clone()))
            }
        }
    }

    /// The entries of a listing: names, and sizes or ids.
    fn entries(
        &self,
        who: Who,
        bucket: Bucket,
        form: Form,
        prefix: &str,
        delimiter: bool,
        after: Option<&str>,
    ) -> Vec<(String, String)> {
        let own = &self.tenants[who as usize];
        let mut all: Vec<(String, String)> = if form == Form::Uploads {
            let uploads = own.uploads.iter().filter(|upload| upload.bucket == bucket);
            uploads
                .map(|upload| (upload.key.clone(), upload.id.clone()))
                .collect()
        } else if bucket == Bucket::Public {
            self.public
                .iter()
                .map(|(key, object)| (key.clone(), object.size()))
                .collect()
        } else {
            let objects = own.objects.iter().filter(|((at, _), _)| *at == bucket);
            objects
                .map(|((_, key), object)| (key.clone(), object.size()))
                .collect()
        };
        all.retain(|(key, _)| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        });
        if delimiter && who.is_above(bucket, prefix) {
            // The ancestors of the allowed prefixes are shown, whatever lies below them.
            return vec![(who.way(bucket).to_owned(), String::new())];
        }
        if delimiter {
            for (key, detail) in &mut all {
                if let Some(at) = key[prefix.len()..].find('/') {
                    key.truncate(prefix.len() + at + 1);
                    detail.clear();
                }
            }
        }
        all.sort();
        if delimiter {
            all.dedup_by(|a, b| a == b && a.1.is_empty());
        }
        all
    }

    fn call(&self, who: Who, method: &str, target: &str) -> Call {
        self.bare(method, target).signed_by(who.key())
    }

    /// An unsigned request; `target` is in path style.
    fn bare(&self, method: &str, target: &str) -> Call {
        let addr = self.world.gateway.addr;
        let bucket = target[1..].split(['/', '?']).next().unwrap();
        let call = if self.style == Style::Path || bucket.is_empty() {
            Call::new(addr, method, target)
        } else {
            let rest = &target[1 + bucket.len()..];
            let slash = if rest.starts_with('/') { "" } else { "/" };
            Call::new(addr, method, &format!("{slash}{rest}"))
                .header("host", &format!("{bucket}.s3.localhost"))
        };
        match self.origin() {
            Some(origin) => call.header("origin", origin),
            None => call,
        }
    }

    fn origin(&self) -> Option<&'static str> {
        match self.page {
            Page::Nobody => None,
            Page::Of(who) => Some(who.site()),
            Page::Stranger => Some("https://stranger.example"),
        }
    }

    /// Sends a preflight. If the bucket exists, only pages that its rules name get another response than for a bucket
    /// that does not exist.
    fn preflight(&mut self, who: Who, bucket: Bucket, method: &'static str) {
        let page = self.page;
        if page == Page::Nobody {
            self.page = Page::Stranger;
        }
        let mut send = |alias: &str| {
            let call = self.bare("OPTIONS", &format!("/{alias}/a"));
            let call = call.header("access-control-request-method", method);
            self.send(who, &call)
        };
        let (reply, nobodys) = (send(bucket.alias()), send("no-such-bucket"));
        self.page = page;
        nobodys.assert_error(403, "AccessForbidden");
        let is_named = matches!(page, Page::Of(site) if site.has_rule(bucket));
        if is_named && method != "DELETE" {
            assert_eq!(reply.status, 200, "{}", reply.text());
            return;
        }
        reply.assert_error(403, "AccessForbidden");
        assert_eq!(cors_headers(&reply), cors_headers(&nobodys));
        let message = |reply: &Reply| element(&reply.text(), "Message");
        assert_eq!(message(&reply), message(&nobodys));
        assert_eq!(self.world.upstream_requests(), 0, "COS got requests");
    }

    /// Checks the CORS headers. A page may read responses to the tenant whose rule names it. Before the caller is known,
    /// the rules of all buckets with this name apply.
    fn check_page(&self, who: Who, call: &Call, reply: &Reply) {
        let headers = cors_headers(reply);
        let allowed = reply.header("access-control-allow-origin");
        if allowed.is_none() {
            let only_vary = headers.iter().all(|(name, _)| name == "vary");
            assert!(only_vary, "{headers:?}");
            return;
        }
        assert_eq!(allowed, self.origin());
        let Page::Of(site) = self.page else {
            panic!("a stranger's page gets {headers:?}");
        };
        let host = call.headers.iter().find(|(name, _)| name == "host");
        let alias = match host.unwrap().1.strip_suffix(".s3.localhost") {
            Some(alias) => alias,
            None => call.target[1..].split(['/', '?']).next().unwrap(),
        };
        let named = [Bucket::Away, Bucket::Box].into_iter();
        let mut named = named.filter(|bucket| site.has_rule(*bucket));
        let is_service = alias.is_empty() && who == site;
        assert!(
            is_service || named.any(|bucket| bucket.alias() == alias),
            "a page of {site:?} gets {headers:?} for {alias}"
        );
        assert!(
            who == site || reply.status >= 400 || call.method == "OPTIONS",
            "{reply:?}"
        );
    }

    fn send_target(&mut self, who: Who, method: &str, target: &str) -> Reply {
        let call = self.call(who, method, target);
        self.send(who, &call)
    }

    /// Sends a call on the shared connection, and checks that the response reveals nothing.
    fn send(&mut self, who: Who, call: &Call) -> Reply {
        self.client.write(&call.bytes());
        let reply = self.client.read_reply(&call.method);
        if reply.header("connection") == Some("close") {
            self.client = Client::connect(self.world.gateway.addr);
        }
        assert!(reply.whole, "the response was cut: {reply:?}");
        self.check_page(who, call, &reply);
        let mut shown = format!("{:?} {}", reply.headers, reply.text());
        for token in ["ContinuationToken", "NextContinuationToken"] {
            let token = BASE64_URL_SAFE_NO_PAD.decode(element(&shown, token));
            shown += &String::from_utf8_lossy(&token.unwrap_or_default());
        }
        let theirs = [who.other().body_mark(), "far-1", "ap-beijing"];
        for hidden in theirs.iter().chain(&["myqcloud", "AKID", "q-sign"]) {
            assert!(!shown.contains(hidden), "{hidden} is shown: {shown}");
        }
        let named = &mut self.tenants[who as usize].named;
        named.extend(names_in(call));
        let mut shown = readable(&shown);
        for name in named.iter().rev() {
            shown = shown.replace(name, ""); // it may have a bucket with this name
        }
        for unheard in MARKS {
            let own = unheard == who.key_mark();
            assert!(
                own || !shown.contains(unheard),
                "{unheard} is shown: {shown}"
            );
        }
        reply
    }

    /// Asserts that cosgate refused the request without a request to COS.
    #[track_caller]
    fn assert_refused(&self, reply: &Reply) {
        assert!(
            matches!(reply.status, 400 | 403 | 404),
            "{} {}",
            reply.status,
            reply.text()
        );
        assert_eq!(self.world.upstream_requests(), 0, "COS got requests");
    }

    /// Whether S3's headers cannot express the copy, because its source is in another region. Asserts its error.
    fn is_too_far(&self, from: Bucket, to: Bucket, reply: &Reply) -> bool {
        let is_away = |bucket| bucket == Bucket::Away;
        let too_far = self.signature == "s3" && is_away(from) != is_away(to);
        if too_far {
            reply.assert_error(501, "NotImplemented");
            assert_eq!(self.world.upstream_requests(), 0, "COS got requests");
        }
        too_far
    }

    /// Asserts that all requests to COS lie within what the tenant may see.
    fn check_upstream(&self, who: Who) {
        for head in self.world.emulator.counters().heads() {
            let of = |wanted: &str| {
                let mut headers = head.headers.iter();
                headers
                    .find(|(name, _)| name == wanted)
                    .map(|(_, value)| value.as_str())
            };
            let bucket = of("host").unwrap().split('.').next().unwrap();
            let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
            let prefix = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("prefix="));
            let name = if path == "/" {
                prefix.unwrap_or_default()
            } else {
                &path[1..]
            };
            let deletes = path == "/" && query.split('&').any(|pair| pair.starts_with("delete"));
            assert!(
                deletes || who.sees(bucket, &decoded(name)),
                "{who:?} {head:?}"
            );
            for header in ["x-amz-copy-source", "x-cos-copy-source"] {
                if let Some(source) = of(header) {
                    let source = decoded(source);
                    let (bucket, key) = source.trim_start_matches('/').split_once('/').unwrap();
                    let bucket = bucket.split('.').next().unwrap();
                    assert!(who.sees(bucket, key), "{who:?} {head:?}");
                }
            }
        }
        self.world.emulator.counters().reset();
    }

    /// Asserts that the store contains exactly the objects of both tenants, under their real keys.
    fn check_stored(&self) {
        for real in [BUCKET, FAR] {
            let mut keys: Vec<_> = if real == BUCKET {
                self.public.keys().cloned().collect()
            } else {
                Vec::new()
            };
            for who in [Who::Acme, Who::Globex] {
                let own = self.tenants[who as usize].objects.keys();
                let own = own.map(|(bucket, key)| who.real(*bucket, key));
                keys.extend(own.filter(|(at, _)| *at == real).map(|(_, key)| key));
            }
            keys.sort();
            assert_eq!(self.world.emulator.object_keys(real), keys);
        }
    }

    fn new_object(&mut self, who: Who, size: usize) -> Object {
        self.written += 1;
        let bytes = format!("{} {} {}", who.body_mark(), self.written, "x".repeat(size));
        let (bytes, owner, tag) = (bytes.into_bytes(), who.body_mark(), None);
        Object { bytes, owner, tag }
    }

    fn keep(&mut self, who: Who, bucket: Bucket, key: String, object: Object) {
        self.tenants[who as usize]
            .objects
            .insert((bucket, key), object);
    }

    fn keep_part(
        &mut self,
        who: Who,
        at: Option<usize>,
        number: u32,
        bytes: Vec<u8>,
        etag: String,
    ) {
        let upload = &mut self.tenants[who as usize].uploads[at.unwrap()];
        upload.parts.insert(number, (bytes, etag));
    }

    fn find(&self, who: Who, bucket: Bucket, key: &str) -> Option<Object> {
        if bucket == Bucket::Public {
            return self.public.get(key).cloned();
        }
        let own = &self.tenants[who as usize].objects;
        own.get(&(bucket, key.to_owned())).cloned()
    }

    /// An upload, and its index among the caller's own. If there is none, an upload that does not exist.
    fn upload(&self, who: Who, of: UploadOf) -> (Upload, Option<usize>) {
        let whose = if of.theirs { who.other() } else { who };
        let uploads = &self.tenants[whose as usize].uploads;
        let index = of.pick % uploads.len().max(1);
        let Some(upload) = uploads.get(index) else {
            let none = Upload {
                bucket: Bucket::Box,
                key: "a".into(),
                id: "0th3r".into(),
                parts: BTreeMap::new(),
            };
            return (none, None);
        };
        (upload.clone(), (!of.theirs).then_some(index))
    }

    /// Whether the upload belongs to the caller. Asserts the error if it does not.
    fn is_known(&self, who: Who, at: &Upload, own: Option<usize>, reply: &Reply) -> bool {
        if !who.writes(at.bucket, &at.key) {
            self.assert_refused(reply);
        } else if own.is_none() {
            reply.assert_error(404, "NoSuchUpload");
        }
        own.is_some()
    }
}

impl Object {
    fn size(&self) -> String {
        self.bytes.len().to_string()
    }
}

impl Upload {
    fn target(&self) -> String {
        format!(
            "{}?uploadId={}",
            target(self.bucket, &self.key),
            url(&self.id)
        )
    }

    fn part(&self, number: u32) -> String {
        format!("{}&partNumber={number}", self.target())
    }
}

#[track_caller]
fn expect_object(reply: &Reply, object: &Object) {
    reply.assert_ok();
    assert_eq!(
        String::from_utf8_lossy(&reply.body),
        String::from_utf8_lossy(&object.bytes)
    );
    assert_eq!(reply.header("x-amz-meta-owner"), Some(object.owner));
}

/// The CORS headers of a response.
fn cors_headers(reply: &Reply) -> Vec<(String, String)> {
    let headers = reply.headers.iter();
    let about = |name: &str| name == "vary" || name.starts_with("access-control-");
    headers.filter(|(name, _)| about(name)).cloned().collect()
}
