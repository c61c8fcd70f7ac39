"""What must be refused: another tenant's keys, wrong secrets, strangers. Requested with boto3 and plain HTTP."""

import http.client
from urllib.parse import quote, urlencode

from harness import ALICE, BOB, BUCKET, PART, Group, Tenant, expect, expect_equal, expect_same, fetch, sample
from with_boto3 import connect, refused

DENIED = "AccessDenied"
TREASURE = sample(2000, "treasure")


class Client:
    def __init__(self, place):
        self.place = place
        self.alice = connect(place.endpoint, ALICE)
        self.bob = connect(place.endpoint, BOB)
        self.anonymous = connect(place.endpoint, None)
        self.bob.put_object(Bucket=BUCKET, Key="bob/treasure", Body=TREASURE)
        self.alice.put_object(Bucket=BUCKET, Key="alice/own", Body=b"own")

    def intact(self):
        """Bob's object is as Bob left it, and nothing lies beside it."""
        body = self.bob.get_object(Bucket=BUCKET, Key="bob/treasure")["Body"].read()
        expect_same(body, TREASURE, "bob's object")
        listed = self.bob.list_objects(Bucket=BUCKET, Prefix="bob/")
        expect_equal([item["Key"] for item in listed["Contents"]], ["bob/treasure"], "bob's keys")

    def with_keys(self, key_id, secret):
        return connect(self.place.endpoint, Tenant(ALICE.prefix, key_id, secret))


FENCE = Group("fence", Client)
GROUPS = [FENCE]


@FENCE.check
def read(c):
    refused(lambda: c.alice.get_object(Bucket=BUCKET, Key="bob/treasure"), DENIED)
    refused(lambda: c.alice.head_object(Bucket=BUCKET, Key="bob/treasure"), "403")
    refused(lambda: c.alice.get_object(Bucket=BUCKET, Key="bob/not-there"), DENIED)
    refused(lambda: c.bob.get_object(Bucket=BUCKET, Key="alice/own"), DENIED)


@FENCE.check
def write(c):
    refused(lambda: c.alice.put_object(Bucket=BUCKET, Key="bob/treasure", Body=b"x"), DENIED)
    refused(lambda: c.alice.put_object(Bucket=BUCKET, Key="outside", Body=b"x"), DENIED)
    refused(lambda: c.alice.put_object(Bucket=BUCKET, Key="alicex", Body=b"x"), DENIED)
    refused(lambda: c.alice.put_object(Bucket=BUCKET, Key="public/x", Body=b"x"), DENIED)
    refused(lambda: c.alice.create_multipart_upload(Bucket=BUCKET, Key="bob/parts"), DENIED)
    c.intact()


@FENCE.check
def delete(c):
    refused(lambda: c.alice.delete_object(Bucket=BUCKET, Key="bob/treasure"), DENIED)
    c.intact()


@FENCE.check
def multi_delete(c):
    doomed = {"Objects": [{"Key": "alice/own-not-there"}, {"Key": "bob/treasure"}]}
    try:
        response = c.alice.delete_objects(Bucket=BUCKET, Delete=doomed)
    except c.alice.exceptions.ClientError as refusal:
        expect_equal(refusal.response["Error"]["Code"], DENIED, "code")
    else:
        errors = [(item["Key"], item["Code"]) for item in response.get("Errors", [])]
        expect_equal(errors, [("bob/treasure", DENIED)], "errors")
    c.intact()


@FENCE.check
def copy_out_of_reach(c):
    source = {"Bucket": BUCKET, "Key": "bob/treasure"}
    refused(lambda: c.alice.copy_object(Bucket=BUCKET, Key="alice/stolen", CopySource=source), DENIED)
    own = {"Bucket": BUCKET, "Key": "alice/own"}
    refused(lambda: c.alice.copy_object(Bucket=BUCKET, Key="bob/planted", CopySource=own), DENIED)
    c.intact()


@FENCE.check
def copy_by_parts_out_of_reach(c):
    where = {"Bucket": BUCKET, "Key": "alice/stolen-parts"}
    upload = {**where, "UploadId": c.alice.create_multipart_upload(**where)["UploadId"]}
    source = {"Bucket": BUCKET, "Key": "bob/treasure"}
    refused(lambda: c.alice.upload_part_copy(**upload, PartNumber=1, CopySource=source), DENIED)
    c.alice.abort_multipart_upload(**upload)


@FENCE.check
def list_v1(c):
    for prefix in ("bob/", "b", "alicea", "public/"):
        refused(lambda prefix=prefix: c.alice.list_objects(Bucket=BUCKET, Prefix=prefix), DENIED)
    for prefix in ("", "ali", "alice"):
        only_alices(c.alice.list_objects, "Contents", Prefix=prefix)
    only_alices(c.alice.list_objects, "Contents")
    # keys are no paths: refused or not, this must not be read as one
    try:
        climbed = c.alice.list_objects(Bucket=BUCKET, Prefix="alice/../bob/")
    except c.alice.exceptions.ClientError:
        return
    expect_equal(climbed.get("Contents", []), [], "keys listed")


@FENCE.check
def list_v2(c):
    refused(lambda: c.alice.list_objects_v2(Bucket=BUCKET, Prefix="bob/"), DENIED)
    for prefix in ("", "ali"):
        only_alices(c.alice.list_objects_v2, "Contents", Prefix=prefix)


@FENCE.check
def list_uploads(c):
    refused(lambda: c.alice.list_multipart_uploads(Bucket=BUCKET, Prefix="bob/"), DENIED)
    only_alices(c.alice.list_multipart_uploads, "Uploads")


def only_alices(listing, entries, **named):
    """A listing from above shows what is Alice's, and with a delimiter the way to it."""
    keys = [entry["Key"] for entry in listing(Bucket=BUCKET, **named).get(entries, [])]
    expect(all(key.startswith("alice/") for key in keys), f"keys of others: {keys}")
    groups = listing(Bucket=BUCKET, Delimiter="/", **named)
    expect_equal([group["Prefix"] for group in groups["CommonPrefixes"]], ["alice/"], "common prefixes")
    expect_equal(groups.get(entries, []), [], "entries beside them")


@FENCE.check
def presigned(c):
    """Alice may sign what she likes; it still opens nothing of Bob's."""
    where = {"Bucket": BUCKET, "Key": "bob/treasure"}
    for call, method, body in [
        ("get_object", "GET", None),
        ("put_object", "PUT", b"x"),
        ("delete_object", "DELETE", None),
    ]:
        status, _, text = fetch(c.alice.generate_presigned_url(call, Params=where), method, body)
        expect(status == 403 and b"<Code>AccessDenied</Code>" in text, f"{method}: {status} {text[:300]!r}")
    c.intact()


@FENCE.check
def climbing_out(c):
    """`..` in every spelling, sent as raw bytes since most clients would tidy it away."""
    for path in (
        "alice/../bob/treasure",
        "alice/%2e%2e/bob/treasure",
        "alice/..%2fbob/treasure",
        "alice/%252e%252e/bob/treasure",
        "alice%2f..%2fbob%2ftreasure",
        "alice/./../bob/treasure",
        "%2fbob/treasure",
        "alice\\..\\bob\\treasure",
        "alice/..;/bob/treasure",
        "alice/%00/../bob/treasure",
    ):
        for signed_by in (c.alice, c.anonymous):
            target = f"/{BUCKET}/{path}"
            if signed_by is c.alice:
                url = c.alice.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "alice/own"})
                target = f"{target}?{url.split('?', 1)[1]}"
            connection = http.client.HTTPConnection(c.place.authority, timeout=30)
            connection.request("GET", target)
            response = connection.getresponse()
            text = response.read()
            connection.close()
            expect(response.status in (400, 403), f"{target}: {response.status} {text[:300]!r}")
            expect(TREASURE not in text, f"{target} gave bob's object away")
    for key in ("alice/../bob/treasure", "alice/./x", "alice/..", "../alice/x"):
        refused(
            lambda key=key: c.alice.put_object(Bucket=BUCKET, Key=key, Body=b"x"),
            DENIED,
            "InvalidArgument",
            "InvalidRequest",
            "InvalidURI",
            "SignatureDoesNotMatch",
        )
    c.intact()


@FENCE.check
def other_buckets(c):
    refused(lambda: c.alice.get_object(Bucket="another", Key="alice/own"), DENIED, "NoSuchBucket")
    refused(lambda: c.alice.list_objects(Bucket="another", Prefix="alice/"), DENIED, "NoSuchBucket")
    refused(lambda: c.alice.delete_bucket(Bucket=BUCKET), DENIED, "MethodNotAllowed", "NotImplemented")


@FENCE.check
def bucket_settings(c):
    """What only the bucket's owner may change is refused, never passed on."""
    for call, more in [
        ("delete_bucket_policy", {}),
        ("put_bucket_acl", {"ACL": "public-read"}),
        ("put_object_acl", {"Key": "alice/own", "ACL": "public-read"}),
    ]:
        refused(
            lambda call=call, more=more: getattr(c.alice, call)(Bucket=BUCKET, **more),
            DENIED,
            "MethodNotAllowed",
            "NotImplemented",
        )


@FENCE.check
def anonymous_inside(c):
    data = sample(4000, "public")
    c.anonymous.put_object(Bucket=BUCKET, Key="public/fence/a b", Body=data)
    status, _, body = fetch(f"{c.place.endpoint}/{BUCKET}/public/fence/{quote('a b')}")
    expect_equal(status, 200, f"status, body {body[:300]!r}")
    expect_same(body, data)
    listed = c.anonymous.list_objects(Bucket=BUCKET, Prefix="public/fence/")
    expect_equal([item["Key"] for item in listed["Contents"]], ["public/fence/a b"], "keys")


@FENCE.check
def anonymous_outside(c):
    refused(lambda: c.anonymous.get_object(Bucket=BUCKET, Key="bob/treasure"), DENIED)
    refused(lambda: c.anonymous.get_object(Bucket=BUCKET, Key="alice/own"), DENIED)
    refused(lambda: c.anonymous.put_object(Bucket=BUCKET, Key="bob/treasure", Body=b"x"), DENIED)
    refused(lambda: c.anonymous.delete_object(Bucket=BUCKET, Key="bob/treasure"), DENIED)
    shown = [entry["Key"] for entry in c.anonymous.list_objects(Bucket=BUCKET).get("Contents", [])]
    expect(all(key.startswith("public/") for key in shown), f"the bucket shows {shown!r}")
    refused(lambda: c.anonymous.list_objects(Bucket=BUCKET, Prefix="alice/"), DENIED)
    c.intact()


@FENCE.check
def anonymous_from_a_web_page(c):
    """A page of another site, or a name that was made to point here, gets nothing without a key."""
    url = f"{c.place.endpoint}/{BUCKET}/public/page?{urlencode({'x-id': 'PutObject'})}"
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        status, _, text = fetch(url, "PUT", b"x", headers)
        expect(status == 403, f"{headers}: {status} {text[:300]!r}")


@FENCE.check
def wrong_secret(c):
    wrong = c.with_keys(ALICE.key_id, BOB.secret)
    refused(lambda: wrong.get_object(Bucket=BUCKET, Key="alice/own"), "SignatureDoesNotMatch")
    refused(lambda: wrong.put_object(Bucket=BUCKET, Key="alice/own", Body=b"x"), "SignatureDoesNotMatch")
    refused(lambda: wrong.list_objects(Bucket=BUCKET, Prefix="alice/"), "SignatureDoesNotMatch")


@FENCE.check
def unknown_key(c):
    unknown = c.with_keys("COSGATEDEMONOBODY001", ALICE.secret)
    refused(lambda: unknown.get_object(Bucket=BUCKET, Key="alice/own"), "InvalidAccessKeyId")
    refused(lambda: unknown.list_buckets(), "InvalidAccessKeyId")


@FENCE.check
def refusals_tell_nothing(c):
    """A request id to ask with, and neither secrets, tokens nor the real bucket's name."""
    refusal = refused(lambda: c.alice.get_object(Bucket=BUCKET, Key="bob/treasure"), DENIED)
    expect(refusal.response["ResponseMetadata"].get("RequestId"), "no request id")
    status, headers, body = fetch(f"{c.place.endpoint}/{BUCKET}/alice/own")
    expect_equal(status, 403, "status")
    expect(b"<RequestId>" in body, f"no request id in {body!r}")
    text = (str(headers) + body.decode()).lower()
    for hidden in (ALICE.secret, "security-token", "myqcloud", "q-sign", "-125"):
        expect(hidden.lower() not in text, f"{hidden!r} in {text}")


@FENCE.check
def upload_cut_short(c):
    """A client that vanishes in the middle of its body leaves no object."""
    url = c.alice.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "alice/cut-short"})
    connection = http.client.HTTPConnection(c.place.authority, timeout=30)
    connection.putrequest("PUT", url.removeprefix(c.place.endpoint))
    connection.putheader("Content-Length", str(PART))
    connection.endheaders()
    connection.send(sample(PART // 2))
    connection.close()
    refused(lambda: c.alice.get_object(Bucket=BUCKET, Key="alice/cut-short"), "NoSuchKey")
    c.alice.put_object(Bucket=BUCKET, Key="alice/own", Body=b"own")
