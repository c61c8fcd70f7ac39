"""Unmodified boto3, which finds keys, endpoint and proxy itself: `walk_boto3.py BUCKET INSIDE OUTSIDE` prints its walk."""

import json
import sys

import boto3
from botocore.exceptions import ClientError

bucket, inside, outside = sys.argv[1:]
s3 = boto3.client("s3")


def seen(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except ClientError as refusal:
        response = refusal.response
        return f"{response['ResponseMetadata']['HTTPStatusCode']} {response['Error']['Code']}"
    return "ok"


def get(key):
    if s3.get_object(Bucket=bucket, Key=key)["Body"].read() != b"content":
        sys.exit(f"{key} is not what was put")


walk = {}
for where, prefix in (("inside", inside), ("outside", outside)):
    key = f"{prefix}a b+中"
    walk[f"put {where}"] = seen(s3.put_object, Bucket=bucket, Key=key, Body=b"content")
    walk[f"get {where}"] = seen(get, key)
    walk[f"list {where}"] = seen(s3.list_objects_v2, Bucket=bucket, Prefix=prefix)
    walk[f"delete {where}"] = seen(s3.delete_object, Bucket=bucket, Key=key)
print(json.dumps(walk))
