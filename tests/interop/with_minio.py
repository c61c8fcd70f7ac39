"""minio-py, which signs the payload over HTTP and leaves that to TLS over HTTPS."""

import io
from datetime import timedelta

from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

import listings
import sizes
from harness import ALICE, BUCKET, ODD_KEYS, PART, REGION, Group, expect, expect_equal, expect_same, fetch, sample


class Client:
    def __init__(self, place):
        self.s3 = Minio(
            place.authority, access_key=ALICE.key_id, secret_key=ALICE.secret, secure=place.tls, region=REGION
        )
        self.folder = place.new_folder("minio")
        self.prefix = f"{ALICE.prefix}{self.folder.name}/"

    def key(self, name):
        return self.prefix + name

    def put(self, name, data=b"content", **more):
        self.s3.put_object(BUCKET, self.key(name), io.BytesIO(data), len(data), **more)

    def put_by_parts(self, name, data):
        self.put(name, data, part_size=PART)

    def body(self, name, **more):
        response = self.s3.get_object(BUCKET, self.key(name), **more)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    def listed(self, prefix):
        return [item.object_name for item in self.s3.list_objects(BUCKET, self.key(prefix), recursive=True)]

    def listings(self, prefix):
        for way in ({}, {"use_api_v1": True}, {"include_version": True}):
            found = self.s3.list_objects(BUCKET, prefix, recursive=True, **way)
            yield f"list_objects {way}", [item.object_name for item in found]

    def remove_all(self, prefix):
        found = self.s3.list_objects(BUCKET, prefix, recursive=True)
        errors = self.s3.remove_objects(BUCKET, (DeleteObject(item.object_name) for item in found))
        expect_equal([*errors], [], "errors")


MINIO = Group("minio", Client, uploads=True)
GROUPS = [MINIO, listings.of("minio", Client), sizes.of("minio", Client)]


def refused(call, code):
    try:
        call()
    except S3Error as refusal:
        expect_equal(refusal.code, code, "code")
        return
    expect(False, f"succeeded, should be refused with {code}")


@MINIO.check
def stream_of_unknown_length(c):
    for size in (300_000, 2 * PART + 1000):
        data = sample(size)
        c.s3.put_object(BUCKET, c.key("pipe"), io.BytesIO(data), -1, part_size=PART)
        expect_same(c.body("pipe"), data)


@MINIO.check
def file_up_and_down(c):
    source, back = c.folder / "up", c.folder / "down"
    source.write_bytes(sample(60_000))
    c.s3.fput_object(BUCKET, c.key("file"), str(source), content_type="text/x-cosgate", metadata={"owner": "alice"})
    c.s3.fget_object(BUCKET, c.key("file"), str(back))
    expect_same(back.read_bytes(), source.read_bytes())
    about = c.s3.stat_object(BUCKET, c.key("file"))
    expect_equal(about.content_type, "text/x-cosgate", "Content-Type")
    expect_equal(about.metadata.get("x-amz-meta-owner"), "alice", "metadata")


@MINIO.check
def odd_keys(c):
    for name in ODD_KEYS:
        c.put(f"odd/{name}", sample(500, name))
        expect_same(c.body(f"odd/{name}"), sample(500, name), name)
    wanted = sorted((c.key(f"odd/{name}") for name in ODD_KEYS), key=str.encode)
    expect_equal(c.listed("odd/"), wanted, "keys")
    errors = list(c.s3.remove_objects(BUCKET, [DeleteObject(key) for key in wanted]))
    expect_equal(errors, [], "errors of multi-delete")
    expect_equal(c.listed("odd/"), [], "keys left")


@MINIO.check
def range_of_object(c):
    data = sample(9000)
    c.put("range", data)
    expect_same(c.body("range", offset=100, length=50), data[100:150])


@MINIO.check
def presigned_get_and_put(c):
    data = sample(5000)
    hour = timedelta(hours=1)
    status, _, text = fetch(c.s3.presigned_put_object(BUCKET, c.key("signed a+b"), hour), "PUT", data)
    expect_equal(status, 200, f"status of PUT, body {text[:300]!r}")
    status, _, back = fetch(c.s3.presigned_get_object(BUCKET, c.key("signed a+b"), hour))
    expect_equal(status, 200, f"status of GET, body {back[:300]!r}")
    expect_same(back, data)


@MINIO.check
def bucket_is_there(c):
    expect(c.s3.bucket_exists(BUCKET), "bucket_exists says no")
    expect_equal([bucket.name for bucket in c.s3.list_buckets()], [BUCKET], "buckets")


@MINIO.check
def fenced(c):
    refused(lambda: c.s3.put_object(BUCKET, "bob/fenced", io.BytesIO(b"x"), 1), "AccessDenied")
    refused(lambda: c.s3.get_object(BUCKET, "bob/treasure"), "AccessDenied")
    refused(lambda: list(c.s3.list_objects(BUCKET, "bob/")), "AccessDenied")
