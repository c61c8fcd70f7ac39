"""s5cmd: many requests at once, wildcards, and deletes that are always multi-deletes."""

import json

import listings
import sizes
from harness import (
    ALICE,
    BUCKET,
    ODD_KEYS,
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

BIG = 13 * 1024 * 1024


class Client:
    def __init__(self, place, name, *options):
        self.folder = place.new_folder(f"s5cmd-{name}")
        self.environment = place.environment(ALICE)
        self.base = ["s5cmd", "--endpoint-url", place.endpoint, "--retry-count", "1", *options]
        self.prefix = f"{ALICE.prefix}s5cmd-{name}/"

    def __call__(self, *arguments, **more):
        return run([*self.base, *arguments], self.environment, **more)

    def url(self, name):
        return f"s3://{BUCKET}/{self.prefix}{name}"

    def file(self, name, data=None):
        path = self.folder / name
        if data is not None:
            path.write_bytes(data)
        return path

    def put(self, name, data=b"content", *options):
        self("cp", *options, self.file("to-put", data), self.url(name))

    def put_by_parts(self, name, data):
        self.put(name, data, "--part-size", "5")

    def body(self, name):
        return self("cat", "--raw", self.url(name))

    def key(self, name):
        return self.prefix + name

    def listings(self, prefix):
        # Exit 1 says that there is none, in JSON and on the other stream.
        printed = self("--json", "ls", f"s3://{BUCKET}/{prefix}*", codes=(0, 1)).decode()
        yield "ls", [json.loads(line)["key"].removeprefix(f"s3://{BUCKET}/") for line in printed.splitlines()]

    def sync_down(self, prefix, folder):
        self("sync", "--delete", "--size-only", f"s3://{BUCKET}/{prefix}*", f"{folder}/")

    def sync_up(self, folder, prefix):
        self("sync", "--delete", f"{folder}/", f"s3://{BUCKET}/{prefix}")

    def remove_all(self, prefix):
        self("rm", f"s3://{BUCKET}/{prefix}*")

    def listed(self, pattern):
        printed = self("--json", "ls", self.url(pattern)).decode()
        return sorted(json.loads(line)["key"].split(self.prefix, 1)[1] for line in printed.splitlines())


S5CMD = Group("s5cmd", lambda place: Client(place, "v2"))
V1 = S5CMD.also("s5cmd/v1", lambda place: Client(place, "v1", "--use-list-objects-v1"))
GROUPS = [S5CMD, V1, listings.of_trees("s5cmd", S5CMD.client), listings.of("s5cmd/v1", V1.client), sizes.of("s5cmd", S5CMD.client)]


@S5CMD.check
def cp_up_and_down(c):
    data = sample(60_000)
    c("cp", c.file("up", data), c.url("up"))
    c("cp", c.url("up"), c.file("down"))
    expect_same(c.file("down").read_bytes(), data)


@S5CMD.check
def zero_byte(c):
    c.put("zero", b"")
    c("cp", c.url("zero"), c.file("zero.back"))
    expect_same(c.file("zero.back").read_bytes(), b"")


@S5CMD.check
def stream_of_unknown_length(c):
    data = sample(300_000)
    c("pipe", c.url("pipe"), stdin=data)
    expect_same(c.body("pipe"), data)


@S5CMD.check
def multipart(c):
    """Parts go up and ranges come down, several at a time."""
    data = sample(BIG)
    c.put_by_parts("big", data)
    c("cp", "--part-size", "5", c.url("big"), c.file("big.back"))
    expect_same(c.file("big.back").read_bytes(), data)


@S5CMD.check
def metadata(c):
    c("cp", "--metadata", "owner=alice", "--content-type", "text/x-cosgate", c.file("meta", b"x"), c.url("meta"))
    printed = json.loads(c("head", c.url("meta")))
    expect_equal(printed.get("metadata", {}).get("owner") or printed.get("metadata", {}).get("Owner"), "alice", "metadata")
    expect_equal(printed.get("content_type"), "text/x-cosgate", "Content-Type")


@S5CMD.check
def odd_keys(c):
    for name in ODD_KEYS:
        if name.endswith("/"):
            continue  # s5cmd takes it for a folder; boto3 has this key
        c("cp", "--raw", c.file("odd", sample(400, name)), c.url(f"odd/{name}"))
        expect_same(c.body(f"odd/{name}"), sample(400, name), name)


@S5CMD.check
def wildcard_up_list_and_down(c):
    tree, back = c.folder / "tree", c.folder / "back"
    tree.mkdir()
    for number in range(27):
        (tree / f"{number:02}.txt").write_bytes(sample(300, str(number)))
    (tree / "other").write_bytes(b"other")
    c("cp", f"{tree}/*.txt", c.url("wild/"))
    wanted = [f"wild/{number:02}.txt" for number in range(27)]
    expect_equal(c.listed("wild/*.txt"), wanted, "listing")
    expect_equal(c.listed("wild/1?.txt"), wanted[10:20], "listing")
    c("cp", c.url("wild/*.txt"), f"{back}/")
    (tree / "other").unlink()
    expect_same_tree(back, tree)


@S5CMD.check
def ls(c):
    for name in ("x", "a b", "中文"):
        c.put(f"ls/{name}")
    expect_equal(c.listed("ls/"), ["ls/a b", "ls/x", "ls/中文"], "listing")


@S5CMD.check
def ls_buckets(c):
    printed = c("ls").decode()
    expect_equal([line.rsplit(maxsplit=1)[1] for line in printed.splitlines()], [f"s3://{BUCKET}"], "buckets")


@S5CMD.check
def sync(c):
    tree, back = c.folder / "sync", c.folder / "sync.back"
    write_odd_tree(tree)
    c("sync", f"{tree}/", c.url("sync/"))
    c("sync", c.url("sync/*"), f"{back}/")
    expect_same_tree(back, tree)
    expect_equal(c("sync", f"{tree}/", c.url("sync/")), b"", "a second sync's work")


@S5CMD.check
def rm_one(c):
    c.put("doomed")
    c("rm", c.url("doomed"))
    c("head", c.url("doomed"), fails=True)


@S5CMD.check
def rm_wildcard(c):
    for name in ("x", "a b", "keep"):
        c.put(f"rm/{name}")
    c("rm", "--exclude", "keep", c.url("rm/*"))
    expect_equal(c.listed("rm/"), ["rm/keep"], "keys left")


@S5CMD.check
def copy_and_move_within_bucket(c):
    data = sample(3000, "cp")
    c.put("cp from+%20", data)
    c("cp", c.url("cp from+%20"), c.url("cp-to"))
    expect_same(c.body("cp-to"), data)
    c("mv", c.url("cp-to"), c.url("moved"))
    expect_same(c.body("moved"), data)


@S5CMD.check
def presigned_get(c):
    c.put("link a+b", b"linked")
    url = c("presign", "--expire", "1m", c.url("link a+b")).decode().strip()
    status, _, body = fetch(url)
    expect_equal(status, 200, f"status, body {body[:300]!r}")
    expect_same(body, b"linked")


@S5CMD.check
def fenced(c):
    for arguments in (
        ["cp", c.file("fenced", b"x"), f"s3://{BUCKET}/bob/fenced"],
        ["cat", f"s3://{BUCKET}/bob/treasure"],
        ["ls", f"s3://{BUCKET}/bob/"],
    ):
        printed = c(*arguments, fails=True)
        expect("AccessDenied" in printed or "403" in printed or "Forbidden" in printed, f"not refused as AccessDenied: {printed}")
    # of a multi-delete's errors s5cmd prints the message without the code
    c("rm", f"s3://{BUCKET}/bob/treasure", fails=True)
