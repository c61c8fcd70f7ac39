"""boto3 with grants that `cosgate dev` does not have: `cosgate serve` in front of dev's embedded COS and STS.

Their tenants list what alice of dev has stored: in a virtual bucket, where it is all that there is, and in a whole one.
"""

from dataclasses import replace

import listings
import with_boto3
from harness import ALICE, BUCKET, REGION, Group, Tenant, free_address, serve
from temporary_keys import ACCOUNT
from temporary_keys import BUCKET as REAL_BUCKET

STORED = f"{ALICE.prefix}{listings.FOLDER}"
KEYS = Tenant("", "COSGATEDEMOOTHER0001", "cosgate-demo-other-secret-00000000000000")


def of(name, grant, folder):
    def client(place):
        listings.fill(place, ALICE, BUCKET)
        c = with_boto3.Client(replace(place, endpoint=proxy(place, grant)), "path", KEYS)
        c.all_listed = folder, listings.EVERYTHING
        return c

    group = Group(f"boto3/{name}/listings", client)
    group.check(listings.lists_exactly_all)
    return group


GROUPS = [of("root", f'root = "{STORED}"', ""), of("whole-bucket", 'prefixes = ["*"]', STORED)]


def proxy(place, grant):
    """The address of a proxy whose one tenant has this grant. It ends with this process."""
    address = free_address()
    configuration = place.new_folder("serve") / "cosgate.toml"
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
    serve(place.direct.program, configuration, address, {"ACCOUNT_SECRET": ACCOUNT.secret, "OTHER_SECRET": KEYS.secret})
    return f"http://{address}"
