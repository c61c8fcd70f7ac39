"""aws-cli: `aws s3` and `aws s3api`."""

import json

import listings
import sizes
from checksums import ALGORITHMS
from harness import (
    ALICE,
    BUCKET,
    ODD_KEYS,
    PART,
    REGION,
    Group,
    expect,
    expect_equal,
    expect_same,
    expect_same_tree,
    fetch,
    run,
    sample,
    write_odd_tree,
)

BIG = 13 * 1024 * 1024  # over the 8 MiB from which aws-cli sends parts


class Client:
    def __init__(self, place):
        self.folder = place.new_folder("awscli")
        self.environment = place.environment(ALICE)
        # `aws s3 presign` is SigV2 by default for an endpoint that is not Amazon's.
        config = self.folder / "config"
        config.write_text("[default]\ns3 =\n    signature_version = s3v4\n")
        self.environment["AWS_CONFIG_FILE"] = str(config)
        self.base = ["aws", "--endpoint-url", place.endpoint]
        self.prefix = f"{ALICE.prefix}awscli/"

    def __call__(self, *arguments, **more):
        return run([*self.base, *arguments], self.environment, **more)

    def api(self, call, *arguments, **more):
        printed = self("s3api", call, "--bucket", BUCKET, *arguments, **more)
        if more.get("fails"):
            return printed
        return json.loads(printed) if printed.strip() else {}

    def key(self, name):
        return self.prefix + name

    def url(self, name):
        return f"s3://{BUCKET}/{self.key(name)}"

    def file(self, name, data=None):
        path = self.folder / name
        if data is not None:
            path.write_bytes(data)
        return path

    def put(self, name, data=b"content", *options):
        self("s3", "cp", self.file("to-put", data), self.url(name), *options)

    # Over 8 MiB `aws s3 cp` sends parts by itself.
    put_by_parts = put

    def body(self, name):
        return self("s3", "cp", self.url(name), "-")

    def listings(self, prefix):
        # A line is the time, the size in ten places and the key; exit 1 says that there is none.
        lines = self("s3", "ls", "--recursive", f"s3://{BUCKET}/{prefix}", codes=(0, 1)).decode().split("\n")
        yield "ls --recursive", [line[31:] for line in lines if line]
        for call, page in (("list-objects-v2", "7"), ("list-objects", "1000")):
            listed = self.api(call, "--prefix", prefix, "--page-size", page)
            yield f"{call} --page-size {page}", [item["Key"] for item in listed.get("Contents", [])]

    def sync_down(self, prefix, folder):
        self("s3", "sync", "--delete", f"s3://{BUCKET}/{prefix}", folder)

    def sync_up(self, folder, prefix):
        self("s3", "sync", "--delete", folder, f"s3://{BUCKET}/{prefix}")

    def remove_all(self, prefix):
        self("s3", "rm", "--recursive", f"s3://{BUCKET}/{prefix}")


AWS = Group("awscli", Client)
UPLOADS = Group("awscli/uploads", Client, uploads=True)
GROUPS = [AWS, UPLOADS, listings.of_trees("awscli", Client), sizes.of("awscli", Client)]


@AWS.check
def cp_up_and_down(c):
    source = c.file("up", sample(60_000))
    c("s3", "cp", source, c.url("up"))
    c("s3", "cp", c.url("up"), c.file("down"))
    expect_same(c.file("down").read_bytes(), source.read_bytes())


@AWS.check
def cp_zero_byte(c):
    c("s3", "cp", c.file("zero", b""), c.url("zero"))
    c("s3", "cp", c.url("zero"), c.file("zero.back"))
    expect_same(c.file("zero.back").read_bytes(), b"")


@AWS.check
def cp_multipart(c):
    source = c.file("big", sample(BIG))
    c("s3", "cp", source, c.url("big"), "--metadata", "owner=alice")
    c("s3", "cp", c.url("big"), c.file("big.back"))
    expect_same(c.file("big.back").read_bytes(), source.read_bytes())
    expect_equal(c.api("head-object", "--key", c.key("big"))["Metadata"], {"owner": "alice"}, "metadata")


@AWS.check
def cp_odd_keys(c):
    for name in ODD_KEYS:
        if name.endswith("/"):
            continue  # `aws s3` takes it for a folder; boto3 has this key
        c.put(f"odd/{name}", sample(400, name))
        expect_same(c.body(f"odd/{name}"), sample(400, name), name)


@AWS.check
def ls(c):
    for name in ("x", "a b"):
        c.put(f"ls/{name}", b"12345")
    lines = c("s3", "ls", c.url("ls/")).decode().splitlines()
    expect_equal([line.split(maxsplit=2)[2] for line in lines], ["5 a b", "5 x"], "listing")


@AWS.check
def ls_by_pages(c):
    tree = c.folder / "pages"
    tree.mkdir()
    for number in range(27):
        (tree / f"{number:02}").write_bytes(b"")
    c("s3", "cp", "--recursive", tree, c.url("pages"))
    lines = c("s3", "ls", "--recursive", "--page-size", "10", c.url("pages/")).decode().splitlines()
    wanted = [c.key(f"pages/{number:02}") for number in range(27)]
    expect_equal([line.rsplit(maxsplit=1)[1] for line in lines], wanted, "listing")


@AWS.check
def ls_buckets(c):
    printed = c("s3", "ls").decode()
    expect_equal([line.rsplit(maxsplit=1)[1] for line in printed.splitlines()], [BUCKET], "buckets")


@AWS.check
def mv_here_and_there(c):
    data = sample(1000, "mv")
    c("s3", "mv", c.file("mv", data), c.url("mv"))
    expect(not c.file("mv").exists(), "the local file is still there")
    c("s3", "mv", c.url("mv"), c.file("mv.back"))
    expect_same(c.file("mv.back").read_bytes(), data)
    c.api("head-object", "--key", c.key("mv"), fails=True)


@AWS.check
def mv_within_bucket(c):
    data = sample(1000, "mv-within")
    c.put("mv from", data)
    c("s3", "mv", c.url("mv from"), c.url("mv-to"))
    expect_same(c.body("mv-to"), data)
    c.api("head-object", "--key", c.key("mv from"), fails=True)


@AWS.check
def cp_within_bucket_by_parts(c):
    data = sample(BIG, "cp-within")
    c("s3", "cp", c.file("cp-within", data), c.url("cp-within"))
    c("s3", "cp", c.url("cp-within"), c.url("cp-within-to"))
    expect_same(c.body("cp-within-to"), data)


@AWS.check
def rm(c):
    c.put("rm")
    c("s3", "rm", c.url("rm"))
    c.api("head-object", "--key", c.key("rm"), fails=True)


@AWS.check
def sync_and_rm_recursive(c):
    tree, back = c.folder / "tree", c.folder / "tree.back"
    write_odd_tree(tree)
    c("s3", "sync", tree, c.url("tree"))
    c("s3", "sync", c.url("tree"), back)
    expect_same_tree(back, tree)
    (tree / "empty").unlink()
    c("s3", "sync", "--delete", tree, c.url("tree"))
    c("s3", "sync", "--delete", c.url("tree"), back)
    expect_same_tree(back, tree)
    expect_equal(c("s3", "sync", tree, c.url("tree")), b"", "a second sync's work")
    c("s3", "rm", "--recursive", c.url("tree/"))
    expect_equal(c.api("list-objects-v2", "--prefix", c.key("tree/")).get("Contents", []), [], "keys left")


@AWS.check
def api_put_get_range(c):
    data = sample(5000)
    c.api("put-object", "--key", c.key("api"), "--body", c.file("api", data), "--content-type", "text/x-cosgate")
    got = c.api("get-object", "--key", c.key("api"), "--range", "bytes=100-199", c.file("api.back"))
    expect_equal(got["ContentType"], "text/x-cosgate", "Content-Type")
    expect_same(c.file("api.back").read_bytes(), data[100:200])


@AWS.check
def api_conditions(c):
    c.put("condition")
    etag = c.api("head-object", "--key", c.key("condition"))["ETag"]
    get = ["get-object", "--key", c.key("condition"), c.file("condition.back")]
    expect("304" in c.api(*get, "--if-none-match", etag, fails=True), "no 304")
    expect("PreconditionFailed" in c.api(*get, "--if-match", '"0"', fails=True), "no PreconditionFailed")


def put_listed(c):
    for number in range(5):
        c.api("put-object", "--key", c.key(f"list/{number}"))
    return [c.key(f"list/{number}") for number in range(5)]


@AWS.check
def api_list_v1(c):
    wanted = put_listed(c)
    listed = c.api("list-objects", "--prefix", c.key("list/"), "--page-size", "2")
    expect_equal([item["Key"] for item in listed["Contents"]], wanted, "keys")


@AWS.check
def api_list_v2(c):
    wanted = put_listed(c)
    listed = c.api("list-objects-v2", "--prefix", c.key("list/"), "--page-size", "2")
    expect_equal([item["Key"] for item in listed["Contents"]], wanted, "keys")


@AWS.check
def api_copy(c):
    c.put("copy from", b"copied")
    source = f"{BUCKET}/{c.key('copy from')}"
    c.api("copy-object", "--key", c.key("copy-to"), "--copy-source", source)
    expect_same(c.body("copy-to"), b"copied")


@AWS.check
def api_multi_delete(c):
    c.put("many 1")
    doomed = {"Objects": [{"Key": c.key("many 1")}, {"Key": c.key("never-was")}]}
    deleted = c.api("delete-objects", "--delete", json.dumps(doomed))
    wanted = sorted(item["Key"] for item in doomed["Objects"])
    expect_equal(sorted(item["Key"] for item in deleted["Deleted"]), wanted, "deleted")
    c.api("head-object", "--key", c.key("many 1"), fails=True)


@AWS.check
def api_tagging(c):
    c.put("tagged")
    where = ["--key", c.key("tagged")]
    tags = {"TagSet": [{"Key": "colour", "Value": "light blue"}]}
    c.api("put-object-tagging", *where, "--tagging", json.dumps(tags))
    expect_equal(c.api("get-object-tagging", *where)["TagSet"], tags["TagSet"], "tags")


@AWS.check
def api_bucket(c):
    c.api("head-bucket")
    expect_equal(c.api("get-bucket-location")["LocationConstraint"], REGION, "location")


@AWS.check
def presigned_get(c):
    c.put("presigned a+b", b"presigned")
    url = c("s3", "presign", c.url("presigned a+b"), "--expires-in", "60", "--region", REGION).decode().strip()
    status, _, body = fetch(url)
    expect_equal(status, 200, f"status, body {body[:300]!r}")
    expect_same(body, b"presigned")


@AWS.check
def fenced(c):
    printed = c("s3", "cp", f"s3://{BUCKET}/bob/treasure", "-", fails=True)
    expect("403" in printed, f"not refused as forbidden: {printed}")
    printed = c("s3", "cp", "-", f"s3://{BUCKET}/bob/x", stdin=b"x", fails=True)
    expect("AccessDenied" in printed, f"not refused as AccessDenied: {printed}")
    printed = c.api("list-objects", "--prefix", "bob/", fails=True)
    expect("AccessDenied" in printed, f"not refused as AccessDenied: {printed}")
    expect_equal(c("s3", "ls", f"s3://{BUCKET}/").decode().split(), ["PRE", "alice/"], "listing of the bucket")


@UPLOADS.check
def stream_of_unknown_length(c):
    for size in (300_000, 2 * PART + 1000):
        data = sample(size)
        c("s3", "cp", "-", c.url(f"pipe-{size}"), stdin=data)
        expect_same(c.body(f"pipe-{size}"), data)


@UPLOADS.check
def each_checksum_algorithm(c):
    data = sample(70_000)
    for algorithm in ALGORITHMS:
        c.put(f"checksum-{algorithm}", data, "--checksum-algorithm", algorithm)
        back = c.file("checksum.back")
        c("s3", "cp", c.url(f"checksum-{algorithm}"), back, "--checksum-mode", "ENABLED")
        expect_same(back.read_bytes(), data, algorithm)


@UPLOADS.check
def each_checksum_algorithm_by_parts(c):
    data = sample(BIG, "checksum")
    for algorithm in ALGORITHMS:
        c.put(f"parts-{algorithm}", data, "--checksum-algorithm", algorithm)
        expect_same(c.body(f"parts-{algorithm}"), data, algorithm)


@UPLOADS.check
def checksums_when_required(c):
    c.environment |= {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
    c.environment |= {"AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"}
    for size in (70_000, BIG):
        data = sample(size, "required")
        c.put("required", data)
        expect_same(c.body("required"), data)
