"""What every client's checks share: the endpoint, the tenants, test data, and the list of checks."""

import atexit
import hashlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import preloaded

REGION = "ap-guangzhou"
BUCKET = "demo"
VIRTUAL_DOMAIN = "s3.localhost"
PART = 5 * 1024 * 1024  # the smallest part that S3 takes, but for the last
COMMAND_SECONDS = 120
READY_SECONDS = 30

# Those that take minutes to compile or to download.
HEAVY_PROGRAMS = {"go-sdk", "hadoop", "java-sdk", "mc", "rclone-current"}

# Keys that break proxies which decode, normalise or encode twice.
ODD_KEYS = ["a b", "a+b", "a%20b", "中文", "'()*~!", "x//y", "trailing/", "=&?#"]
# Those of them that can be file names, for tools that copy folders.
ODD_FILE_NAMES = [key for key in ODD_KEYS if "/" not in key]


@dataclass(frozen=True)
class Tenant:
    """One of the demo tenants of `cosgate dev`: fixed keys, loopback only."""

    prefix: str
    key_id: str
    secret: str


ALICE = Tenant("alice/", "COSGATEDEMOALICE0001", "cosgate-demo-alice-secret-00000000000000")
BOB = Tenant("bob/", "COSGATEDEMOBOB000001", "cosgate-demo-bob-secret-0000000000000000")


@dataclass(frozen=True)
class Place:
    """Where the checks run: the proxy, over TLS the authority to trust, and a folder of their own."""

    endpoint: str
    folder: Path
    authority_file: Path | None = None
    node_folder: Path | None = None  # where client.mjs and its packages are
    java_folder: Path | None = None  # where the class of java/ and its lib/ are
    certificates: Path | None = None  # what `cosgate certs` made
    direct: object | None = None  # COS and STS behind the proxy
    sts_behind_tls: str | None = None
    admin: str | None = None  # the admin pages
    signature: str = "s3"  # what the proxy signs with
    programs: dict = field(default_factory=dict)  # what `run` has set up, by the name in `needs` of a group

    @property
    def tls(self):
        return self.scheme == "https"

    @property
    def scheme(self):
        return self.endpoint.split("://")[0]

    @property
    def authority(self):
        return self.endpoint.split("://")[1]

    @property
    def port(self):
        return int(self.authority.rsplit(":", 1)[1])

    def new_folder(self, name):
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    @property
    def trust(self):
        """What makes botocore, OpenSSL and Go, and Node trust the authority."""
        names = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
        return dict.fromkeys(names, str(self.authority_file)) if self.tls else {}

    def environment(self, tenant):
        """The environment of a command: this tenant's keys, and nothing of the person's own set-up."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            "AWS_ACCESS_KEY_ID": tenant.key_id,
            "AWS_SECRET_ACCESS_KEY": tenant.secret,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            # botocore tells Python 3.9 users and others about the end of support, on stderr
            "PYTHONWARNINGS": "ignore",
            **self.trust,
        }


class CheckFailed(Exception):
    """What was seen is not what should be."""


def expect(condition, message):
    if not condition:
        raise CheckFailed(message)


def expect_equal(seen, wanted, what):
    expect(seen == wanted, f"{what}: {seen!r}, should be {wanted!r}")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def expect_same(seen, wanted, what="content"):
    expect(
        sha256(seen) == sha256(wanted),
        f"{what}: {len(seen)} bytes with SHA-256 {sha256(seen)}, "
        f"should be {len(wanted)} bytes with {sha256(wanted)}",
    )


def expect_same_tree(seen, wanted):
    def files(root):
        return {str(p.relative_to(root)): sha256(p.read_bytes()) for p in root.rglob("*") if p.is_file()}

    expect_equal(files(seen), files(wanted), f"files under {seen.name}")


def sample(size, seed="cosgate"):
    """Bytes that do not repeat and are the same in every run."""
    return random.Random(f"{seed}-{size}").randbytes(size)


def write_odd_tree(folder):
    """A folder with odd names, an empty file and a sub-folder."""
    for name in [*ODD_FILE_NAMES, "sub folder/plain.txt"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample(1000, name))
    (folder / "empty").write_bytes(b"")
    # S3 tells whole seconds: a file made in the second of its upload would look newer than its object.
    an_hour_ago = time.time() - 3600
    for path in folder.rglob("*"):
        os.utime(path, (an_hour_ago, an_hour_ago))


def run(argv, env, stdin=b"", fails=False, codes=(0,)):
    """Runs a command to one of these ends and returns its stdout; with `fails`, it must fail and all its output is returned."""
    argv = [str(arg) for arg in argv]
    if argv[0] == "aws":
        done = preloaded.AWS.run(argv, env, stdin, COMMAND_SECONDS)
    else:
        done = subprocess.run(argv, env=env, input=stdin, capture_output=True, timeout=COMMAND_SECONDS)
    printed = (done.stderr + done.stdout).decode(errors="replace")
    shown = " ".join(argv)
    if fails:
        expect(done.returncode != 0, f"succeeded, should be refused: {shown}\n{printed}")
        return printed
    expect(done.returncode in codes, f"exit {done.returncode}: {shown}\n{printed}")
    return done.stdout


def fetch(url, method="GET", body=None, headers=None):
    """A plain HTTP request, as any program given a presigned URL makes it: status, headers and body."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=COMMAND_SECONDS) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers, refusal.read()


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return "{}:{}".format(*free.getsockname())


def serve(program, configuration, address, secrets):
    """`cosgate serve` that accepts connections on its address, its access log and its program log. It ends with this process."""
    access_log, log = (configuration.with_name(name) for name in ("access.log", "program.log"))
    command = [program, "serve", "--config", configuration]
    with access_log.open("wb") as access, log.open("wb") as printed:
        server = subprocess.Popen(
            command, env={**os.environ, **secrets}, stdin=subprocess.DEVNULL, stdout=access, stderr=printed
        )
    atexit.register(server.kill)
    host, port = address.split(":")
    for _ in range(READY_SECONDS * 10):
        expect(server.poll() is None, f"serve ended: {log.read_text()}")
        try:
            socket.create_connection((host, int(port))).close()
            return server, access_log, log
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise CheckFailed(f"serve is not there after {READY_SECONDS} s: {log.read_text()}")


class Group:
    """Checks of one client, run in the order written; `client()` is called once, before the first of them.

    Those of `uploads` run over TLS too: SDKs change the form of an upload with the transport, and little else. A group that
    `needs` a program is skipped, by name, where `run` could not set it up.
    """

    def __init__(self, name, client, uploads=False, needs=None):
        self.name = name
        self.client = client
        self.uploads = uploads
        self.needs = needs
        self.checks = []

    @property
    def heavy(self):
        """It runs only if it is named, or with `--all`."""
        return self.needs in HEAVY_PROGRAMS

    def check(self, function):
        """Adds a check: a function of the client. Its name is the check's name."""
        self.checks.append(function)
        return function

    def also(self, name, client, **other):
        """The same checks for the same client set up in another way."""
        kept = {"uploads": self.uploads, "needs": self.needs}
        other = Group(name, client, **{**kept, **other})
        other.checks = self.checks
        return other
