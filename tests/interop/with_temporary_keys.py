"""Clients that go to COS themselves, with keys of `cosgate credentials`, of `/.cosgate/credentials`, and of Tencent's own
STS SDKs: Tencent's SDKs for Python, Node and Java, coscmd, boto3 and aws-cli, against the embedded COS and STS.
"""

import json
import logging
import sys
from pathlib import Path

from harness import REGION, VIRTUAL_DOMAIN, Group, expect, expect_equal, expect_same, run, sample
from temporary_keys import (
    ACCOUNT,
    ACTIONS,
    BUCKET,
    CAROL,
    OUTSIDE,
    VEND_TOKEN,
    expect_walked,
    exported,
)

HERE = Path(__file__).parent


class Client:
    def __init__(self, place, name):
        self.place = place
        self.direct = place.direct
        self.folder = place.new_folder(name)
        self.prefix = f"{CAROL.prefix}{self.folder.name}/"

    def scoped(self, form):
        return self.direct.scoped(self.place, form, self.prefix)

    def sdk_key(self):
        """A key in the shape of the COS STS SDKs."""
        key = json.loads(self.scoped("json"))
        expect_equal(sorted(key), ["credentials", "expiration", "expiredTime", "requestId", "startTime"], "its members")
        expect_equal(key["expiredTime"] - key["startTime"], 1800, "its life")
        return key


# Python: cos-python-sdk-v5 and qcloud-python-sts


class Python(Client):
    def __init__(self, place):
        super().__init__(place, "python")

    def cos(self, secret_id, secret_key, token):
        from qcloud_cos import CosConfig, CosS3Client

        logging.getLogger("qcloud_cos").setLevel(logging.CRITICAL)
        keys = {"SecretId": secret_id, "SecretKey": secret_key, "Token": token}
        host, port = self.direct.cos.removeprefix("http://").split(":")
        return CosS3Client(CosConfig(Region=REGION, Scheme="http", IP=host, Port=int(port), **keys), retry=0)

    def walk(self, *keys):
        from qcloud_cos.cos_exception import CosServiceError

        cos = self.cos(*keys)

        def seen(call, **arguments):
            try:
                call(Bucket=BUCKET, **arguments)
            except CosServiceError as refusal:
                return f"{refusal.get_status_code()} {refusal.get_error_code()}"
            return "ok"

        def get(Bucket, Key):
            expect_same(cos.get_object(Bucket=Bucket, Key=Key)["Body"].get_raw_stream().read(), b"content")

        walk = {}
        for where, prefix in (("inside", self.prefix), ("outside", OUTSIDE)):
            key = f"{prefix}a b+中"
            walk[f"put {where}"] = seen(cos.put_object, Key=key, Body=b"content")
            walk[f"get {where}"] = seen(get, Key=key)
            walk[f"list {where}"] = seen(cos.list_objects, Prefix=prefix)
            walk[f"delete {where}"] = seen(cos.delete_object, Key=key)
        return walk

    def walk_with(self, key):
        credentials = key["credentials"]
        return self.walk(credentials["tmpSecretId"], credentials["tmpSecretKey"], credentials["sessionToken"])


PYTHON = Group("keys/python", Python)


@PYTHON.check
def credentials_as_sdk_json(c):
    expect_walked(c.walk_with(c.sdk_key()), "with --format json")


@PYTHON.check
def credentials_as_sts_says_it(c):
    key = json.loads(c.scoped("raw"))["Credentials"]
    expect_walked(c.walk(key["TmpSecretId"], key["TmpSecretKey"], key["Token"]), "with --format raw")


@PYTHON.check
def credentials_of_the_environment(c):
    key = exported(c.scoped("env"))
    names = ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_SESSION_TOKEN")
    expect_walked(c.walk(*(key[name] for name in names)), "with --format env")


@PYTHON.check
def uploads_in_parts(c):
    """The SDK's own way for what is large; the key must be allowed the whole of it."""
    text = c.direct.credentials(c.place, "json", "--config", c.direct.configuration(c.folder), "--tenant", "carol")
    key = json.loads(text)["credentials"]
    cos = c.cos(key["tmpSecretId"], key["tmpSecretKey"], key["sessionToken"])
    data = sample(3_000_000)
    (c.folder / "large").write_bytes(data)
    cos.upload_file(Bucket=BUCKET, Key=f"{c.prefix}large", LocalFilePath=str(c.folder / "large"), PartSize=1, MAXThread=2)
    expect_same(cos.get_object(Bucket=BUCKET, Key=f"{c.prefix}large")["Body"].get_raw_stream().read(), data)


@PYTHON.check
def sts_sdk(c):
    """The embedded STS takes qcloud-python-sts as Tencent's does."""
    from sts.sts import Sts

    config = {
        "url": f"{c.direct.sts}/",
        "domain": c.direct.sts.removeprefix("http://"),
        "secret_id": ACCOUNT.key_id,
        "secret_key": ACCOUNT.secret,
        "duration_seconds": 1800,
        "bucket": BUCKET,
        "region": REGION,
        "allow_prefix": [f"{c.prefix}*"],
        "allow_actions": ACTIONS,
    }
    expect_walked(c.walk_with(Sts(config).get_credential()), "with a key of qcloud-python-sts")
    try:
        Sts({**config, "secret_key": "guess"}).get_credential()
    except Exception as refusal:  # it raises nothing narrower
        expect("AuthFailure.SignatureFailure" in str(refusal), f"refused otherwise: {refusal}")
    else:
        expect(False, "a wrong secret got a key")


# Node: cos-nodejs-sdk-v5 and qcloud-cos-sts


class Node(Client):
    def __init__(self, place):
        super().__init__(place, "node")

    def walk(self, **how):
        task = {
            "Bucket": BUCKET,
            "Region": REGION,
            "cos": self.direct.cos,
            "inside": self.prefix,
            "outside": OUTSIDE,
            **how,
        }
        environment = {
            **self.place.environment(CAROL),
            "NODE_EXTRA_CA_CERTS": str(self.place.certificates / "ca.pem"),
        }
        argv = ["node", self.place.node_folder / "temporary-keys.mjs"]
        return json.loads(run(argv, environment, stdin=json.dumps(task).encode()))


NODE = Group("keys/node", Node)


@NODE.check
def credentials_as_sdk_json_in_node(c):
    expect_walked(c.walk(**{"from": "given", "key": c.sdk_key()}), "with --format json")


@NODE.check
def get_authorization_asks_cosgate(c):
    walk = c.walk(**{"from": "cosgate", "cosgate": c.place.endpoint, "id": CAROL.key_id, "secret": CAROL.secret})
    expect_walked(walk, "with a key of POST /.cosgate/credentials")
    # carol's own folder, but not what was requested.
    beside = c.walk(
        **{"from": "cosgate", "cosgate": c.place.endpoint, "id": CAROL.key_id, "secret": CAROL.secret},
        outside=f"{CAROL.prefix}beside/",
    )
    expect_walked(beside, "beside the prefix that was requested")


@NODE.check
def sts_sdk_in_node(c):
    statement = {
        "effect": "allow",
        "action": ACTIONS,
        "resource": [f"qcs::cos:{REGION}:uid/1250000000:{BUCKET}/{c.prefix}*"],
    }
    walk = c.walk(
        **{"from": "sts"},
        host=c.place.sts_behind_tls,
        secretId=ACCOUNT.key_id,
        secretKey=ACCOUNT.secret,
        policy={"version": "2.0", "statement": [statement]},
    )
    expect_walked(walk, "with a key of qcloud-cos-sts")


# boto3 and aws-cli, which find the keys themselves


class Aws(Client):
    def __init__(self, place):
        super().__init__(place, "aws")
        self.environment = {
            name: value
            for name, value in place.environment(CAROL).items()
            if name not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        }
        config = self.folder / "config"
        # COS's own address in the style that it demands, and no checksums that it does not know.
        config.write_text(
            "[default]\ns3 =\n    addressing_style = virtual\n"
            "request_checksum_calculation = when_required\nresponse_checksum_validation = when_required\n"
        )
        self.config = config
        self.environment |= {
            "AWS_CONFIG_FILE": str(config),
            "AWS_ENDPOINT_URL_S3": f"http://cos.{REGION}.myqcloud.com",
            "http_proxy": self.direct.cos,
            "no_proxy": "",
        }

    def walk(self, **variables):
        argv = [sys.executable, HERE / "walk_boto3.py", BUCKET, self.prefix, OUTSIDE]
        return json.loads(run(argv, {**self.environment, **variables}))

    def container(self, **variables):
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.place.endpoint}/.cosgate/credentials", **variables}

    def process(self):
        """The variables that have a profile with a `credential_process`."""
        command = [self.direct.program, "credentials", "--config", str(self.direct.configuration(self.folder))]
        line = f"credential_process = {' '.join(command)} --tenant carol --format aws-process\n"
        profiled = self.folder / "config-with-process"
        profiled.write_text(self.config.read_text() + line)
        return {
            "AWS_CONFIG_FILE": str(profiled),
            "TENCENTCLOUD_SECRET_ID": ACCOUNT.key_id,
            "TENCENTCLOUD_SECRET_KEY": ACCOUNT.secret,
        }


AWS = Group("keys/aws", Aws)


@AWS.check
def boto3_asks_the_container_endpoint(c):
    walk = c.walk(**c.container(AWS_CONTAINER_AUTHORIZATION_TOKEN=VEND_TOKEN))
    expect_walked(walk, "with AWS_CONTAINER_AUTHORIZATION_TOKEN")
    token = c.folder / "token"
    token.write_text(VEND_TOKEN)
    walk = c.walk(**c.container(AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token)))
    expect_walked(walk, "with AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")


@AWS.check
def boto3_with_a_wrong_token_has_no_key(c):
    argv = [sys.executable, HERE / "walk_boto3.py", BUCKET, c.prefix, OUTSIDE]
    variables = c.container(AWS_CONTAINER_AUTHORIZATION_TOKEN="somebody-else's-container-token")
    printed = run(argv, {**c.environment, **variables}, fails=True)
    expect("Received non 200 response 403" in printed, f"another end: {printed}")


@AWS.check
def boto3_runs_the_credential_process(c):
    expect_walked(c.walk(**c.process()), "with credential_process")


@AWS.check
def awscli_with_both(c):
    source = c.folder / "source"
    source.write_bytes(sample(50_000))
    for name, variables in (
        ("container", c.container(AWS_CONTAINER_AUTHORIZATION_TOKEN=VEND_TOKEN)),
        ("process", c.process()),
    ):
        environment = {**c.environment, **variables}
        url = f"s3://{BUCKET}/{c.prefix}{name}"
        run(["aws", "s3", "cp", source, url], environment)
        expect_same(run(["aws", "s3", "cp", url, "-"], environment), source.read_bytes(), name)
        printed = run(["aws", "s3", "cp", source, f"s3://{BUCKET}/{OUTSIDE}{name}"], environment, fails=True)
        expect("AccessDenied" in printed, f"refused otherwise: {printed}")


# coscmd


class Coscmd(Client):
    def __init__(self, place):
        super().__init__(place, "coscmd")
        self.environment = {**place.environment(CAROL), "http_proxy": self.direct.cos, "no_proxy": ""}
        self.configuration = self.folder / "cos.conf"
        text = self.scoped("coscmd")
        expect("schema = https\n" in text, "it says another scheme")
        self.configuration.write_text(text.replace("schema = https", "schema = http"))  # as the embedded COS speaks

    def __call__(self, *arguments, **more):
        return run(["coscmd", "-c", self.configuration, "-l", self.folder / "log", *arguments], self.environment, **more)


COSCMD = Group("keys/coscmd", Coscmd)


@COSCMD.check
def coscmd_with_its_configuration(c):
    up, down = c.folder / "up", c.folder / "down"
    up.write_bytes(sample(40_000))
    c("upload", up, f"{c.prefix}a b")
    c("download", f"{c.prefix}a b", down)
    expect_same(down.read_bytes(), up.read_bytes())
    expect("a b" in c("list", c.prefix).decode(), "it is not listed")
    c("delete", "-f", f"{c.prefix}a b")
    c("upload", up, f"{OUTSIDE}a b", fails=True)
    c("list", OUTSIDE, fails=True)


# Java: cos-sts_api and cos_api


class Java(Client):
    def __init__(self, place):
        super().__init__(place, "java")
        self.trust = self.folder / "trust.p12"
        authority = place.certificates / "ca.pem"
        options = ("-keystore", self.trust, "-storepass", "changeit", "-noprompt")
        run(["keytool", "-importcert", "-alias", "ca", "-file", authority, *options], place.environment(CAROL))

    def walks(self):
        key = self.sdk_key()["credentials"]
        environment = {
            **self.place.environment(CAROL),
            "ACTIONS": " ".join(ACTIONS),
            "BUCKET": BUCKET,
            "COS": self.direct.cos,
            "COSGATE": self.place.endpoint,
            "DOMAIN": VIRTUAL_DOMAIN,
            "INSIDE": self.prefix,
            "LOCAL_ID": CAROL.key_id,
            "LOCAL_SECRET": CAROL.secret,
            "OUTSIDE": OUTSIDE,
            "REGION": REGION,
            "SECRET_ID": ACCOUNT.key_id,
            "SECRET_KEY": ACCOUNT.secret,
            "SESSION_TOKEN": key["sessionToken"],
            "STS_HOST": self.place.sts_behind_tls,
            "TMP_SECRET_ID": key["tmpSecretId"],
            "TMP_SECRET_KEY": key["tmpSecretKey"],
        }
        trust = (f"-Djavax.net.ssl.trustStore={self.trust}", "-Djavax.net.ssl.trustStorePassword=changeit")
        java = self.place.java_folder
        argv = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", *trust, "-cp", f"{java}:{java}/lib/*", "TemporaryKeys"]
        return [json.loads(line) for line in run(argv, environment).decode().splitlines() if line.startswith("{")]


JAVA = Group("keys/java", Java)


@JAVA.check
def sts_client_and_cos_client(c):
    walks = c.walks()
    expect_equal(len(walks), 3, "walks")
    for seen, whose in zip(walks, ("CosStsClient's key", "a key of cosgate credentials", "a local key, through cosgate")):
        expect_walked(seen, whose)


GROUPS = [PYTHON, NODE, AWS, COSCMD]
JAVA_GROUPS = [JAVA]
