"""The SDK and the tool of COS's own API, which sign with q-sign: `qcloud_cos` and coscmd."""

import logging
import re
from urllib.parse import unquote

import listings
from harness import (
    ODD_KEYS,
    REGION,
    VIRTUAL_DOMAIN,
    Group,
    Tenant,
    expect,
    expect_equal,
    expect_same,
    expect_same_tree,
    fetch,
    run,
    sample,
    write_odd_tree,
)

# The tenant of `cosgate dev` whose bucket has an APPID, as these clients want it.
CAROL = Tenant("carol/", "COSGATEDEMOCAROL0001", "cosgate-demo-carol-secret-00000000000000")
BUCKET = "demo-1250000000"
BIG = 3 * 1024 * 1024 + 17


class Sdk:
    """`cos-python-sdk-v5`: the host says the bucket, and the address is given beside it."""

    def __init__(self, place):
        from qcloud_cos import CosConfig, CosS3Client

        logging.getLogger("qcloud_cos").setLevel(logging.CRITICAL)
        self.place = place
        self.folder = place.new_folder("cos-sdk")
        self.prefix = f"{CAROL.prefix}cos-sdk/"
        self.client = CosS3Client(
            CosConfig(
                Region=REGION,
                SecretId=CAROL.key_id,
                SecretKey=CAROL.secret,
                Scheme="http",
                Endpoint=VIRTUAL_DOMAIN,
                IP="127.0.0.1",
                Port=place.port,
            ),
            retry=0,
        )

    def __getattr__(self, name):
        """An operation of the SDK, on the demo bucket."""
        operation = getattr(self.client, name)
        return lambda **arguments: operation(Bucket=BUCKET, **arguments)

    def key(self, name):
        return f"{self.prefix}{name}"

    def put(self, name, data=b"content", **more):
        return self.put_object(Key=self.key(name), Body=data, **more)

    def body(self, name):
        return self.get_object(Key=self.key(name))["Body"].get_raw_stream().read()

    def source(self, name):
        return {"Bucket": BUCKET, "Key": self.key(name), "Endpoint": VIRTUAL_DOMAIN}

    def refused(self, status, code, operation, **arguments):
        from qcloud_cos.cos_exception import CosServiceError

        try:
            getattr(self, operation)(**arguments)
        except CosServiceError as error:
            expect_equal((error.get_status_code(), error.get_error_code()), (status, code), operation)
            expect(error.get_request_id() != "Unknown", f"no request id: {error}")
        else:
            expect(False, f"{operation} succeeded, should be refused")

    def listings(self, prefix):
        for size, named in ((7, {"EncodingType": "url"}), (1000, {"EncodingType": "url"}), (1000, {})):
            keys, marker, decoded = [], "", unquote if named else str
            while marker is not None:
                page = self.list_objects(Prefix=prefix, MaxKeys=size, Marker=marker, **named)
                keys += [decoded(entry["Key"]) for entry in page.get("Contents", [])]
                marker = decoded(page["NextMarker"]) if page["IsTruncated"] == "true" else None
            yield f"list_objects by {size} {named}", keys
        keys, marker = [], {}
        while marker is not None:
            page = self.list_objects_versions(Prefix=prefix, MaxKeys=100, **marker)
            keys += [entry["Key"] for entry in page.get("Version", [])]
            more = page["IsTruncated"] == "true"
            marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]} if more else None
        yield "list_objects_versions by 100", keys

    def remove_all(self, prefix):
        [(_, keys), *_] = self.listings(prefix)
        doomed = [{"Key": key} for key in keys]
        result = self.delete_objects(Delete={"Object": doomed, "Quiet": "true"})
        expect("Error" not in result, f"errors: {result}")


SDK = Group("cos-sdk", Sdk)


@SDK.check
def put_and_get(c):
    data = sample(60_000)
    result = c.put("up", data, EnableMD5=True, ContentType="text/x-cosgate", Metadata={"x-cos-meta-owner": "alice"})
    expect("x-cos-request-id" in result, f"no x-cos-request-id: {result}")
    expect("x-cos-hash-crc64ecma" in result, f"no x-cos-hash-crc64ecma: {result}")
    back = c.get_object(Key=c.key("up"))
    expect_same(back["Body"].get_raw_stream().read(), data)
    expect_equal(back["Content-Type"], "text/x-cosgate", "Content-Type")
    expect_equal(c.head_object(Key=c.key("up"))["x-cos-meta-owner"], "alice", "metadata")


@SDK.check
def zero_byte(c):
    c.put("zero", b"")
    expect_same(c.body("zero"), b"")


@SDK.check
def odd_keys(c):
    for name in ODD_KEYS:
        c.put(f"odd/{name}", sample(400, name))
        expect_same(c.body(f"odd/{name}"), sample(400, name), name)


@SDK.check
def a_range(c):
    data = sample(1000)
    c.put("range", data)
    part = c.get_object(Key=c.key("range"), Range="bytes=10-19")
    expect_same(part["Body"].get_raw_stream().read(), data[10:20])


@SDK.check
def listing_pages(c):
    for name in ("a", "b c", "d+e", "sub/x", "中文"):
        c.put(f"list/{name}")
    seen, marker = [], ""
    while True:
        page = c.list_objects(Prefix=c.key("list/"), MaxKeys=2, Marker=marker, EncodingType="url")
        seen += [unquote(entry["Key"]) for entry in page.get("Contents", [])]
        if page["IsTruncated"] == "false":
            break
        marker = unquote(page["NextMarker"])
    wanted = [c.key(f"list/{name}") for name in ("a", "b c", "d+e", "sub/x", "中文")]
    expect_equal(seen, wanted, "keys")
    folders = c.list_objects(Prefix=c.key("list/"), Delimiter="/")["CommonPrefixes"]
    expect_equal([folder["Prefix"] for folder in folders], [c.key("list/sub/")], "folders")


@SDK.check
def multipart(c):
    data = sample(BIG)
    file = c.folder / "big"
    file.write_bytes(data)
    c.upload_file(Key=c.key("big"), LocalFilePath=str(file), PartSize=1, MAXThread=3)
    expect_same(c.body("big"), data)
    back = c.folder / "big.back"
    c.download_file(Key=c.key("big"), DestFilePath=str(back), PartSize=1, MAXThread=3)
    expect_same(back.read_bytes(), data)


@SDK.check
def multipart_by_hand_and_abort(c):
    key = c.key("by-hand")
    upload = c.create_multipart_upload(Key=key)["UploadId"]
    c.upload_part(Key=key, Body=sample(1 << 20), PartNumber=1, UploadId=upload)
    parts = c.list_parts(Key=key, UploadId=upload)["Part"]
    expect_equal([part["PartNumber"] for part in parts], ["1"], "parts")
    uploads = c.list_multipart_uploads(Prefix=key)["Upload"]
    expect_equal([entry["Key"] for entry in uploads], [key], "uploads")
    c.abort_multipart_upload(Key=key, UploadId=upload)
    c.refused(404, "NoSuchUpload", "list_parts", Key=key, UploadId=upload)


@SDK.check
def copy(c):
    data = sample(3000, "copy")
    c.put("copy from+%20", data, Metadata={"x-cos-meta-kind": "first"})
    c.copy_object(Key=c.key("copied"), CopySource=c.source("copy from+%20"))
    expect_same(c.body("copied"), data)
    c.copy_object(
        Key=c.key("copied"),
        CopySource=c.source("copy from+%20"),
        CopyStatus="Replaced",
        Metadata={"x-cos-meta-kind": "second"},
    )
    expect_equal(c.head_object(Key=c.key("copied"))["x-cos-meta-kind"], "second", "metadata")


@SDK.check
def delete_one_and_many(c):
    names = ["gone/a", "gone/b c", "gone/中文"]
    for name in [*names, "gone/first"]:
        c.put(name)
    c.delete_object(Key=c.key("gone/first"))
    doomed = [{"Key": c.key(name)} for name in names] + [{"Key": "bob/treasure"}]
    result = c.delete_objects(Delete={"Object": doomed, "Quiet": "false"})
    expect_equal(sorted(entry["Key"] for entry in result["Deleted"]), sorted(c.key(n) for n in names), "deleted")
    expect_equal([(e["Key"], e["Code"]) for e in result["Error"]], [("bob/treasure", "AccessDenied")], "refused")
    expect("Contents" not in c.list_objects(Prefix=c.key("gone/")), "something is left")


@SDK.check
def tags(c):
    c.put("tags")
    tag = {"Key": "a", "Value": "b"}
    c.put_object_tagging(Key=c.key("tags"), Tagging={"TagSet": {"Tag": [tag]}})
    expect_equal(c.get_object_tagging(Key=c.key("tags"))["TagSet"]["Tag"], [tag], "tags")
    c.delete_object_tagging(Key=c.key("tags"))


@SDK.check
def probes(c):
    c.head_bucket()
    expect_equal(c.get_bucket_location()["LocationConstraint"], REGION, "region")
    expect_equal(c.object_exists(Key=c.key("never")), False, "existence")


@SDK.check
def presigned_urls(c):
    data = sample(2000, "link")
    for method, body in (("PUT", data), ("GET", None), ("HEAD", None)):
        url = c.get_presigned_url(Key=c.key("link a+b"), Method=method, Headers={"host": f"{BUCKET}.{VIRTUAL_DOMAIN}"})
        host = {"Host": f"{BUCKET}.{VIRTUAL_DOMAIN}"}
        status, _, text = fetch(url, method, body, host)
        expect_equal(status, 200, f"status of {method}, body {text[:300]!r}")
        if method == "GET":
            expect_same(text, data)
            expect_equal(fetch(url, "DELETE", None, host)[0], 403, "status of another method")
            expect_equal(fetch(url.replace("link", "other"), method, None, host)[0], 403, "status of another key")


@SDK.check
def fenced(c):
    c.refused(403, "AccessDenied", "put_object", Key="bob/fenced", Body=b"x")
    c.refused(403, "AccessDenied", "get_object", Key="bob/treasure")
    c.refused(403, "AccessDenied", "list_objects", Prefix="bob/")
    shown = c.list_objects(Delimiter="/")
    expect_equal([group["Prefix"] for group in shown["CommonPrefixes"]], [CAROL.prefix], "common prefixes")
    source = {"Bucket": BUCKET, "Key": "bob/treasure", "Endpoint": VIRTUAL_DOMAIN}
    c.refused(403, "AccessDenied", "copy_object", Key=c.key("stolen"), CopySource=source)
    c.refused(403, "AccessDenied", "put_object", Key=c.key("acl"), Body=b"x", ACL="public-read")


# A row of the table that coscmd prints.
ROW = re.compile(r" {3}(?P<key>.*?) *\d+ {6}(STANDARD {6})?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( {6}null)? {3}")


class Coscmd:
    """coscmd takes no address beside the host, so cosgate is its HTTP proxy: no name is looked up."""

    def __init__(self, place):
        self.folder = place.new_folder("coscmd")
        self.environment = {**place.environment(CAROL), "http_proxy": place.endpoint, "no_proxy": ""}
        self.configuration = self.folder / "cos.conf"
        self.prefix = f"{CAROL.prefix}coscmd/"
        self.log = self.folder / "log"
        self(
            *("config", "-a", CAROL.key_id, "-s", CAROL.secret, "-b", BUCKET),
            *("-e", VIRTUAL_DOMAIN, "--do-not-use-ssl", "-p", "1", "--retry", "1"),
        )

    def __call__(self, *arguments, **more):
        argv = ["coscmd", "-c", self.configuration, "-l", self.log, *arguments]
        printed = run(argv, self.environment, **more)
        return printed if isinstance(printed, str) else printed.decode()

    def key(self, name):
        return self.prefix + name

    # What can be known of a key in a table: not the spaces at its end.
    shown = staticmethod(str.rstrip)

    def listings(self, prefix):
        for way in (["-r"], ["-r", "-v"]):
            rows = [ROW.fullmatch(line) for line in self("list", "-a", *way, prefix).split("\n")]
            yield f"list {way}", [row["key"] for row in rows if row]

    def remove_all(self, prefix):
        self("delete", "-r", "-f", prefix)

    def file(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        return path


COSCMD = Group("coscmd", Coscmd)
GROUPS = [
    SDK,
    COSCMD,
    listings.of("cos-sdk", Sdk, CAROL, BUCKET),
    listings.of("coscmd", Coscmd, CAROL, BUCKET),
]


@COSCMD.check
def upload_and_download(c):
    for name, size in (("small", 3000), ("large", BIG)):
        data = sample(size)
        c("upload", c.file(name, data), f"{c.prefix}{name}")
        back = c.folder / f"{name}.back"
        c("download", f"{c.prefix}{name}", back)
        expect_same(back.read_bytes(), data)


@COSCMD.check
def folders_list_and_delete(c):
    tree, back = c.folder / "tree", c.folder / "back"
    write_odd_tree(tree)
    (tree / "empty").unlink()  # sent chunked, without a length: `spool_unknown_length` would take it
    c("upload", "-r", tree, f"{c.prefix}tree/")
    expect("plain.txt" in c("list", "-r", f"{c.prefix}tree/"), "plain.txt is not listed")
    c("download", "-r", f"{c.prefix}tree/", back)
    expect_same_tree(back / "tree", tree)  # coscmd keeps the name of the folder
    c("delete", "-r", "-f", f"{c.prefix}tree/")
    expect("plain.txt" not in c("list", "-r", f"{c.prefix}tree/"), "plain.txt is still listed")


@COSCMD.check
def copy_and_info(c):
    c("upload", c.file("original", b"original"), f"{c.prefix}original")
    c("copy", f"{BUCKET}.{VIRTUAL_DOMAIN}/{c.prefix}original", f"{c.prefix}copied")
    expect("original" not in c("info", f"{c.prefix}copied"), "info of another object")
    url = c("signurl", f"{c.prefix}copied").strip()
    expect("q-signature=" in url, f"no signature: {url}")


@COSCMD.check
def fenced(c):
    c("upload", c.file("fenced", b"x"), "bob/fenced", fails=True)
    c("list", "bob/", fails=True)
