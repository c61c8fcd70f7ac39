"""Listings, syncs and deletes of the names of `names.py`: the same checks for every client that lists.

Such a client has `listings(prefix)`: each of its ways to list all keys under a prefix, as a pair of the way and the keys;
and `remove_all(prefix)`. One that copies folders also has `sync_down(prefix, folder)` and `sync_up(folder, prefix)`, which
delete at the destination what the source does not have. All get their prefixes as whole keys.
"""

import asyncio
import io
import tempfile
import threading
from pathlib import Path

import obstore
from minio import Minio
from obstore.store import S3Store

import names
from harness import ALICE, BUCKET, REGION, Group, expect, expect_equal

AT_ONCE = 16
SHOWN = 3
# Under a tenant's prefix: the names that files can have, and those that only keys can have.
FOLDER, FILES, KEYS = "natural/", "files/", "keys/"

EVERYTHING = [*(FILES + name for name in names.FILES), *(KEYS + name for name in names.KEYS)]

# Clients that do not list what no file can be called, and why.
FILES_ALONE = {
    "obstore": "object_store refuses a listing that has a key with an empty segment",
    "obstore/h2": "the same",
    "hadoop": "S3A takes a key with a `/` at its end for a folder",
    "pyarrow": "pyarrow refuses a path with an empty segment",
    "s3fs": "s3fs takes a key with a `/` at its end for a folder",
    "rclone": "rclone takes a key with a `/` at its end for a folder",
    "rclone/v2": "the same",
    "rclone-current": "the same",
}

FILLED = set()
FILLING = threading.Lock()

LISTINGS = Group("listings", None)
TREES = Group("trees", None)


def of(name, client, tenant=ALICE, bucket=BUCKET, **more):
    """Checks of a client that lists."""
    return LISTINGS.also(f"{name}/listings", lambda place: ready(place, name, client(place), tenant, bucket), **more)


def of_trees(name, client, tenant=ALICE, bucket=BUCKET):
    """Checks of a client that copies folders, too."""
    return TREES.also(f"{name}/listings", lambda place: ready(place, name, client(place), tenant, bucket))


def ready(place, name, client, tenant, bucket):
    fill(place, tenant, bucket)
    folder = f"{tenant.prefix}{FOLDER}"
    client.put_all = lambda prefix, some: put_all(place, tenant, bucket, prefix, some)
    client.files = f"{folder}{FILES}"
    # Thousands of small files take a disk longer than all else here.
    memory = Path("/dev/shm")
    client.trees_gone_at_exit = tempfile.TemporaryDirectory(
        prefix="cosgate-interop-", dir=memory if memory.is_dir() else place.folder
    )
    client.trees = Path(client.trees_gone_at_exit.name)
    # More than a page; but what is sent for each key is the same whatever its neighbours are.
    client.uploaded = names.FILES[:: 2 if place.signature == "s3" else 10]
    client.all_listed = (client.files, names.FILES) if name in FILES_ALONE else (folder, EVERYTHING)
    return client


def fill(place, tenant, bucket):
    """Stores all names, once for each tenant: whoever comes first does it."""
    with FILLING:
        if tenant not in FILLED:
            put_all(place, tenant, bucket, f"{tenant.prefix}{FOLDER}", EVERYTHING)
            FILLED.add(tenant)


def put_all(place, tenant, bucket, prefix, some):
    """Stores an object of each name under the prefix: by obstore, the fastest here, but for keys that it does not take."""
    where = {"endpoint": place.endpoint, "region": REGION, "client_options": {"allow_http": True}}
    store = S3Store(bucket, access_key_id=tenant.key_id, secret_access_key=tenant.secret, **where)
    slots = asyncio.Semaphore(AT_ONCE)

    async def put(name):
        async with slots:
            await obstore.put_async(store, f"{prefix}{name}", content(name), use_multipart=False)

    async def put_each(these):
        await asyncio.gather(*map(put, these))

    no_paths = [name for name in some if name.endswith("/") or "//" in name]
    asyncio.run(put_each(name for name in some if name not in set(no_paths)))
    s3 = Minio(place.authority, tenant.key_id, tenant.secret, secure=place.tls, region=REGION)
    for name in no_paths:
        data = content(name)
        s3.put_object(bucket, f"{prefix}{name}", io.BytesIO(data), len(data))


def expect_listed(c, prefix, some):
    """Each way lists these keys and no others, each once, in any order."""
    shown = getattr(c, "shown", str)
    for way, keys in c.listings(prefix):
        expect_same_names({*keys}, {shown(f"{prefix}{name}") for name in some}, way)
        expect_equal(len(keys), len(some), f"{way}: number of keys")


def content(name):
    return names.content(name.removeprefix(FILES))


def expect_tree(folder, some):
    """Files of these names and no others, with what was stored under each."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    expect_same_names({*files}, {*some}, f"files under {folder.name}")
    wrong = [name for name in some if files[name] != names.content(name)]
    expect(not wrong, f"{len(wrong)} files have another's content, such as {wrong[:SHOWN]}")


def expect_same_names(seen, wanted, what):
    missing, more = sorted(wanted - seen), sorted(seen - wanted)
    expect(
        seen == wanted,
        f"{what}: {len(seen)}, should be {len(wanted)}; {len(missing)} missing, such as {missing[:SHOWN]}; "
        f"{len(more)} too many, such as {more[:SHOWN]}",
    )


@LISTINGS.check
def lists_exactly_all(c):
    expect_listed(c, *c.all_listed)


@LISTINGS.check
def removes_exactly_all(c):
    doomed, beside = c.key("doomed/"), c.key("doomed.txt/")
    some = names.FILES[::20]
    c.put_all(doomed, some)
    c.put_all(beside, some[:1])
    c.remove_all(doomed)
    expect_listed(c, doomed, [])
    expect_listed(c, beside, some[:1])


TREES.check(lists_exactly_all)


@TREES.check
def syncs_down_exactly_all(c):
    """What is missing is copied, what is there stays, and what the bucket does not have goes."""
    back = c.trees / "natural"
    names.write_tree(back, [*(name for number, name in enumerate(names.FILES) if number % 5), "photo-stale.jpg"])
    c.sync_down(c.files, back)
    expect_tree(back, names.FILES)


@TREES.check
def syncs_up_and_removes_exactly_all(c):
    tree, half, beside = c.trees / "half", c.key("half/"), c.key("half.txt/")
    some = c.uploaded
    names.write_tree(tree, some)
    c.put_all(half, [*(name for number, name in enumerate(some) if number % 5), "photo-stale.jpg"])
    c.put_all(beside, some[:1])
    c.sync_up(tree, half)
    expect_listed(c, half, some)
    c.remove_all(half)
    expect_listed(c, half, [])
    expect_listed(c, beside, some[:1])
