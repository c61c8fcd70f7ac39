"""s3fs (on aiobotocore) and pyarrow's S3FileSystem (on the AWS SDK for C++) with default settings. The argument says which.

Reads tasks from standard input, one JSON object a line, and writes a line for each: {"done": …} or {"refused": …}.
"""

import json
import os
import shutil
import sys

ENDPOINT = os.environ["ENDPOINT"]


class S3Fs:
    def __init__(self):
        import s3fs

        self.fs = s3fs.S3FileSystem(endpoint_url=ENDPOINT, use_listings_cache=False)

    def put(self, path, file):
        with open(file, "rb") as source:
            self.fs.pipe_file(path, source.read())

    def upload(self, path, file, part):
        self.fs.put_file(file, path, chunksize=part)

    def get(self, path, file):
        self.fs.get_file(path, file)

    def list(self, path):
        return self.fs.find(path)

    def walk(self, path):
        """As a person looks around: folder by folder."""
        return sorted(item["name"] for item in self.fs.ls(path, detail=True))

    def move(self, path, to):
        self.fs.mv(path, to)

    def remove(self, path):
        self.fs.rm(path, recursive=True)


class PyArrow:
    def __init__(self):
        from pyarrow import fs

        scheme, authority = ENDPOINT.split("://")
        trust = {"tls_ca_file_path": os.environ["SSL_CERT_FILE"]} if scheme == "https" else {}
        self.arrow = fs
        self.fs = fs.S3FileSystem(endpoint_override=authority, scheme=scheme, region=os.environ["AWS_REGION"], **trust)

    def put(self, path, file):
        with open(file, "rb") as source, self.fs.open_output_stream(path) as target:
            target.write(source.read())

    def upload(self, path, file, part):
        with open(file, "rb") as source, self.fs.open_output_stream(path, buffer_size=part) as target:
            shutil.copyfileobj(source, target, part)

    def get(self, path, file):
        with self.fs.open_input_file(path) as source, open(file, "wb") as target:
            shutil.copyfileobj(source, target)

    def list(self, path):
        found = self.fs.get_file_info(self.arrow.FileSelector(path, recursive=True, allow_not_found=True))
        return [item.path for item in found if item.type == self.arrow.FileType.File]

    def walk(self, path):
        return sorted(item.path for item in self.fs.get_file_info(self.arrow.FileSelector(path)))

    def move(self, path, to):
        self.fs.move(path, to)

    def remove(self, path):
        self.fs.delete_dir(path)


def done(fs, way, Bucket, Key="", Prefix="", to="", file=None, partSize=None, **_):
    path = f"{Bucket}/{Key}"
    match way:
        case "put":
            return fs.put(path, file)
        case "upload":
            return fs.upload(path, file, partSize)
        case "get":
            return fs.get(path, file)
        case "move":
            return fs.move(path, f"{Bucket}/{to}")
        case "list" | "walk" | "remove":
            return getattr(fs, way)(f"{Bucket}/{Prefix}".rstrip("/"))
    raise ValueError(f"no way {way}")


if __name__ == "__main__":
    FS = {"s3fs": S3Fs, "pyarrow": PyArrow}[sys.argv[1]]()
    for line in sys.stdin:
        try:
            result = {"done": done(FS, **json.loads(line))}
        except Exception as error:  # whatever the client raises is a finding
            result = {"refused": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)
