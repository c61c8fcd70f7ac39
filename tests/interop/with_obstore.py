"""obstore: Rust's object_store as data tools in Python use it, over HTTP/1.1 and, where it is offered, HTTP/2."""

from datetime import timedelta

import obstore
from obstore.store import S3Store

import listings
import sizes
from harness import ALICE, BUCKET, ODD_KEYS, PART, REGION, Group, expect, expect_equal, expect_same, fetch, sample


class Client:
    def __init__(self, place, settings=None, **client_options):
        self.s3 = S3Store(
            BUCKET,
            endpoint=place.endpoint,
            region=REGION,
            access_key_id=ALICE.key_id,
            secret_access_key=ALICE.secret,
            client_options={"allow_http": True, **client_options},
            retry_config={"max_retries": 1},
            **(settings or {}),
        )
        self.prefix = f"{ALICE.prefix}{place.new_folder('obstore').name}/"

    def key(self, name):
        return self.prefix + name

    def put(self, name, data=b"content", **more):
        return obstore.put(self.s3, self.key(name), data, use_multipart=False, **more)

    def put_by_parts(self, name, data):
        return obstore.put(self.s3, self.key(name), data, use_multipart=True, chunk_size=PART)

    def body(self, name):
        return bytes(obstore.get(self.s3, self.key(name)).bytes())

    def listings(self, prefix):
        yield "list", [item["path"] for page in obstore.list(self.s3, prefix) for item in page]
        yield "list_with_delimiter", [*self.walk(prefix)]

    def walk(self, folder):
        found = obstore.list_with_delimiter(self.s3, folder)
        yield from (item["path"] for item in found["objects"])
        for inner in found["common_prefixes"]:
            yield from self.walk(inner)

    def remove_all(self, prefix):
        for page in obstore.list(self.s3, prefix):
            obstore.delete(self.s3, [item["path"] for item in page])


def two(place):
    return Client(place, http1_only=False)


OBSTORE = Group("obstore", Client, uploads=True)
GROUPS = [
    OBSTORE,
    OBSTORE.also("obstore/h2", two),
    listings.of("obstore", Client),
    listings.of("obstore/h2", two),
    sizes.of("obstore", Client),
    sizes.of("obstore/h2", two),
    sizes.of("obstore/sha256", lambda place: Client(place, {"checksum_algorithm": "SHA256"})),
    sizes.of("obstore/unsigned", lambda place: Client(place, {"unsigned_payload": True})),
]


@OBSTORE.check
def stream_of_unknown_length(c):
    for size in (300_000, 2 * PART + 1000):
        data = sample(size)
        pieces = (data[at : at + 65_536] for at in range(0, len(data), 65_536))
        obstore.put(c.s3, c.key("pipe"), pieces, chunk_size=PART)
        expect_same(c.body("pipe"), data)


@OBSTORE.check
def keys_listed_and_deleted(c):
    # object_store takes a key for a path: no empty or trailing segment.
    names = [name for name in ODD_KEYS if "//" not in name and not name.endswith("/")]
    for name in names:
        c.put(f"odd/{name}", sample(500, name))
        expect_same(c.body(f"odd/{name}"), sample(500, name), name)
    wanted = sorted(c.key(f"odd/{name}") for name in names)

    def listed():
        return sorted(item["path"] for page in obstore.list(c.s3, c.key("odd/")) for item in page)

    expect_equal(listed(), wanted, "keys")
    obstore.delete(c.s3, wanted)
    expect_equal(listed(), [], "keys left")


@OBSTORE.check
def ranges_and_copy(c):
    data = sample(9000)
    c.put("range", data)
    expect_same(bytes(obstore.get_range(c.s3, c.key("range"), start=100, end=150)), data[100:150])
    obstore.copy(c.s3, c.key("range"), c.key("copied"))
    expect_same(c.body("copied"), data)


@OBSTORE.check
def presigned_get_and_put(c):
    data = sample(5000)
    minute = timedelta(minutes=1)
    status, _, printed = fetch(obstore.sign(c.s3, "PUT", c.key("signed"), minute), "PUT", data)
    expect_equal(status, 200, f"status of PUT, body {printed[:300]!r}")
    status, _, back = fetch(obstore.sign(c.s3, "GET", c.key("signed"), minute))
    expect_equal(status, 200, f"status of GET, body {back[:300]!r}")
    expect_same(back, data)


@OBSTORE.check
def fenced(c):
    for call in (
        lambda: obstore.put(c.s3, "bob/fenced", b"x", use_multipart=False),
        lambda: obstore.get(c.s3, "bob/treasure"),
        lambda: obstore.list(c.s3, "bob/").collect(),
    ):
        try:
            call()
        except Exception as refusal:  # obstore's own class depends on the call
            expect("AccessDenied" in str(refusal) or "403" in str(refusal), f"not refused as AccessDenied: {refusal}")
        else:
            expect(False, "succeeded, should be refused")
