"""The embedded COS and STS alone, with clients that know nothing of cosgate: over TLS, appends, and versions."""

import atexit
import json
import logging
import random
import subprocess
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import SSLError

from harness import ALICE, REGION, Group, expect, expect_equal, expect_same, run, sample

KEYS = (Path(__file__).parents[1] / "vectors" / "keys.txt").read_text().splitlines()[::4]
FREE = "127.0.0.1:0"


class Client:
    def __init__(self, place):
        self.place = place
        command = ["emulator", "--json", "--path-style", "--tls", "--cos", FREE, "--sts", FREE, "--admin", FREE]
        emulator = subprocess.Popen([place.direct.program, *command], stdout=subprocess.PIPE, text=True)
        atexit.register(emulator.terminate)
        self.about = json.loads(emulator.stdout.readline())
        self.bucket = self.about["buckets"][0]["name"]
        self.s3 = self.boto3(self.about["ca_file"])

    def boto3(self, verify):
        return boto3.client(
            "s3",
            endpoint_url=self.about["cos"],
            region_name=REGION,
            aws_access_key_id=self.about["secret_id"],
            aws_secret_access_key=self.about["secret_key"],
            verify=verify,
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def cos(self):
        from qcloud_cos import CosConfig, CosS3Client

        logging.getLogger("qcloud_cos").setLevel(logging.CRITICAL)
        host, port = self.about["cos"].removeprefix("https://").split(":")
        keys = {"SecretId": self.about["secret_id"], "SecretKey": self.about["secret_key"]}
        config = CosConfig(Region=REGION, Scheme="https", IP=host, Port=int(port), VerifySSL=self.about["ca_file"], **keys)
        return CosS3Client(config, retry=0)

    def curl(self, listener, *arguments):
        address = self.about[listener].removeprefix("https://")
        trust = ["--cacert", self.about["ca_file"], "--connect-to", f"::{address}"]
        return run(["curl", "-sS", *trust, *arguments], self.place.environment(ALICE)).decode()


EMULATOR = Group("emulator", Client)
GROUPS = [EMULATOR]


@EMULATOR.check
def boto3_over_tls(c):
    content = sample(300_000)
    c.s3.put_object(Bucket=c.bucket, Key="k", Body=content)
    expect_same(c.s3.get_object(Bucket=c.bucket, Key="k")["Body"].read(), content)
    try:
        c.boto3(True).list_buckets()
    except SSLError:
        return
    expect(False, "boto3 trusts the certificate without its authority")


@EMULATOR.check
def curl_over_tls(c):
    refused = c.curl("cos", f"https://{c.bucket}.cos.{REGION}.myqcloud.com/k")
    expect("<Code>AccessDenied</Code>" in refused, refused)
    refused = c.curl("sts", "--data", "{}", "https://sts.tencentcloudapi.com/")
    expect("AuthFailure" in refused, refused)


@EMULATOR.check
def cos_sdk_appends(c):
    from qcloud_cos.cos_exception import CosServiceError

    cos, key, position = c.cos(), "logs/中文 +%.txt", 0
    for text in (b"one ", b"two ", b"three"):
        appended = cos.append_object(Bucket=c.bucket, Key=key, Position=position, Data=text)
        position = int(appended["x-cos-next-append-position"])
    content = cos.get_object(Bucket=c.bucket, Key=key)["Body"].get_raw_stream().read()
    expect_same(content, b"one two three")
    cos.put_object(Bucket=c.bucket, Key="normal", Body=b"x")
    for key, position, code in ((key, 3, "AppendPositionErr"), ("normal", 1, "ObjectNotAppendable")):
        try:
            cos.append_object(Bucket=c.bucket, Key=key, Position=position, Data=b"x")
        except CosServiceError as refusal:
            expect_equal((refusal.get_status_code(), refusal.get_error_code()), (409, code), key)
        else:
            expect(False, f"{key}: the append succeeded")


@EMULATOR.check
def boto3_pages_versions(c):
    c.cos().put_bucket_versioning(Bucket=c.bucket, Status="Enabled")
    chance, wanted = random.Random(1), set()
    for key in KEYS:
        history = []
        for _ in range(chance.randint(1, 4)):
            if history and chance.random() < 0.4:
                history.append(("DeleteMarkers", c.s3.delete_object(Bucket=c.bucket, Key=key)["VersionId"]))
            else:
                history.append(("Versions", c.s3.put_object(Bucket=c.bucket, Key=key, Body=b"x")["VersionId"]))
        newest = history[-1]
        wanted |= {(key, *entry, entry == newest) for entry in history}
    earlier = {"k", "normal", "logs/中文 +%.txt"}  # of the checks before
    for size in (3, 10, 1000):
        seen, last = set(), b""
        pages = c.s3.get_paginator("list_object_versions").paginate(Bucket=c.bucket, PaginationConfig={"PageSize": size})
        for page in pages:
            entries = [(kind, entry) for kind in ("Versions", "DeleteMarkers") for entry in page.get(kind, [])]
            expect(len(entries) <= size, f"{len(entries)} entries on a page of {size}")
            keys = sorted(entry["Key"].encode() for _, entry in entries)
            expect(last <= keys[0], f"pages of {size}: {keys[0]!r} comes after {last!r}")
            last = keys[-1]
            seen |= {(entry["Key"], kind, entry["VersionId"], entry["IsLatest"]) for kind, entry in entries}
        expect({one for one in seen if one[0] not in earlier} == wanted, f"pages of {size} have other entries")
