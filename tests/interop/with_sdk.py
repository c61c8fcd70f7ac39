"""AWS SDKs that are not Python's, each in a process of its own (`js/`, `rust/`), which reads its tasks line by line."""

import json
import subprocess
import threading

import listings
import sizes
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
    run,
    sample,
)

RESULT_SECONDS = 60


class Client:
    def __init__(self, place, name, command, bodies):
        self.bodies = bodies
        self.folder = place.new_folder(name)
        self.prefix = f"{ALICE.prefix}{self.folder.name}/"
        self.process = subprocess.Popen(
            command,
            env={**place.environment(ALICE), "ENDPOINT": place.endpoint, "NODE_NO_WARNINGS": "1"},
            stdin=subprocess.PIPE,  # its end is the process's
            stdout=subprocess.PIPE,
        )

    def __call__(self, way, **what):
        task = json.dumps({"way": way, "Bucket": BUCKET, **what})
        self.process.stdin.write(f"{task}\n".encode())
        self.process.stdin.flush()
        late = threading.Timer(RESULT_SECONDS, self.process.kill)
        late.start()
        printed = self.process.stdout.readline()
        late.cancel()
        expect(printed, f"the process ended, or wrote nothing for {RESULT_SECONDS} s")
        result = json.loads(printed)
        expect("done" in result, result.get("refused"))
        return result["done"]

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

    def listings(self, prefix):
        for size in (7, 1000):
            yield f"list by {size}", sum(self("list", Prefix=prefix, pageSize=size), [])

    def remove_all(self, prefix):
        for page in self("list", Prefix=prefix):
            doomed = {"Objects": [{"Key": key} for key in page]}
            expect_equal(len(self("remove", Delete=doomed)["Deleted"]), len(page), "number deleted")


def js(place):
    return Client(place, "js", ["node", place.node_folder / "client.mjs"], ["buffer", "bytes", "stream"])


def rust(place):
    return Client(place, "rust", [place.programs["rust-sdk"]], ["buffer", "stream"])


def go(place):
    return Client(place, "go", [place.programs["go-sdk"]], ["buffer", "stream"])


def java_command(place, folder, main, **properties):
    """A class of a folder and of the packages in its lib/, which over TLS trusts the authority."""
    if place.tls:
        store = place.new_folder("java-trust") / "trust.p12"
        options = ("-keystore", store, "-storepass", "changeit", "-noprompt")
        run(["keytool", "-importcert", "-alias", "ca", "-file", place.authority_file, *options], place.environment(ALICE))
        properties |= {"javax.net.ssl.trustStore": store, "javax.net.ssl.trustStorePassword": "changeit"}
    options = ["-Xshare:auto", "-XX:TieredStopAtLevel=1", *(f"-D{name}={value}" for name, value in properties.items())]
    return ["java", *options, "-cp", f"{folder}:{folder}/lib/*", main]


def java(transfer):
    """The SDK for Java v2, whose TransferManager is on Netty's client or on CRT's."""

    def client(place):
        command = java_command(place, place.programs["java-sdk"], "AwsSdk", transfer=transfer)
        return Client(place, f"java-{transfer}", command, ["buffer", "stream"])

    return client


SDK = Group("js/sdk", js, uploads=True)
JS = Group("js", js, uploads=True)
GROUPS = [SDK, JS, listings.of("js", js), sizes.of("js", js)]
COMPILED_GROUPS = [
    one.also(f"{name}/{kind}", client, needs=needs, **more)
    for name, needs, made, more in (
        ("go", "go-sdk", go, {}),
        ("java", "java-sdk", java("java"), {}),
        # CRT reads no trust store of Java's.
        ("java-crt", "java-sdk", java("crt"), {"uploads": False}),
    )
    for kind, one, client in (
        ("sdk", SDK, made),
        ("sizes", sizes.SIZES, made),
        ("listings", listings.LISTINGS, listings.of(name, made).client),
    )
]
RUST_GROUPS = [
    SDK.also("rust/sdk", rust, needs="rust-sdk"),
    listings.of("rust", rust, needs="rust-sdk"),
    sizes.SIZES.also("rust/sizes", rust, needs="rust-sdk"),
]


def refused(call, *codes):
    """CRT looks with a HEAD before it downloads: its response has a status and no code."""
    try:
        call()
    except CheckFailed as refusal:
        expect(any(code in str(refusal) for code in codes), f"not refused with {codes}: {refusal}")
        return
    expect(False, f"succeeded, should be refused with {codes}")


@SDK.check
def put_each_kind_of_body(c):
    """A buffer is sent in one piece; a stream, even one of known length, with its checksum behind it."""
    for size in (0, 100_000, 2 * PART):
        data = sample(size)
        for body in c.bodies:
            c.put(f"kind/{body}-{size}", data, body)
            expect_same(c.body(f"kind/{body}-{size}"), data, f"{body} of {size} bytes")


@SDK.check
def each_checksum_algorithm(c):
    data = sample(70_000)
    for algorithm in ALGORITHMS:
        for body in c.bodies:
            name = f"checksum/{algorithm}-{body}"
            put = c.put(name, data, body, ChecksumAlgorithm=algorithm)
            expect_equal(put.get(f"Checksum{algorithm}"), checksum_of(algorithm, data), f"checksum echoed for {name}")
            expect_same(c.body(name, ChecksumMode="ENABLED"), data, name)


@SDK.check
def each_checksum_algorithm_by_parts(c):
    data = sample(PART + 1000)
    for algorithm in ALGORITHMS:
        c.put_by_parts(f"parts/{algorithm}", data, ChecksumAlgorithm=algorithm)
        expect_same(c.body(f"parts/{algorithm}", ChecksumMode="ENABLED"), data, algorithm)


@SDK.check
def checksums_when_required(c):
    data = sample(70_000)
    for body in c.bodies:
        c.put(f"required/{body}", data, body, client="required")
        expect_same(c.body(f"required/{body}", client="required"), data, body)
    c.put_by_parts("required/parts", data, client="required")
    expect_same(c.body("required/parts", client="required"), data, "parts")


@SDK.check
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


@SDK.check
def ranges(c):
    data = sample(10_000)
    c.put("range", data)
    expect_same(c.body("range", Range="bytes=100-199"), data[100:200], "range")


@SDK.check
def presigned_get_and_put(c):
    data = sample(5000)
    for client in ("default", "required"):
        name = f"presigned a+b {client}"
        url = c("sign", client=client, call="put", Key=c.key(name))
        status, _, text = fetch(url, "PUT", data)
        expect_equal(status, 200, f"status of PUT with {client} settings, body {text[:500]!r}, to {url}")
        status, _, back = fetch(c("sign", client=client, call="get", Key=c.key(name)))
        expect_equal(status, 200, f"status of GET, body {back[:300]!r}")
        expect_same(back, data)


@SDK.check
def fenced(c):
    c.put("own")
    source = str(c.folder / "to-put")
    refused(lambda: c("put", Key="bob/fenced", file=source, body="buffer"), "AccessDenied")
    refused(lambda: c("get", Key="bob/treasure", file=str(c.folder / "stolen")), "AccessDenied", "Status Code: 403")
    refused(lambda: c("list", Prefix="bob/"), "AccessDenied")
    refused(lambda: c("get", Key=c.key("never-was"), file=str(c.folder / "nothing")), "NoSuchKey", "Status Code: 404")


@JS.check
def upload_of_unknown_length(c):
    """One part, and several."""
    for size in (300_000, 2 * PART + 1000):
        data = sample(size)
        c.put_by_parts(f"pipe-{size}", data, "pipe")
        expect_same(c.body(f"pipe-{size}"), data)


@JS.check
def each_checksum_algorithm_of_unknown_length(c):
    data = sample(PART + 1000)
    for algorithm in ALGORITHMS:
        c.put_by_parts(f"pipe-{algorithm}", data, "pipe", ChecksumAlgorithm=algorithm)
        expect_same(c.body(f"pipe-{algorithm}", ChecksumMode="ENABLED"), data, algorithm)


@JS.check
def metadata_and_copy(c):
    data = sample(10_000)
    c.put("meta", data, Metadata={"owner": "alice"}, ContentType="text/x-cosgate")
    head = c("head", Key=c.key("meta"))
    expect_equal((head["ContentType"], head["Metadata"]), ("text/x-cosgate", {"owner": "alice"}), "headers")
    c("copy", Key=c.key("meta-copy"), CopySource=f"{BUCKET}/{c.key('meta')}")
    expect_same(c.body("meta-copy"), data, "copy")


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
    status, _, text = post(form["url"], form["fields"], data, "from js.bin")
    expect_equal(status, 204, f"status, body {text[:500]!r}")
    expect_same(c.body("posted/from js.bin"), data)
    head = c("head", Key=c.key("posted/from js.bin"))
    expect_equal(head["Metadata"], {"owner": "alice"}, "metadata")
