"""AWS SDK for JavaScript v3, in one Node process: bodies as buffer, bytes, stream of known and of unknown length."""

import json
import subprocess
import threading

from checksums import ALGORITHMS, checksum_of
from form import post
from harness import (
    ALICE,
    BUCKET,
    ODD_KEYS,
    PART,
    CheckFailed,
    Group,
    expect,
    expect_equal,
    expect_same,
    fetch,
    sample,
)
import sizes

CLIENT = "client.mjs"
ANSWER_SECONDS = 60


class Client:
    def __init__(self, place):
        self.folder = place.new_folder("js")
        self.prefix = f"{ALICE.prefix}js/"
        self.node = subprocess.Popen(
            ["node", place.node_folder / CLIENT],
            env={**place.environment(ALICE), "ENDPOINT": place.endpoint, "NODE_NO_WARNINGS": "1"},
            stdin=subprocess.PIPE,  # its end is node's
            stdout=subprocess.PIPE,
        )

    def __call__(self, way, **what):
        asked = json.dumps({"way": way, **({"Bucket": BUCKET} | what)})
        self.node.stdin.write(f"{asked}\n".encode())
        self.node.stdin.flush()
        late = threading.Timer(ANSWER_SECONDS, self.node.kill)
        late.start()
        said = self.node.stdout.readline()
        late.cancel()
        expect(said, f"node ended, or said nothing for {ANSWER_SECONDS} s")
        answer = json.loads(said)
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["done"]

    def key(self, name):
        return self.prefix + name

    def put(self, name, data=b"content", body="buffer", **more):
        source = self.folder / "to-put"
        source.write_bytes(data)
        if body == "stream":
            more["ContentLength"] = len(data)
        return self("put", Key=self.key(name), file=str(source), body=body, **more)

    def put_by_parts(self, name, data, body="buffer", **more):
        source = self.folder / "to-upload"
        source.write_bytes(data)
        return self("upload", Key=self.key(name), file=str(source), body=body, partSize=PART, **more)

    def body(self, name, **more):
        back = self.folder / "got"
        self("get", Key=self.key(name), file=str(back), **more)
        return back.read_bytes()


class Refused(CheckFailed):
    def __init__(self, refusal):
        super().__init__(refusal["message"])
        self.code = refusal["code"]


def refused(call, code):
    try:
        call()
    except Refused as refusal:
        expect_equal(refusal.code, code, "code")
        return
    expect(False, f"succeeded, should be refused with {code}")


JS = Group("js", Client, uploads=True)
GROUPS = [JS, sizes.of("js", Client)]


@JS.check
def put_each_kind_of_body(c):
    data = sample(100_000)
    for body in ("buffer", "bytes", "stream"):
        c.put(f"kind/{body}", data, body)
        expect_same(c.body(f"kind/{body}"), data, body)


@JS.check
def put_big_stream(c):
    data = sample(2 * PART)
    c.put("big-stream", data, "stream")
    expect_same(c.body("big-stream"), data)


@JS.check
def upload_of_unknown_length(c):
    """One part, and several."""
    for size in (300_000, 2 * PART + 1000):
        data = sample(size)
        c.put_by_parts(f"pipe-{size}", data, "pipe")
        expect_same(c.body(f"pipe-{size}"), data)


@JS.check
def each_checksum_algorithm(c):
    data = sample(70_000)
    for algorithm in ALGORITHMS:
        for body in ("buffer", "stream"):
            name = f"checksum/{algorithm}-{body}"
            put = c.put(name, data, body, ChecksumAlgorithm=algorithm)
            expect_equal(put.get(f"Checksum{algorithm}"), checksum_of(algorithm, data), f"checksum echoed for {name}")
            expect_same(c.body(name, ChecksumMode="ENABLED"), data, name)


@JS.check
def each_checksum_algorithm_by_parts(c):
    data = sample(PART + 1000)
    for algorithm in ALGORITHMS:
        name = f"parts/{algorithm}"
        c.put_by_parts(name, data, "pipe", ChecksumAlgorithm=algorithm)
        expect_same(c.body(name, ChecksumMode="ENABLED"), data, name)


@JS.check
def checksums_when_required(c):
    data = sample(70_000)
    for body in ("buffer", "bytes", "stream"):
        c.put(f"required/{body}", data, body, client="required")
        expect_same(c.body(f"required/{body}", client="required"), data, body)
    c.put_by_parts("required/parts", data, "pipe", client="required")
    expect_same(c.body("required/parts", client="required"), data, "parts")


@JS.check
def odd_keys(c):
    for name in ODD_KEYS:
        data = sample(500, name)
        c.put(f"odd/{name}", data)
        expect_same(c.body(f"odd/{name}"), data, name)
    pages = c("list", Prefix=c.key("odd/"), pageSize=3)
    expect_equal(sum(pages, []), sorted((c.key(f"odd/{name}") for name in ODD_KEYS), key=str.encode), "keys")
    doomed = {"Objects": [{"Key": c.key(f"odd/{name}")} for name in ODD_KEYS]}
    deleted = c("remove", Delete=doomed)
    expect_equal(len(deleted["Deleted"]), len(ODD_KEYS), "number deleted")
    expect_equal(c("list", Prefix=c.key("odd/")), [[]], "keys left")


@JS.check
def metadata_ranges_and_copy(c):
    data = sample(10_000)
    c.put("meta", data, Metadata={"owner": "alice"}, ContentType="text/x-cosgate")
    head = c("head", Key=c.key("meta"))
    expect_equal((head["ContentType"], head["Metadata"]), ("text/x-cosgate", {"owner": "alice"}), "headers")
    expect_same(c.body("meta", Range="bytes=100-199"), data[100:200], "range")
    c("copy", Key=c.key("meta-copy"), CopySource=f"{BUCKET}/{c.key('meta')}")
    expect_same(c.body("meta-copy"), data, "copy")


@JS.check
def presigned_get_and_put(c):
    data = sample(5000)
    for client in ("default", "required"):
        name = f"presigned a+b {client}"
        url = c("sign", client=client, call="put", Key=c.key(name))
        status, _, said = fetch(url, "PUT", data)
        expect_equal(status, 200, f"status of PUT with {client} settings, body {said[:500]!r}, to {url}")
        status, _, back = fetch(c("sign", client=client, call="get", Key=c.key(name)))
        expect_equal(status, 200, f"status of GET, body {back[:300]!r}")
        expect_same(back, data)


@JS.check
def presigned_post(c):
    data = sample(5000)
    form = c(
        "post",
        Key=c.key("posted/${filename}"),
        Conditions=[["content-length-range", 1, 10_000]],
        Fields={"x-amz-meta-owner": "alice"},
        Expires=60,
    )
    status, _, said = post(form["url"], form["fields"], data, "from js.bin")
    expect_equal(status, 204, f"status, body {said[:500]!r}")
    expect_same(c.body("posted/from js.bin"), data)
    head = c("head", Key=c.key("posted/from js.bin"))
    expect_equal(head["Metadata"], {"owner": "alice"}, "metadata")


@JS.check
def fenced(c):
    refused(lambda: c("put", Key="bob/fenced", file=str(c.folder / "to-put"), body="buffer"), "AccessDenied")
    refused(lambda: c("get", Key="bob/treasure", file=str(c.folder / "stolen")), "AccessDenied")
    refused(lambda: c("list", Prefix="bob/"), "AccessDenied")
    refused(lambda: c("get", Key=c.key("never-was"), file=str(c.folder / "nothing")), "NoSuchKey")
