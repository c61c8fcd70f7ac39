"""boto3 with grants that `cosgate dev` does not have: `cosgate serve` in front of dev's embedded COS and STS.

Their tenants list what alice of dev has stored: in a virtual bucket, where it is all that there is, and in a whole one.
"""

import atexit
import os
import socket
import subprocess
import time
from dataclasses import replace

import listings
import with_boto3
from harness import ALICE, BUCKET, REGION, CheckFailed, Group, Tenant, expect
from temporary_keys import ACCOUNT
from temporary_keys import BUCKET as REAL_BUCKET

READY_SECONDS = 30
STORED = f"{ALICE.prefix}{listings.FOLDER}"
KEYS = Tenant("", "COSGATEDEMOOTHER0001", "cosgate-demo-other-secret-00000000000000")


def of(name, grant, folder):
    def client(place):
        listings.fill(place, ALICE, BUCKET)
        c = with_boto3.Client(replace(place, endpoint=serve(place, grant)), "path", KEYS)
        c.all_listed = folder, listings.EVERYTHING
        return c

    group = Group(f"boto3/{name}/listings", client)
    group.check(listings.lists_exactly_all)
    return group


GROUPS = [of("root", f'root = "{STORED}"', ""), of("whole-bucket", 'prefixes = ["*"]', STORED)]


def serve(place, grant):
    """The address of a proxy whose one tenant has this grant. It ends with this process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "{}:{}".format(*free.getsockname())
    folder = place.new_folder("serve")
    configuration, log = folder / "cosgate.toml", folder / "log"
    configuration.write_text(f"""
[server]
listen = "{address}"
admin = ""

[upstream]
endpoint = "http://{{bucket}}.cos.{{region}}.myqcloud.com"
service_endpoint = "http://service.cos.myqcloud.com"
signature = "{place.signature}"
connect_to = "{place.direct.cos.removeprefix("http://")}"

[sts]
endpoint = "http://sts.tencentcloudapi.com"
region = "{REGION}"
connect_to = "{place.direct.sts.removeprefix("http://")}"

[issuers.dev]
kind = "federation"
secret_id = "{ACCOUNT.key_id}"
secret_key = "env:ACCOUNT_SECRET"

[tenants.other]
issuer = "dev"
access_keys = [{{ id = "{KEYS.key_id}", secret = "env:OTHER_SECRET" }}]

[[tenants.other.grants]]
name = "{BUCKET}"
bucket = "{REAL_BUCKET}"
region = "{REGION}"
{grant}
actions = ["read", "write", "list"]
""")
    environment = {**os.environ, "ACCOUNT_SECRET": ACCOUNT.secret, "OTHER_SECRET": KEYS.secret}
    command = [place.direct.program, "serve", "--config", configuration]
    with log.open("wb") as printed:
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed)
    atexit.register(server.kill)
    host, port = address.split(":")
    for _ in range(READY_SECONDS * 10):
        expect(server.poll() is None, f"serve ended: {log.read_text()}")
        try:
            socket.create_connection((host, int(port))).close()
            return f"http://{address}"
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise CheckFailed(f"serve is not there after {READY_SECONDS} s: {log.read_text()}")
