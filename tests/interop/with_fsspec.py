"""Python's file systems on S3: s3fs on aiobotocore, and pyarrow's on the AWS SDK for C++ (`fsspec/filesystems.py`)."""

from pathlib import Path

import listings
import sizes
import with_sdk
from harness import BUCKET, PART, Group, expect_equal, expect_same, sample
from with_sdk import refused

PROGRAM = Path(__file__).parent / "fsspec" / "filesystems.py"


class Client(with_sdk.Client):
    def put(self, name, data=b"content"):
        super().put(name, data)

    def listings(self, prefix):
        found = self("list", Prefix=prefix)
        yield "all below a folder", [path.removeprefix(f"{BUCKET}/") for path in found]

    def remove_all(self, prefix):
        self("remove", Prefix=prefix)


def client(name):
    return lambda place: Client(place, name, [f"{place.programs['fsspec']}/bin/python", PROGRAM, name], ["buffer"])


S3FS = Group("s3fs", client("s3fs"), uploads=True, needs="fsspec")
PYARROW = S3FS.also("pyarrow", client("pyarrow"))
GROUPS = [
    one
    for group in (S3FS, PYARROW)
    for one in (
        group,
        sizes.SIZES.also(f"{group.name}/sizes", group.client, needs="fsspec"),
        listings.of(group.name, group.client, needs="fsspec"),
    )
]

NAMES = ["photo-0001.jpg", "照片 2024/IMG_4000.heic", "part=1/a b+c 100%.parquet", "it's [final].txt"]


@S3FS.check
def natural_names(c):
    for name in NAMES:
        c.put(f"files/{name}", sample(700, name))
        expect_same(c.body(f"files/{name}"), sample(700, name), name)


@S3FS.check
def looks_around(c):
    """From the bucket down, as a notebook shows it."""
    c.put("around/photo-0001.jpg")
    c.put("around/2024/photo-0002.jpg")
    expect_equal(c("walk"), [f"{BUCKET}/alice"], "the bucket")
    folder = f"{BUCKET}/{c.key('around')}"
    expect_equal(c("walk", Prefix=c.key("around")), [f"{folder}/2024", f"{folder}/photo-0001.jpg"], "the folder")


@S3FS.check
def moves_a_file(c):
    c.put("照片 2024 (100%).heic", b"moved")
    c("move", Key=c.key("照片 2024 (100%).heic"), to=c.key("2025/it's moved.heic"))
    expect_same(c.body("2025/it's moved.heic"), b"moved")
    refused(lambda: c.body("照片 2024 (100%).heic"), "FileNotFound")


@S3FS.check
def reads_by_parts(c):
    data = sample(3 * PART + 7)
    c.put_by_parts("table.parquet", data)
    expect_same(c.body("table.parquet"), data)


@S3FS.check
def fenced(c):
    source = c.folder / "to-put"
    source.write_bytes(b"x")
    for way in (
        lambda: c("put", Key="bob/fenced", file=str(source)),
        lambda: c("get", Key="bob/treasure", file=str(c.folder / "stolen")),
        lambda: c("list", Prefix="bob/"),
    ):
        refused(way, "")
