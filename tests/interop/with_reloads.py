"""boto3, the AWS CLI and rclone through `cosgate serve` while its configuration changes at random, with retries off.

The bucket of the clients stays the same; limits, access keys and scopes around it change. The bucket `probe` means another
real bucket, region and folder in each of two configurations. Each object that the probes write must be where one of the two
puts it, and nothing may be anywhere else.
"""

import atexit
import concurrent.futures
import json
import random
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
from botocore.config import Config

import listings
import names
import with_awscli
import with_boto3
import with_rclone
from harness import (
    ALICE,
    BUCKET,
    REGION,
    Group,
    Tenant,
    expect,
    expect_equal,
    expect_same,
    fetch,
    free_address,
    sample,
    serve,
)
from temporary_keys import BUCKET as REAL_BUCKET

ONCE = {"total_max_attempts": 1}
PAUSE_SECONDS = 0.1, 0.3
FEWEST_RELOADS = 20
SETTLE_SECONDS = 20
# Descriptors that the process may have more than before the load.
SPARE_DESCRIPTORS = 4
BIG = 20 * 1024 * 1024  # three parts of boto3
FILES = names.FILES[::8]
PROBE = "probe"
SHOWN_FIELDS = ("time", "tenant", "user_agent", "operation", "key", "status", "code", "step", "upstream_status", "detail")

SECOND = Tenant(ALICE.prefix, "COSGATEDEMOALICE0002", "cosgate-demo-alice-secret-of-the-second")
# Always of the tenant `probe`, whose grant changes.
STAYING = Tenant("staying/", "COSGATEDEMOSTAYING01", "cosgate-demo-staying-secret-000000000000")
# Of the tenant `even` or of the tenant `odd`.
MOVING = Tenant("moving/", "COSGATEDEMOMOVING001", "cosgate-demo-moving-secret-0000000000000")
GUEST = Tenant("guest/", "COSGATEDEMOGUEST0001", "cosgate-demo-guest-secret-00000000000000")
SECRETS = {"ALICE": ALICE, "SECOND": SECOND, "STAYING": STAYING, "MOVING": MOVING, "GUEST": GUEST}


@dataclass(frozen=True)
class Side:
    """What the bucket `probe` means in one of the two configurations."""

    name: str
    bucket: str
    region: str

    def root(self, tenant):
        return f"{self.name}/{tenant.prefix}"

    @property
    def seeds(self):
        """What is in each root from the start."""
        return {"which": self.name.encode(), f"sides/{self.name}": b""}


SIDES = [Side("even", "even-1250000000", REGION), Side("odd", "odd-1250000000", "ap-beijing")]


class Store:
    """An embedded COS and STS of its own, and what is in them."""

    def __init__(self, place):
        command = [place.direct.program, "emulator", "--json"]
        for bucket, region in [(REAL_BUCKET, REGION), *((side.bucket, side.region) for side in SIDES)]:
            command += ["--bucket", f"{bucket}:{region}"]
        for listener in ("--cos", "--sts", "--admin"):
            command += [listener, "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)
        self.about = json.loads(self.process.stdout.readline())
        for side in SIDES:
            for tenant in (STAYING, MOVING):
                for name, content in side.seeds.items():
                    self.s3(side).put_object(Bucket=side.bucket, Key=side.root(tenant) + name, Body=content)

    def s3(self, side):
        return boto3.client(
            "s3",
            endpoint_url=f"http://cos.{side.region}.myqcloud.com",
            region_name=side.region,
            aws_access_key_id=self.about["secret_id"],
            aws_secret_access_key=self.about["secret_key"],
            config=Config(
                proxies={"http": self.about["cos"]},
                s3={"addressing_style": "virtual"},
                request_checksum_calculation="when_required",
            ),
        )

    def objects(self, side):
        """The whole bucket: content by key."""
        s3 = self.s3(side)
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=side.bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key: s3.get_object(Bucket=side.bucket, Key=key)["Body"].read() for key in keys}


class Proxy:
    """`cosgate serve` in front of the store, and its configuration."""

    def __init__(self, place, store):
        self.place, self.store = place, store
        self.address, admin = free_address(), free_address()
        self.endpoint, self.admin = f"http://{self.address}", f"http://{admin}"
        self.file = place.new_folder("reloads") / "cosgate.toml"
        self.chance = random.Random()
        self.write(SIDES[0])
        secrets = {f"{name}_SECRET": tenant.secret for name, tenant in SECRETS.items()}
        secrets |= {"ACCOUNT_ID": store.about["secret_id"], "ACCOUNT_SECRET": store.about["secret_key"]}
        self.process, self.access_log, self.log = serve(place.direct.program, self.file, self.address, secrets)

    def write(self, side, has_second_key=False, idle_connections=256):
        """A new configuration, in one step: nobody reads half of it."""
        new = self.file.with_suffix(".new")
        new.write_text(self.text(side, has_second_key, idle_connections))
        new.rename(self.file)

    def text(self, side, has_second_key, idle_connections):
        chance = self.chance
        host = {name: self.store.about[name].removeprefix("http://") for name in ("cos", "sts")}
        text = f"""
[server]
listen = "{self.address}"
admin = "{self.admin.removeprefix("http://")}"

[server.limits]
body_window = "{chance.randint(60, 120)}s"

[upstream]
endpoint = "http://{{bucket}}.cos.{{region}}.myqcloud.com"
service_endpoint = "http://service.cos.myqcloud.com"
signature = "{self.place.signature}"
connect_to = "{host["cos"]}"

# Another number is another connection pool.
[upstream.limits]
idle_connections = {idle_connections}

[sts]
endpoint = "http://sts.tencentcloudapi.com"
region = "{REGION}"
connect_to = "{host["sts"]}"

[issuers.main]
kind = "federation"
secret_id = "env:ACCOUNT_ID"
secret_key = "env:ACCOUNT_SECRET"
"""
        more = chance.choice([[], ["more/*"]])
        keys = ["ALICE", "SECOND"] if has_second_key else ["ALICE"]
        text += self.tenant("alice", keys, BUCKET, REAL_BUCKET, REGION, prefixes=[f"{ALICE.prefix}*", *more])
        text += self.tenant("probe", ["STAYING"], PROBE, side.bucket, side.region, root=side.root(STAYING))
        text += self.tenant(side.name, ["MOVING"], PROBE, side.bucket, side.region, root=side.root(MOVING))
        if chance.random() < 0.5:
            text += self.tenant("guest", ["GUEST"], BUCKET, REAL_BUCKET, REGION, prefixes=[f"{GUEST.prefix}*"])
        return text

    def tenant(self, name, keys, alias, bucket, region, **where):
        chance = self.chance
        listed = ", ".join(f'{{ id = "{SECRETS[key].key_id}", secret = "env:{key}_SECRET" }}' for key in keys)
        return f"""
[tenants.{name}]
issuer = "main"
access_keys = [{listed}]

[tenants.{name}.limits]
requests_per_second = {chance.randint(100_000, 200_000)}
concurrent_requests = {chance.randint(1000, 2000)}
upload_rate = "{chance.randint(256, 512)}MiB"
download_rate = "{chance.randint(256, 512)}MiB"

[[tenants.{name}.grants]]
name = "{alias}"
bucket = "{bucket}"
region = "{region}"
{"".join(f"{key} = {json.dumps(value)}" for key, value in where.items())}
actions = ["read", "write", "list"]
"""

    def reload(self):
        status, _, text = fetch(f"{self.admin}/reload", "POST")
        expect_equal(status, 200, f"POST /reload: {text.decode()}")

    def metrics(self):
        _, _, text = fetch(f"{self.admin}/metrics")
        samples = [line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in samples}

    def requests(self):
        """The lines of the access log."""
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]


class Client:
    """The whole run: the checks look at what came of it."""

    def __init__(self, place):
        self.store = Store(place)
        self.proxy = Proxy(place, self.store)
        self.place = replace(place, endpoint=self.proxy.endpoint)
        self.before = self.proxy.metrics()
        self.copies_are_done, self.is_over = threading.Event(), threading.Event()
        self.reloads, self.posted_reloads = 0, 0
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(
            prefix="cosgate-interop-", dir=memory if memory.is_dir() else place.folder
        ) as folder:
            self.run(self.new_awscli(), self.new_rclone(), Path(folder))
        # With another pool, no connection to COS stays either.
        self.proxy.write(SIDES[0], idle_connections=64)
        self.proxy.reload()
        self.reloads, self.posted_reloads = self.reloads + 1, self.posted_reloads + 1
        self.after = self.settled()
        self.stored = {side: self.store.objects(side) for side in SIDES}
        self.proxy.process.terminate()
        self.status = self.proxy.process.wait(SETTLE_SECONDS)

    def run(self, awscli, rclone, folder):
        with concurrent.futures.ThreadPoolExecutor(max_workers=6) as pool:
            try:
                self.changes = pool.submit(self.change)
                self.probes = {tenant: pool.submit(self.probe, tenant) for tenant in (STAYING, MOVING)}
                self.awscli = pool.submit(copy, awscli, folder / "awscli")
                self.rclone = pool.submit(copy, rclone, folder / "rclone")
                self.boto3 = pool.submit(self.transfer)
                concurrent.futures.wait([self.awscli, self.rclone])
                self.copies_are_done.set()
                concurrent.futures.wait([self.boto3])
            finally:
                self.copies_are_done.set()
                self.is_over.set()

    def new_awscli(self):
        client = with_awscli.Client(self.place)
        client.environment["AWS_MAX_ATTEMPTS"] = "1"
        return client

    def new_rclone(self):
        client = with_rclone.Client(self.place, "reloads", {"provider": "Other"})
        client.base += ["--low-level-retries", "1"]
        return client

    def new_boto3(self, tenant):
        return closing(with_boto3.connect(self.proxy.endpoint, tenant, retries=ONCE))

    def transfer(self):
        """boto3's own uploads and downloads in parts, until the other clients are done and reloads enough."""
        client = with_boto3.Client(self.place, "path", retries=ONCE)
        source, back = client.folder / "source", client.folder / "back"
        source.write_bytes(sample(BIG))
        small = FILES[::20]
        rounds = 0
        with closing(client.s3):
            while not self.copies_are_done.is_set() or (self.reloads < FEWEST_RELOADS and not self.changes.done()):
                key = client.key(f"round-{rounds}/big")
                client.s3.upload_file(str(source), BUCKET, key)
                client.s3.download_file(BUCKET, key, str(back))
                expect_same(back.read_bytes(), source.read_bytes(), key)
                folder = f"round-{rounds}/small/"
                for name in small:
                    client.put(folder + name, names.content(name))
                    expect_same(client.body(folder + name), names.content(name), name)
                listings.expect_listed(client, client.key(folder), small)
                rounds += 1

    def probe(self, tenant):
        """Writes, copies, reads and lists in the bucket `probe` until the end; returns the number of rounds."""
        rounds = 0
        with self.new_boto3(tenant) as s3:
            while not self.is_over.is_set():
                name = f"round-{rounds}"
                s3.put_object(Bucket=PROBE, Key=name, Body=name.encode())
                s3.copy_object(Bucket=PROBE, Key=f"{name}.copy", CopySource={"Bucket": PROBE, "Key": "which"})
                side_of(s3)
                listed = [item["Key"] for item in s3.list_objects_v2(Bucket=PROBE, Prefix="sides/").get("Contents", [])]
                expect(listed in [[f"sides/{side.name}"] for side in SIDES], f"the listing has {listed}")
                rounds += 1
        return rounds

    def change(self):
        """Changes the configuration and has it read, until the end."""
        chance = self.proxy.chance
        with self.new_boto3(SECOND) as alice, self.new_boto3(STAYING) as probe:
            while not self.is_over.wait(chance.uniform(*PAUSE_SECONDS)):
                side, has_second_key = chance.choice(SIDES), chance.random() < 0.5
                self.proxy.write(side, has_second_key, chance.choice([256, 256, 128]))
                self.reloads += 1
                if chance.random() < 0.5:
                    self.proxy.process.send_signal(signal.SIGHUP)
                    continue
                self.proxy.reload()
                self.posted_reloads += 1
                # Every thread has the new configuration now.
                expect_equal(side_of(probe), side.name, "the bucket `probe` after POST /reload")
                if has_second_key:
                    alice.list_objects_v2(Bucket=BUCKET, Prefix=ALICE.prefix, MaxKeys=1)

    def written(self, side, tenant):
        """What a probe has at the end under a side's root: content by name."""
        root, objects = side.root(tenant), self.stored[side]
        return {key.removeprefix(root): content for key, content in objects.items() if key.startswith(root)}

    def settled(self):
        """The metrics when nothing is left of the load, or after SETTLE_SECONDS."""
        end = time.monotonic() + SETTLE_SECONDS
        while self.left(metrics := self.proxy.metrics()) and time.monotonic() < end:
            time.sleep(0.2)
        return metrics

    def left(self, metrics):
        """What the load has left behind."""
        bounds = {
            "cosgate_requests_in_flight": 0,
            "cosgate_connections": 0,  # a client that failed may hold one
            "cosgate_upstream_open_connections": 0,
            "cosgate_configurations": 1,
            "process_open_fds": self.before["process_open_fds"] + SPARE_DESCRIPTORS,
        }
        return {name: metrics[name] for name, bound in bounds.items() if metrics[name] > bound}


def copy(client, folder):
    """Syncs a folder up and down, and lists what is there."""
    prefix = client.key("tree/")
    names.write_tree(folder / "up", FILES)
    client.sync_up(folder / "up", prefix)
    listings.expect_listed(client, prefix, FILES)
    client.sync_down(prefix, folder / "down")
    listings.expect_tree(folder / "down", FILES)


def side_of(s3):
    """The name of the side that a probe reads."""
    name = s3.get_object(Bucket=PROBE, Key="which")["Body"].read().decode()
    expect(name in [side.name for side in SIDES], f"which: {name}")
    return name


RELOADS = Group("reloads", Client)
GROUPS = [RELOADS]


@RELOADS.check
def boto3_transfers(c):
    c.boto3.result()


@RELOADS.check
def awscli_syncs(c):
    c.awscli.result()


@RELOADS.check
def rclone_syncs(c):
    c.rclone.result()


@RELOADS.check
def each_reload_is_taken(c):
    c.changes.result()
    expect(c.reloads >= FEWEST_RELOADS, f"only {c.reloads} reloads")
    refused = c.after.get('cosgate_reloads_total{result="refused"}', 0)
    expect_equal(refused, 0, f"refused reloads; the log ends with {c.proxy.log.read_text()[-1000:]}")
    # cosgate may take several signals for one, but each POST by itself.
    taken = c.after['cosgate_reloads_total{result="taken"}']
    expect(c.posted_reloads <= taken <= c.reloads, f"{taken} reloads taken; {c.reloads} requested, {c.posted_reloads} by POST")


@RELOADS.check
def each_object_is_where_one_configuration_puts_it(c):
    for tenant, probe in c.probes.items():
        rounds = [f"round-{number}" for number in range(probe.result())]
        found = []
        for side in SIDES:
            objects = c.written(side, tenant)
            expect_equal({name: objects.pop(name, None) for name in side.seeds}, side.seeds, f"seeds of {side.root(tenant)}")
            expect(objects, f"no probe wrote to {side.root(tenant)}")
            for name, content in objects.items():
                # A copy has the content of its source in the same configuration.
                wanted = side.name if name.endswith(".copy") else name
                expect_equal(content.decode(), wanted, f"content of {side.root(tenant)}{name}")
            found += objects
        listings.expect_same_names({*found}, {*rounds, *(f"{name}.copy" for name in rounds)}, f"objects of {tenant.prefix}")
        expect_equal(len(found), 2 * len(rounds), f"number of objects of {tenant.prefix} in both buckets")
    for side, objects in c.stored.items():
        roots = tuple(side.root(tenant) for tenant in c.probes)
        strange = [key for key in objects if not key.startswith(roots)]
        expect(not strange, f"{side.bucket} has keys of no configuration, such as {strange[: listings.SHOWN]}")


@RELOADS.check
def each_tenant_writes_where_its_configuration_says(c):
    """The key of one probe is of the tenant `even` or `odd`: of the one to whose root the request wrote."""
    sides = {name: side.name for side in SIDES for name in c.written(side, MOVING)}
    of_probe = [one for one in c.proxy.requests() if one.get("key_id") == MOVING.key_id]
    writes = [one for one in of_probe if one["method"] == "PUT" and one["status"] == 200]
    expect(writes, "the access log has no write of the probe")
    for one in writes:
        expect_equal(one["tenant"], sides.get(one["key"]), f"tenant of {one}")


@RELOADS.check
def no_request_fails(c):
    requests = c.proxy.requests()
    failed = [one for one in requests if one["status"] >= 499 or one["status"] == 403 or one["verdict"] in ("refused", "failed")]
    shown = [{name: one.get(name) for name in SHOWN_FIELDS} for one in failed[: listings.SHOWN]]
    expect(not failed, f"{len(failed)} of {len(requests)} requests failed, such as {shown}")
    expect(len(requests) > 2 * len(FILES), f"only {len(requests)} requests")


@RELOADS.check
def nothing_leaks(c):
    left = c.left(c.after)
    expect(not left, f"after {SETTLE_SECONDS} s: {left}; {c.before['process_open_fds']} descriptors before the load")
    expect_equal(c.status, 0, "exit of serve")
