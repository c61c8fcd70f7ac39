"""Where the keys of clients that go to COS themselves come from, and what every such client must show.

A *walk* is put, get, list and delete inside a key's prefix, then the same outside it, as `{"put inside": "ok", …}`.
"""

import json
import shlex
import socket
import ssl
import threading
from dataclasses import dataclass

from harness import REGION, Tenant, expect_equal, run

BUCKET = "demo-1250000000"
CAROL = Tenant("carol/", "COSGATEDEMOCAROL0001", "cosgate-demo-carol-secret-00000000000000")
# The embedded account and carol's token, which `cosgate dev` tells to everybody.
ACCOUNT = Tenant("", "AKIDcosgateDev00000000000000000000000", "cosgateDevAccountSecretKey000000")
VEND_TOKEN = "cosgate-demo-carol-container-token"

OUTSIDE = "bob/"
STEPS = ("put", "get", "list", "delete")
WALKED = {
    **{f"{step} inside": "ok" for step in STEPS},
    **{f"{step} outside": "403 AccessDenied" for step in STEPS},
}
# What a key for a walk must be allowed, in COS's names.
ACTIONS = [f"name/cos:{name}" for name in ("PutObject", "GetObject", "HeadObject", "GetBucket", "DeleteObject")]


def expect_walked(seen, whose):
    expect_equal(seen, WALKED, whose)


@dataclass(frozen=True)
class Direct:
    """The embedded COS and STS behind the proxy, and the program that gives keys for them."""

    program: str
    cos: str  # http://127.0.0.1:PORT
    sts: str

    def credentials(self, place, form, *options):
        """What `cosgate credentials` prints, requested by the embedded account."""
        environment = {
            **place.environment(CAROL),
            "TENCENTCLOUD_SECRET_ID": ACCOUNT.key_id,
            "TENCENTCLOUD_SECRET_KEY": ACCOUNT.secret,
        }
        return run([self.program, "credentials", "--format", form, *options], environment).decode()

    def scoped(self, place, form, prefix):
        """The same, for a prefix and no configuration, as getCredential of the COS STS SDKs."""
        actions = [word for action in ACTIONS for word in ("--allow-action", action)]
        scope = ("--bucket", BUCKET, "--region", REGION, "--allow-prefix", f"{prefix}*")
        return self.credentials(place, form, "--host", self.sts, *scope, *actions)

    def configuration(self, folder):
        """A configuration with the tenant carol, for `cosgate credentials --config`."""
        path = folder / "cosgate.toml"
        path.write_text(f"""
[sts]
endpoint = "http://sts.tencentcloudapi.com"
region = "{REGION}"
connect_to = "{self.sts.removeprefix("http://")}"

[issuers.sts]
kind = "federation"
secret_id = "env:TENCENTCLOUD_SECRET_ID"
secret_key = "env:TENCENTCLOUD_SECRET_KEY"

[tenants.carol]
issuer = "sts"
access_keys = [{{ id = "{CAROL.key_id}", secret = "env:TENCENTCLOUD_SECRET_KEY" }}]

[[tenants.carol.grants]]
name = "{BUCKET}"
bucket = "{BUCKET}"
region = "{REGION}"
prefixes = ["{CAROL.prefix}*"]
actions = ["read", "write", "list"]
""")
        return path


def exported(text):
    """What a shell that reads `text` exports."""
    script = f'eval "$1"; {shlex.join(["python3", "-c", "import json, os; print(json.dumps(dict(os.environ)))"])}'
    return json.loads(run(["sh", "-c", script, "sh", text], {"PATH": "/usr/local/bin:/usr/bin:/bin"}))


def behind_tls(address, cert, key):
    """The server at http://HOST:PORT behind TLS, for SDKs that speak https alone; the address there."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    host, port = address.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # either end may go as it likes

    def serve(plain):
        try:
            with server.wrap_socket(plain, server_side=True) as client, socket.create_connection((host, port)) as behind:
                back = threading.Thread(target=copy, args=(behind, client), daemon=True)
                back.start()
                copy(client, behind)
                back.join()
        except OSError:
            pass  # a client that does not like the certificate says so itself

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"
