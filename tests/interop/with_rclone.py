"""rclone as its users set it up: provider Other (plain, and with path style named), and one that lists by v2."""

import json

import listings
import sizes
from harness import (
    ALICE,
    BUCKET,
    ODD_KEYS,
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

BIG = 13 * 1024 * 1024
PARTS = ["--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M"]


class Client:
    def __init__(self, place, name, settings, program="rclone"):
        self.folder = place.new_folder(f"rclone-{name}")
        self.environment = place.environment(ALICE)
        config = self.folder / "rclone.conf"
        wanted = {
            "type": "s3",
            "access_key_id": ALICE.key_id,
            "secret_access_key": ALICE.secret,
            "endpoint": place.endpoint,
            "region": REGION,
            **settings,
        }
        config.write_text("[cos]\n" + "".join(f"{key} = {value}\n" for key, value in wanted.items()))
        self.base = [program, "--config", config, "--retries", "1", "--low-level-retries", "2"]
        if place.tls:
            # rclone refuses to start with it: "unsupported transport, *fshttp.Transport"
            del self.environment["AWS_CA_BUNDLE"]
            self.base += ["--ca-cert", place.authority_file]
        self.prefix = f"{ALICE.prefix}rclone-{name}/"

    def __call__(self, *arguments, **more):
        return run([*self.base, *arguments], self.environment, **more)

    def at(self, name):
        return f"cos:{BUCKET}/{self.prefix}{name}"

    def file(self, name, data=None):
        path = self.folder / name
        if data is not None:
            path.write_bytes(data)
        return path

    def put(self, name, data=b"content", *options):
        self("copyto", *options, self.file("to-put", data), self.at(name))

    def put_by_parts(self, name, data):
        self.put(name, data, *PARTS)

    def body(self, name):
        return self("cat", self.at(name))

    def key(self, name):
        return self.prefix + name

    def listings(self, prefix):
        for way in (["--fast-list", "--s3-list-chunk", "7"], ["--fast-list"], []):
            lines = self("lsf", "--recursive", "--files-only", *way, f"cos:{BUCKET}/{prefix}").decode().split("\n")
            yield " ".join(["lsf", *way]), [prefix + line for line in lines if line]

    # By default rclone takes a composed and a decomposed name for one.
    SYNC = ["sync", "--checksum", "--no-unicode-normalization", "--transfers", "16"]
    CHECK = ["check", "--no-unicode-normalization"]

    def sync_down(self, prefix, folder):
        self(*self.SYNC, f"cos:{BUCKET}/{prefix}", folder)
        self(*self.CHECK, f"cos:{BUCKET}/{prefix}", folder)

    def sync_up(self, folder, prefix):
        self(*self.SYNC, folder, f"cos:{BUCKET}/{prefix}")
        self(*self.CHECK, folder, f"cos:{BUCKET}/{prefix}")

    def remove_all(self, prefix):
        self("purge", f"cos:{BUCKET}/{prefix}")

    def listed(self, name, *arguments):
        return sorted(self("lsf", self.at(name), *arguments).decode().splitlines())


OTHER = Group("rclone", lambda place: Client(place, "other", {"provider": "Other"}))
PATH = OTHER.also(
    "rclone/path", lambda place: Client(place, "path", {"provider": "Other", "force_path_style": "true"})
)
V2_SETTINGS = {"provider": "Other", "list_version": "2", "list_url_encode": "true"}
V2 = OTHER.also("rclone/v2", lambda place: Client(place, "v2", V2_SETTINGS))
# Debian's is of 2022; this one has the AWS SDK for Go v2, and names Tencent's COS among its providers.
CURRENT = OTHER.also(
    "rclone-current",
    lambda place: Client(place, "current", {"provider": "TencentCOS", "force_path_style": "true"}, place.programs["rclone-current"]),
    needs="rclone-current",
)
GROUPS = [
    OTHER,
    PATH,
    V2,
    CURRENT,
    listings.of_trees("rclone", OTHER.client),
    listings.of("rclone/v2", V2.client),
    listings.of("rclone-current", CURRENT.client, needs=CURRENT.needs),
    sizes.of("rclone", OTHER.client),
    sizes.SIZES.also("rclone-current/sizes", CURRENT.client, needs=CURRENT.needs),
]


@OTHER.check
def copy_up_and_down(c):
    data = sample(60_000)
    c("copyto", c.file("up", data), c.at("up"))
    c("copyto", c.at("up"), c.file("down"))
    expect_same(c.file("down").read_bytes(), data)


@OTHER.check
def zero_byte(c):
    c("copyto", c.file("zero", b""), c.at("zero"))
    expect_same(c.body("zero"), b"")


@OTHER.check
def stream_of_unknown_length(c):
    data = sample(300_000)
    c("rcat", c.at("stream"), stdin=data)
    expect_same(c.body("stream"), data)


@OTHER.check
def ranges(c):
    data = sample(9000)
    c.put("range", data)
    expect_same(c("cat", "--offset", "100", "--count", "50", c.at("range")), data[100:150])


@OTHER.check
def multipart(c):
    data = sample(BIG)
    c.put_by_parts("big", data)
    c("copyto", c.at("big"), c.file("big.back"))
    expect_same(c.file("big.back").read_bytes(), data)


@OTHER.check
def modification_time(c):
    """rclone keeps a file's time in `x-amz-meta-mtime`."""
    path = c.file("dated", b"dated")
    c("copyto", path, c.at("dated"))
    c("copyto", c.at("dated"), c.file("dated.back"))
    seen, wanted = c.file("dated.back").stat().st_mtime_ns, path.stat().st_mtime_ns
    expect_equal(seen, wanted, "modification time")


@OTHER.check
def list_by_pages(c):
    tree = c.folder / "pages"
    tree.mkdir()
    for number in range(27):
        (tree / f"{number:02}").write_bytes(b"")
    c("copy", tree, c.at("pages"))
    wanted = [f"{number:02}" for number in range(27)]
    expect_equal(c.listed("pages", "--s3-list-chunk", "10"), wanted, "listing")


@OTHER.check
def list_buckets(c):
    printed = c("lsjson", "cos:").decode()
    expect_equal([item["Name"] for item in json.loads(printed)], [BUCKET], "buckets")


@OTHER.check
def odd_keys(c):
    for name in ODD_KEYS:
        if "//" in name or name.endswith("/"):
            continue  # rclone's paths have no empty part
        c.put(f"odd/{name}", sample(400, name))
        expect_same(c.body(f"odd/{name}"), sample(400, name), name)


@OTHER.check
def sync_and_check(c):
    tree, back = c.folder / "tree", c.folder / "tree.back"
    write_odd_tree(tree)
    c("sync", tree, c.at("tree"))
    c("check", "--download", tree, c.at("tree"))
    c("sync", c.at("tree"), back)
    expect_same_tree(back, tree)
    (tree / "empty").unlink()
    c("sync", tree, c.at("tree"))
    c("check", tree, c.at("tree"))
    c("delete", c.at("tree"))
    expect_equal(c.listed("tree"), [], "keys left")


@OTHER.check
def delete_one(c):
    c.put("doomed")
    c("deletefile", c.at("doomed"))
    c("deletefile", c.at("doomed"), fails=True)


@OTHER.check
def copy_within_bucket(c):
    data = sample(70_000, "within")
    c.put("copy from+%20", data)
    c("copyto", c.at("copy from+%20"), c.at("copy-to"))
    expect_same(c.body("copy-to"), data)
    c("moveto", c.at("copy-to"), c.at("moved"))
    expect_same(c.body("moved"), data)
    expect("copy-to" not in c.listed(""), "the source is still there")


@OTHER.check
def copy_within_bucket_by_parts(c):
    data = sample(BIG, "within")
    c.put("big-from", data)
    c("copyto", "--s3-copy-cutoff", "5M", c.at("big-from"), c.at("big-to"))
    expect_same(c.body("big-to"), data)


@OTHER.check
def presigned_get(c):
    c.put("link a+b", b"linked")
    url = c("link", "--expire", "1m", c.at("link a+b")).decode().strip()
    status, _, body = fetch(url)
    expect_equal(status, 200, f"status, body {body[:300]!r}")
    expect_same(body, b"linked")


@OTHER.check
def make_own_bucket(c):
    c("mkdir", f"cos:{BUCKET}")


@OTHER.check
def fenced(c):
    c("copyto", c.file("fenced", b"x"), f"cos:{BUCKET}/bob/fenced", fails=True)
    c("copyto", f"cos:{BUCKET}/bob/treasure", c.file("stolen"), fails=True)
    c("lsf", f"cos:{BUCKET}/bob/", fails=True)
    # The way to the own folder, and nothing beside it.
    expect_equal(c("lsf", f"cos:{BUCKET}").decode().split(), ["alice/"], "the bucket")
