"""boto3, path style and virtual-hosted style. It also stands for every other user of botocore."""

import socket
import time

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

import listings
import names
import sizes
from checksums import ALGORITHMS, GIVEN, NEWER, checksum_of
from form import post
from harness import (
    ALICE,
    BUCKET,
    ODD_KEYS,
    PART,
    REGION,
    VIRTUAL_DOMAIN,
    Group,
    expect,
    expect_equal,
    expect_same,
    fetch,
    sample,
)

LISTED = 27
PAGE = 10
BY_PARTS = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)


def connect(endpoint, tenant, style="path", s3=None, **settings):
    """A client with default settings but for endpoint, region, keys and style; `tenant` None is anonymous.

    `s3` has more of botocore's settings for S3, `settings` more of the rest.

    Presigned URLs of botocore are SigV2 by default for an endpoint that is not Amazon's, so SigV4 is
    requested by name.
    """
    keys = {}
    signature = UNSIGNED
    if tenant is not None:
        keys = {"aws_access_key_id": tenant.key_id, "aws_secret_access_key": tenant.secret}
        signature = "s3v4"
    config = Config(signature_version=signature, s3={"addressing_style": style, **(s3 or {})}, proxies={}, **settings)
    return boto3.session.Session().client(
        "s3", endpoint_url=endpoint, region_name=REGION, config=config, **keys
    )


def resolve_localhost():
    """Lets this process resolve `*.localhost` to the loopback as RFC 6761 wants; not every resolver does."""
    system = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **named):
        if isinstance(host, str) and host.endswith(".localhost"):
            host = "127.0.0.1"
        return system(host, *arguments, **named)

    socket.getaddrinfo = getaddrinfo


def refused(call, *codes):
    """The call must be refused with one of these codes; returns the refusal. Head requests have the status alone."""
    try:
        call()
    except ClientError as refusal:
        code = refusal.response["Error"]["Code"]
        expect(code in codes, f"refused with {code}, should be {' or '.join(codes)}: {refusal}")
        return refusal
    expect(False, f"succeeded, should be refused with {' or '.join(codes)}")


class Client:
    def __init__(self, place, style, tenant=ALICE, **settings):
        endpoint = place.endpoint
        if style == "virtual":
            endpoint = f"{place.scheme}://{VIRTUAL_DOMAIN}:{place.port}"
        self.s3 = connect(endpoint, tenant, style, **settings)
        self.folder = place.new_folder(f"boto3-{style}")
        # One folder a client: two with other settings must not pass on each other's objects.
        self.prefix = f"{tenant.prefix}{self.folder.name}/"

    def key(self, name):
        return self.prefix + name

    def put(self, name, body=b"content", **more):
        return self.s3.put_object(Bucket=BUCKET, Key=self.key(name), Body=body, **more)

    def put_by_parts(self, name, data, **more):
        source = self.folder / "to-upload"
        source.write_bytes(data)
        self.s3.upload_file(str(source), BUCKET, self.key(name), ExtraArgs=more, Config=BY_PARTS)

    def get(self, name, **more):
        return self.s3.get_object(Bucket=BUCKET, Key=self.key(name), **more)

    def body(self, name):
        return self.get(name)["Body"].read()

    def head(self, name, **more):
        return self.s3.head_object(Bucket=BUCKET, Key=self.key(name), **more)

    def list_keys(self, operation, prefix, **paging):
        pages = self.s3.get_paginator(operation).paginate(
            Bucket=BUCKET, Prefix=self.key(prefix), PaginationConfig=paging
        )
        return [[item["Key"] for item in page.get("Contents", [])] for page in pages]

    def listings(self, prefix):
        where = {"Bucket": BUCKET, "Prefix": prefix}
        for call, found, small in (
            ("list_objects", "Contents", 50),
            ("list_objects_v2", "Contents", 7),
            ("list_object_versions", "Versions", 50),
        ):
            for size in (small, 1000):
                pages = self.s3.get_paginator(call).paginate(**where, PaginationConfig={"PageSize": size})
                yield f"{call} by {size}", [item["Key"] for page in pages for item in page.get(found, [])]
        yield "list_objects_v2 by folders", [*self.walk(prefix)]

    def walk(self, folder):
        """All keys, as a file browser finds them: folder after folder, in small pages."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=folder, Delimiter="/", PaginationConfig={"PageSize": 50}
        )
        for page in pages:
            yield from (item["Key"] for item in page.get("Contents", []))
            for inner in page.get("CommonPrefixes", []):
                yield from self.walk(inner["Prefix"])

    def remove_all(self, prefix):
        for page in self.s3.get_paginator("list_objects").paginate(Bucket=BUCKET, Prefix=prefix):
            doomed = [{"Key": item["Key"]} for item in page["Contents"]]
            deleted = self.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": doomed})
            expect_equal(deleted.get("Errors", []), [], "errors")

    def start_parts(self, name, **more):
        started = self.s3.create_multipart_upload(Bucket=BUCKET, Key=self.key(name), **more)
        return {"Bucket": BUCKET, "Key": self.key(name), "UploadId": started["UploadId"]}

    def finish_parts(self, upload, etags):
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        return self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


PATH = Group("boto3/path", lambda place: Client(place, "path"))
VIRTUAL = PATH.also("boto3/virtual", lambda place: Client(place, "virtual"))
UPLOADS = Group("boto3/uploads", lambda place: Client(place, "path"), uploads=True)
UPLOADS_VIRTUAL = UPLOADS.also("boto3/virtual/uploads", lambda place: Client(place, "virtual"))
# The other ways in which botocore may say what a body is.
SETTINGS = {
    "when-required": {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    },
    "payload-signed": {"s3": {"payload_signing_enabled": True}},
}
GROUPS = [
    PATH,
    VIRTUAL,
    UPLOADS,
    UPLOADS_VIRTUAL,
    listings.of("boto3", lambda place: Client(place, "path")),
    sizes.of("boto3", lambda place: Client(place, "path")),
    *(
        sizes.of(f"boto3/{name}", lambda place, settings=settings: Client(place, "path", **settings))
        for name, settings in SETTINGS.items()
    ),
]


@PATH.check
def put_get_head(c):
    data = sample(100_000)
    etag = c.put("plain", data)["ETag"]
    expect_same(c.body("plain"), data)
    head = c.head("plain")
    expect_equal(head["ContentLength"], len(data), "length")
    expect_equal(head["ETag"], etag, "ETag")


@PATH.check
def overwrite(c):
    c.put("twice", b"first")
    c.put("twice", b"second")
    expect_same(c.body("twice"), b"second")


@PATH.check
def zero_byte(c):
    c.put("zero", b"")
    expect_same(c.body("zero"), b"")
    expect_equal(c.head("zero")["ContentLength"], 0, "length")


@PATH.check
def delete_then_missing(c):
    c.put("gone")
    c.s3.delete_object(Bucket=BUCKET, Key=c.key("gone"))
    refused(lambda: c.get("gone"), "NoSuchKey")
    refused(lambda: c.head("gone"), "404")
    c.s3.delete_object(Bucket=BUCKET, Key=c.key("gone"))  # S3: deleting what is not there succeeds


@PATH.check
def ranges(c):
    data = sample(10_000)
    c.put("range", data)
    for requested, wanted, content_range in [
        ("bytes=100-199", data[100:200], "bytes 100-199/10000"),
        ("bytes=9990-", data[9990:], "bytes 9990-9999/10000"),
        ("bytes=-10", data[-10:], "bytes 9990-9999/10000"),
    ]:
        got = c.get("range", Range=requested)
        expect_equal(got["ResponseMetadata"]["HTTPStatusCode"], 206, f"status for {requested}")
        expect_equal(got["ContentRange"], content_range, f"Content-Range for {requested}")
        expect_same(got["Body"].read(), wanted, requested)
    refused(lambda: c.get("range", Range="bytes=10000-"), "InvalidRange")


@PATH.check
def metadata(c):
    wanted = {
        "CacheControl": "max-age=60",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentEncoding": "identity",
        "ContentLanguage": "de",
        "ContentType": "text/x-cosgate",
        "Metadata": {"owner": "alice", "note": "two words; a+b=c%20"},
    }
    c.put("metadata", **wanted)
    for seen in (c.head("metadata"), c.get("metadata")):
        expect_equal({name: seen.get(name) for name in wanted}, wanted, "headers")


@PATH.check
def conditions(c):
    etag = c.put("condition")["ETag"]
    modified = c.head("condition")["LastModified"]
    refused(lambda: c.get("condition", IfNoneMatch=etag), "304")
    refused(lambda: c.get("condition", IfModifiedSince=modified), "304")
    refused(lambda: c.get("condition", IfMatch='"00000000000000000000000000000000"'), "PreconditionFailed")
    expect_same(c.get("condition", IfMatch=etag)["Body"].read(), b"content")
    refused(lambda: c.head("condition", IfNoneMatch=etag), "304")


@PATH.check
def conditions_on_writes(c):
    c.put("once", b"first", IfNoneMatch="*")
    refused(lambda: c.put("once", b"second", IfNoneMatch="*"), "PreconditionFailed")
    for call in (
        lambda: c.put("once", b"second", IfMatch='"0"'),
        lambda: c.s3.delete_object(Bucket=BUCKET, Key=c.key("once"), IfMatch='"0"'),
    ):
        refused(call, "NotImplemented")
    expect_same(c.body("once"), b"first")


@PATH.check
def response_overrides(c):
    c.put("override")
    got = c.get("override", ResponseContentType="text/x-other", ResponseContentDisposition="inline")
    expect_equal(got["ContentType"], "text/x-other", "Content-Type")
    expect_equal(got["ContentDisposition"], "inline", "Content-Disposition")


@PATH.check
def odd_keys(c):
    for name in ODD_KEYS:
        body = sample(500, name)
        c.put(f"odd/{name}", body)
    for name in ODD_KEYS:
        expect_same(c.body(f"odd/{name}"), sample(500, name), name)


@PATH.check
def odd_keys_listed_v1(c):
    [keys] = c.list_keys("list_objects", "odd/")
    expect_equal(keys, sorted((c.key(f"odd/{name}") for name in ODD_KEYS), key=str.encode), "keys")


@PATH.check
def odd_keys_listed_v2(c):
    [keys] = c.list_keys("list_objects_v2", "odd/")
    expect_equal(keys, sorted((c.key(f"odd/{name}") for name in ODD_KEYS), key=str.encode), "keys")


@PATH.check
def odd_keys_as_prefix(c):
    [keys] = c.list_keys("list_objects", "odd/a%20")
    expect_equal(keys, [c.key("odd/a%20b")], "keys")
    [keys] = c.list_keys("list_objects", "odd/=&?")
    expect_equal(keys, [c.key("odd/=&?#")], "keys")


def put_listed(c):
    for number in range(LISTED):
        c.put(f"list/{number:02}", b"")
    for folder in "pq":
        c.put(f"list-folders/{folder}/x", b"")
    return [c.key(f"list/{number:02}") for number in range(LISTED)]


@PATH.check
def list_v1_by_pages(c):
    wanted = put_listed(c)
    pages = c.list_keys("list_objects", "list/", PageSize=PAGE)
    expect_equal([len(page) for page in pages], [10, 10, 7], "page sizes")
    expect_equal(sum(pages, []), wanted, "keys")


@PATH.check
def list_v2_by_pages(c):
    wanted = put_listed(c)
    pages = c.list_keys("list_objects_v2", "list/", PageSize=PAGE)
    expect_equal([len(page) for page in pages], [10, 10, 7], "page sizes")
    expect_equal(sum(pages, []), wanted, "keys")


@PATH.check
def list_v1_folders(c):
    put_listed(c)
    listed = c.s3.list_objects(Bucket=BUCKET, Prefix=c.key("list-folders/"), Delimiter="/")
    folders = [item["Prefix"] for item in listed.get("CommonPrefixes", [])]
    expect_equal(folders, [c.key("list-folders/p/"), c.key("list-folders/q/")], "common prefixes")
    expect_equal(listed.get("Contents", []), [], "keys")


@PATH.check
def list_v2_folders_and_start_after(c):
    wanted = put_listed(c)
    listed = c.s3.list_objects_v2(Bucket=BUCKET, Prefix=c.key("list-folders/"), Delimiter="/")
    folders = [item["Prefix"] for item in listed.get("CommonPrefixes", [])]
    expect_equal(folders, [c.key("list-folders/p/"), c.key("list-folders/q/")], "common prefixes")
    after = c.s3.list_objects_v2(Bucket=BUCKET, Prefix=c.key("list/"), StartAfter=wanted[19])
    expect_equal([item["Key"] for item in after["Contents"]], wanted[20:], "keys")
    expect_equal(after["KeyCount"], 7, "KeyCount")


@PATH.check
def list_versions(c):
    c.put("versions/one")
    listed = c.s3.list_object_versions(Bucket=BUCKET, Prefix=c.key("versions/"))
    expect_equal([item["Key"] for item in listed["Versions"]], [c.key("versions/one")], "keys")


@PATH.check
def multipart_transfer(c):
    data = sample(13 * 1024 * 1024)
    source, back = c.folder / "big", c.folder / "big.back"
    source.write_bytes(data)
    more = {"Metadata": {"owner": "alice"}, "ContentType": "text/x-cosgate"}
    c.s3.upload_file(str(source), BUCKET, c.key("big"), ExtraArgs=more, Config=BY_PARTS)
    c.s3.download_file(BUCKET, c.key("big"), str(back), Config=BY_PARTS)
    expect_same(back.read_bytes(), data)
    head = c.head("big")
    expect_equal({name: head.get(name) for name in more}, more, "headers")
    expect(head["ETag"].strip('"').endswith("-3"), f"ETag {head['ETag']} should tell of 3 parts")


@PATH.check
def multipart_step_by_step(c):
    data = sample(PART + 1000)
    upload = c.start_parts("steps")
    pieces = [data[:PART], data[PART:]]
    etags = [
        c.s3.upload_part(**upload, PartNumber=number, Body=piece)["ETag"]
        for number, piece in enumerate(pieces, 1)
    ]
    c.finish_parts(upload, etags)
    expect_same(c.body("steps"), data)


@PATH.check
def multipart_listed(c):
    upload = c.start_parts("listed-upload")
    for number in (1, 2, 3):
        c.s3.upload_part(**upload, PartNumber=number, Body=sample(2000, str(number)))
    pages = c.s3.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": 2})
    sizes = [(part["PartNumber"], part["Size"]) for page in pages for part in page.get("Parts", [])]
    expect_equal(sizes, [(1, 2000), (2, 2000), (3, 2000)], "parts")
    listed = c.s3.list_multipart_uploads(Bucket=BUCKET, Prefix=c.key("listed-upload"))
    uploads = [(item["Key"], item["UploadId"]) for item in listed.get("Uploads", [])]
    expect_equal(uploads, [(upload["Key"], upload["UploadId"])], "uploads")
    c.s3.abort_multipart_upload(**upload)


@PATH.check
def uploads_with_natural_names_listed_by_pages(c):
    some = [f"uploads/{name}" for name in [*names.FILES[::50], *names.KEYS[::5]]]
    wanted = {upload["Key"]: upload["UploadId"] for upload in map(c.start_parts, some)}
    for size in (3, 1000):
        pages = c.s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=BUCKET, Prefix=c.key("uploads/"), PaginationConfig={"PageSize": size}
        )
        listed = [(item["Key"], item["UploadId"]) for page in pages for item in page.get("Uploads", [])]
        expect_equal(len(listed), len(wanted), f"number of uploads by {size}")
        expect_equal(dict(listed), wanted, f"uploads by {size}")
    for key, upload in wanted.items():
        c.s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)


@PATH.check
def multipart_aborted(c):
    upload = c.start_parts("aborted")
    c.s3.upload_part(**upload, PartNumber=1, Body=b"part")
    c.s3.abort_multipart_upload(**upload)
    refused(lambda: c.s3.upload_part(**upload, PartNumber=2, Body=b"part"), "NoSuchUpload")
    refused(lambda: c.get("aborted"), "NoSuchKey")


@PATH.check
def copy(c):
    data = sample(50_000)
    c.put("copy from+%20 中", data, Metadata={"owner": "alice"})
    source = {"Bucket": BUCKET, "Key": c.key("copy from+%20 中")}
    c.s3.copy_object(Bucket=BUCKET, Key=c.key("copy-to"), CopySource=source)
    expect_same(c.body("copy-to"), data)
    expect_equal(c.head("copy-to")["Metadata"], {"owner": "alice"}, "metadata")
    c.s3.copy_object(
        Bucket=BUCKET,
        Key=c.key("copy-replaced"),
        CopySource=source,
        Metadata={"owner": "new"},
        MetadataDirective="REPLACE",
    )
    expect_equal(c.head("copy-replaced")["Metadata"], {"owner": "new"}, "metadata replaced")
    expect_same(c.body("copy-replaced"), data)


@PATH.check
def copy_by_parts(c):
    data = sample(PART + 50_000)
    c.put("parts-from", data)
    source = {"Bucket": BUCKET, "Key": c.key("parts-from")}
    upload = c.start_parts("parts-to")
    ranges = [f"bytes=0-{PART - 1}", f"bytes={PART}-{len(data) - 1}"]
    etags = [
        c.s3.upload_part_copy(**upload, PartNumber=number, CopySource=source, CopySourceRange=requested)[
            "CopyPartResult"
        ]["ETag"]
        for number, requested in enumerate(ranges, 1)
    ]
    c.finish_parts(upload, etags)
    expect_same(c.body("parts-to"), data)


@PATH.check
def multi_delete(c):
    names = [f"many/{name}" for name in [*ODD_KEYS, "<&>\"'"]]
    for name in names:
        c.put(name, b"")
    doomed = [{"Key": c.key(name)} for name in [*names, "many/never-was"]]
    deleted = c.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": doomed})
    expect_equal(deleted.get("Errors", []), [], "errors")
    expect_equal(
        sorted(item["Key"] for item in deleted["Deleted"]), sorted(item["Key"] for item in doomed), "deleted"
    )
    for name in names:
        refused(lambda name=name: c.head(name), "404")


@PATH.check
def multi_delete_quiet(c):
    c.put("quiet")
    doomed = {"Objects": [{"Key": c.key("quiet")}], "Quiet": True}
    deleted = c.s3.delete_objects(Bucket=BUCKET, Delete=doomed)
    expect_equal(deleted.get("Deleted", []), [], "deleted")
    refused(lambda: c.head("quiet"), "404")


@PATH.check
def tagging(c):
    c.put("tagged")
    where = {"Bucket": BUCKET, "Key": c.key("tagged")}
    tags = [{"Key": "colour", "Value": "light blue"}, {"Key": "名", "Value": "a+b"}]
    c.s3.put_object_tagging(**where, Tagging={"TagSet": tags})

    def seen():
        return sorted(c.s3.get_object_tagging(**where)["TagSet"], key=lambda tag: tag["Key"])

    expect_equal(seen(), tags, "tags")
    c.s3.delete_object_tagging(**where)
    expect_equal(seen(), [], "tags after delete")


@PATH.check
def tagging_by_header(c):
    c.put("tagged-at-once", Tagging="colour=light%20blue&n=1")
    seen = c.s3.get_object_tagging(Bucket=BUCKET, Key=c.key("tagged-at-once"))["TagSet"]
    wanted = [{"Key": "colour", "Value": "light blue"}, {"Key": "n", "Value": "1"}]
    expect_equal(sorted(seen, key=lambda tag: tag["Key"]), wanted, "tags")


@PATH.check
def buckets(c):
    names = [bucket["Name"] for bucket in c.s3.list_buckets()["Buckets"]]
    expect_equal(names, [BUCKET], "buckets")
    c.s3.head_bucket(Bucket=BUCKET)
    where = c.s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"]
    expect_equal(where, REGION, "location")


@PATH.check
def create_own_bucket(c):
    try:
        c.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    except ClientError as refusal:
        # both are S3's own responses, by region
        expect_equal(refusal.response["Error"]["Code"], "BucketAlreadyOwnedByYou", "code")


def presign(c, call, name, seconds=60, **more):
    where = {"Bucket": BUCKET, "Key": c.key(name), **more}
    return c.s3.generate_presigned_url(call, Params=where, ExpiresIn=seconds)


@PATH.check
def presigned_get(c):
    for name in ["signed", *ODD_KEYS]:
        data = sample(3000, name)
        c.put(f"presign/{name}", data)
        status, _, body = fetch(presign(c, "get_object", f"presign/{name}"))
        expect_equal(status, 200, f"status for {name!r}, which printed {body[:300]!r}")
        expect_same(body, data, name)


@PATH.check
def presigned_get_with_override(c):
    c.put("presign-override")
    url = presign(c, "get_object", "presign-override", ResponseContentDisposition='attachment; filename="ä b"')
    status, headers, body = fetch(url)
    expect_equal(status, 200, f"status, body {body[:300]!r}")
    expect("attachment" in headers["Content-Disposition"], f"Content-Disposition {headers['Content-Disposition']}")


@PATH.check
def presigned_put(c):
    data = sample(70_000)
    status, _, body = fetch(presign(c, "put_object", "presigned put+%20"), "PUT", data)
    expect_equal(status, 200, f"status, body {body[:300]!r}")
    expect_same(c.body("presigned put+%20"), data)


@PATH.check
def presigned_refused(c):
    c.put("presign-refused")
    brief = presign(c, "get_object", "presign-refused", seconds=1)
    good = presign(c, "get_object", "presign-refused")
    time.sleep(2.1)
    status, _, body = fetch(brief)
    expect(status == 403 and b"<Code>AccessDenied</Code>" in body, f"expired: {status} {body[:300]!r}")
    status, _, body = fetch(good.replace("presign-refused", "presign-other"))
    expect(status == 403 and b"<Code>SignatureDoesNotMatch</Code>" in body, f"other key: {status} {body[:300]!r}")
    status, _, body = fetch(good, "DELETE")
    expect(status == 403 and b"<Code>SignatureDoesNotMatch</Code>" in body, f"other method: {status} {body[:300]!r}")


@UPLOADS.check
def stream_of_unknown_length(c):
    class Pipe:
        def __init__(self, data):
            self.data = data

        def read(self, size=-1):
            end = len(self.data) if size is None or size < 0 else size
            taken, self.data = self.data[:end], self.data[end:]
            return taken

    for size in (300_000, 2 * PART + 1000):
        data = sample(size)
        c.s3.upload_fileobj(Pipe(data), BUCKET, c.key(f"pipe-{size}"), Config=BY_PARTS)
        expect_same(c.body(f"pipe-{size}"), data)


@UPLOADS.check
def each_checksum_algorithm(c):
    data = sample(70_000)
    for algorithm in (*ALGORITHMS, *NEWER):
        put = c.put(f"checksum-{algorithm}", data, ChecksumAlgorithm=algorithm)
        expect_equal(put.get(f"Checksum{algorithm}"), checksum_of(algorithm, data), f"{algorithm} echoed")
        got = c.get(f"checksum-{algorithm}", ChecksumMode="ENABLED")
        expect_same(got["Body"].read(), data, algorithm)


@UPLOADS.check
def each_checksum_given(c):
    """Computed by the caller; a wrong one stores nothing."""
    data = sample(70_000, "given")
    for algorithm in (*ALGORITHMS, *NEWER, *GIVEN):
        name, field = f"given-{algorithm}", f"Checksum{algorithm}"
        refused(lambda: c.put(name, data, **{field: checksum_of(algorithm, data + b"!")}), "BadDigest")
        refused(lambda: c.head(name), "404")
        c.put(name, data, **{field: checksum_of(algorithm, data)})
        expect_same(c.get(name, ChecksumMode="ENABLED")["Body"].read(), data, algorithm)


@UPLOADS.check
def each_checksum_algorithm_by_parts(c):
    data = sample(2 * PART + 1000)
    for algorithm in ALGORITHMS:
        c.put_by_parts(f"parts-{algorithm}", data, ChecksumAlgorithm=algorithm)
        got = c.get(f"parts-{algorithm}", ChecksumMode="ENABLED")
        expect_same(got["Body"].read(), data, algorithm)


def presigned_form(c, name, fields=None, conditions=None, seconds=60):
    return c.s3.generate_presigned_post(
        BUCKET, c.key(name), Fields=fields, Conditions=conditions, ExpiresIn=seconds
    )


@UPLOADS.check
def presigned_post(c):
    data = sample(70_000, "post")
    fields = {"Content-Type": "text/x-cosgate", "success_action_status": "201"}
    conditions = [*({name: value} for name, value in fields.items()), ["content-length-range", 1, 100_000]]
    form = presigned_form(c, "posted/${filename}", fields, conditions)
    status, headers, printed = post(form["url"], form["fields"], data, "a b+c.bin")
    expect_equal(status, 201, f"status, body {printed[:500]!r}")
    expect(b"<PostResponse>" in printed and b"<ETag>" in printed, f"no PostResponse: {printed!r}")
    expect_equal(headers["ETag"], c.head("posted/a b+c.bin")["ETag"], "ETag")
    expect_same(c.body("posted/a b+c.bin"), data)
    expect_equal(c.head("posted/a b+c.bin")["ContentType"], "text/x-cosgate", "Content-Type")


@UPLOADS.check
def presigned_post_empty_and_big(c):
    for name, data in (("posted-empty", b""), ("posted-big", sample(PART + 1))):
        form = presigned_form(c, name)
        status, _, printed = post(form["url"], form["fields"], data)
        expect_equal(status, 204, f"status, body {printed[:500]!r}")
        expect_same(c.body(name), data)


@UPLOADS.check
def presigned_post_refused(c):
    """What the policy does not allow stores nothing."""
    data = sample(2000, "post-refused")
    limit = [["content-length-range", 1, 1000]]
    good = presigned_form(c, "post-refused")
    for what, form, more, code in [
        ("too large", presigned_form(c, "post-refused", conditions=limit), {}, b"EntityTooLarge"),
        ("a field more", good, {"x-amz-meta-more": "x"}, b"AccessDenied"),
        ("another key", good, {"key": c.key("post-other")}, b"AccessDenied"),
        ("another signature", good, {"x-amz-signature": "0" * 64}, b"SignatureDoesNotMatch"),
    ]:
        status, _, printed = post(form["url"], form["fields"] | more, data)
        expect(status in (400, 403) and b"<Code>" + code + b"</Code>" in printed, f"{what}: {status} {printed[:500]!r}")
    brief = presigned_form(c, "post-refused", seconds=1)
    time.sleep(2.1)
    status, _, printed = post(brief["url"], brief["fields"], data)
    expect(status == 403 and b"<Code>AccessDenied</Code>" in printed, f"expired: {status} {printed[:500]!r}")
    for name in ("post-refused", "post-other"):
        refused(lambda name=name: c.head(name), "404")
