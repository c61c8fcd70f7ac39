"""s3cmd, path style; virtual-hosted style too where the system resolves `*.localhost`."""

import socket

import listings
import sizes
from harness import (
    ALICE,
    BUCKET,
    ODD_KEYS,
    REGION,
    VIRTUAL_DOMAIN,
    Group,
    expect,
    expect_equal,
    expect_same,
    expect_same_tree,
    run,
    sample,
    write_odd_tree,
)

BIG = 13 * 1024 * 1024


class Client:
    def __init__(self, place, style):
        self.folder = place.new_folder(f"s3cmd-{style}")
        self.environment = place.environment(ALICE)
        config = self.folder / "s3cfg"
        base = place.authority
        bucket = base
        if style == "virtual":
            base = f"{VIRTUAL_DOMAIN}:{place.port}"
            bucket = f"%(bucket)s.{base}"
        config.write_text(
            "[default]\n"
            f"access_key = {ALICE.key_id}\n"
            f"secret_key = {ALICE.secret}\n"
            f"host_base = {base}\n"
            f"host_bucket = {bucket}\n"
            f"bucket_location = {REGION}\n"
            f"use_https = {place.tls}\n" + (f"ca_certs_file = {place.authority_file}\n" if place.tls else "")
        )
        self.base = ["s3cmd", "--config", config, "--no-progress", "--max-retries=1"]
        self.prefix = f"{ALICE.prefix}s3cmd-{style}/"

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
        self("put", *options, self.file("to-put", data), self.url(name))

    def put_by_parts(self, name, data):
        self.put(name, data, "--multipart-chunk-size-mb=5")

    def body(self, name):
        back = self.file("got")
        self("get", "--force", self.url(name), back)
        return back.read_bytes()

    def key(self, name):
        return self.prefix + name

    def listings(self, prefix):
        lines = self("ls", "--recursive", f"s3://{BUCKET}/{prefix}").decode().split("\n")
        yield "ls --recursive", [line.split(f"s3://{BUCKET}/", 1)[1] for line in lines if line]

    def sync_down(self, prefix, folder):
        self("sync", "--delete-removed", f"s3://{BUCKET}/{prefix}", f"{folder}/")

    def sync_up(self, folder, prefix):
        self("sync", "--delete-removed", f"{folder}/", f"s3://{BUCKET}/{prefix}")

    def remove_all(self, prefix):
        self("del", "--recursive", "--force", f"s3://{BUCKET}/{prefix}")

    def listed(self, name, *options):
        lines = self("ls", *options, self.url(name)).decode().splitlines()
        return [line.split(self.url(name), 1)[1] for line in lines]


S3CMD = Group("s3cmd", lambda place: Client(place, "path"))
GROUPS = [S3CMD, listings.of_trees("s3cmd", S3CMD.client), sizes.of("s3cmd", S3CMD.client)]


def resolves_localhost():
    try:
        return bool(socket.getaddrinfo(f"{BUCKET}.{VIRTUAL_DOMAIN}", 80))
    except OSError:
        return False


if resolves_localhost():
    GROUPS.append(S3CMD.also("s3cmd/virtual", lambda place: Client(place, "virtual")))


@S3CMD.check
def put_get(c):
    data = sample(60_000)
    c.put("plain", data)
    expect_same(c.body("plain"), data)


@S3CMD.check
def zero_byte(c):
    c.put("zero", b"")
    expect_same(c.body("zero"), b"")


@S3CMD.check
def get_the_rest(c):
    """`--continue` asks for a range."""
    data = sample(9000)
    c.put("rest", data)
    c("get", "--continue", c.url("rest"), c.file("rest.back", data[:4000]))
    expect_same(c.file("rest.back").read_bytes(), data)


@S3CMD.check
def multipart(c):
    data = sample(BIG)
    c.put_by_parts("big", data)
    expect_same(c.body("big"), data)


@S3CMD.check
def info_and_metadata(c):
    c.put("info", b"12345", "--add-header=x-amz-meta-owner:alice", "--mime-type=text/x-cosgate")
    printed = c("info", c.url("info")).decode()
    for wanted in ("File size: 5", "MIME type: text/x-cosgate", "x-amz-meta-owner: alice"):
        expect(wanted in " ".join(printed.split()), f"no {wanted!r} in {printed}")


@S3CMD.check
def odd_keys(c):
    for name in ODD_KEYS:
        if name.endswith("/"):
            continue  # s3cmd takes it for a folder; boto3 has this key
        c.put(f"odd/{name}", sample(400, name))
        expect_same(c.body(f"odd/{name}"), sample(400, name), name)


@S3CMD.check
def ls(c):
    tree = c.folder / "many"
    tree.mkdir()
    for number in range(27):
        (tree / f"{number:02}").write_bytes(b"")
    c("put", "--recursive", f"{tree}/", c.url("ls/"))
    expect_equal(c.listed("ls/"), [f"{number:02}" for number in range(27)], "listing")
    expect_equal(c.listed("ls/", "--limit=10"), [f"{number:02}" for number in range(10)], "first page")


@S3CMD.check
def ls_buckets(c):
    printed = c("ls").decode()
    expect_equal([line.rsplit(maxsplit=1)[1] for line in printed.splitlines()], [f"s3://{BUCKET}"], "buckets")


@S3CMD.check
def del_one(c):
    c.put("doomed")
    c("del", c.url("doomed"))
    expect_equal(c.listed("doomed"), [], "keys left")


@S3CMD.check
def del_many(c):
    for name in ("x", "a b", "中文"):
        c.put(f"del/{name}")
    c("del", "--recursive", "--force", c.url("del/"))
    expect_equal(c.listed("del/"), [], "keys left")


@S3CMD.check
def sync(c):
    tree, back = c.folder / "tree", c.folder / "tree.back"
    write_odd_tree(tree)
    back.mkdir()
    c("sync", f"{tree}/", c.url("tree/"))
    c("sync", c.url("tree/"), f"{back}/")
    expect_same_tree(back, tree)
    expect("upload:" not in c("sync", f"{tree}/", c.url("tree/")).decode(), "a second sync uploads again")


@S3CMD.check
def sync_and_delete_removed(c):
    tree = c.folder / "shrinking"
    tree.mkdir()
    for name in "ab":
        (tree / name).write_bytes(b"x")
    c("sync", f"{tree}/", c.url("shrinking/"))
    (tree / "a").unlink()
    c("sync", "--delete-removed", f"{tree}/", c.url("shrinking/"))
    expect_equal(c.listed("shrinking/"), ["b"], "keys left")


@S3CMD.check
def copy_and_move(c):
    data = sample(3000, "cp")
    c.put("cp from+%20", data)
    c("cp", c.url("cp from+%20"), c.url("cp-to"))
    expect_same(c.body("cp-to"), data)
    c("mv", c.url("cp-to"), c.url("moved"))
    expect_same(c.body("moved"), data)


@S3CMD.check
def multipart_uploads(c):
    """`s3cmd multipart` lists a bucket's uploads and has no prefix: it shows those below `alice/` alone."""
    printed = c("multipart", f"s3://{BUCKET}").decode()
    expect("bob/" not in printed, f"uploads of others: {printed}")


@S3CMD.check
def fenced(c):
    for arguments in (
        ["put", c.file("fenced", b"x"), f"s3://{BUCKET}/bob/fenced"],
        ["get", "--force", f"s3://{BUCKET}/bob/treasure", c.file("stolen")],
        ["ls", f"s3://{BUCKET}/bob/"],
        ["del", f"s3://{BUCKET}/bob/treasure"],
    ):
        printed = c(*arguments, fails=True)
        expect("AccessDenied" in printed or "403" in printed, f"not refused as AccessDenied: {printed}")
