"""Hadoop's S3A, the file system of Spark, Hive and Flink on S3 (`hadoop/HadoopS3a.java`)."""

import listings
import sizes
import with_fsspec
from harness import BUCKET, Group, expect_equal, expect_same, sample
from with_sdk import java_command, refused

RENAMED = ["part=1/a b+c 100%.parquet", "照片 2024/IMG_4000.heic", "_SUCCESS"]


def client(place):
    own = place.new_folder("hadoop-java")
    properties = {"java.io.tmpdir": own, "user.home": own}
    command = java_command(place, place.programs["hadoop"], "HadoopS3a", **properties)
    return with_fsspec.Client(place, "hadoop", command, ["buffer"])


FOLDERS = Group("hadoop/folders", client, uploads=True, needs="hadoop")
GROUPS = [
    with_fsspec.S3FS.also("hadoop", client, needs="hadoop"),
    FOLDERS,
    sizes.SIZES.also("hadoop/sizes", client, needs="hadoop"),
    listings.of("hadoop", client, needs="hadoop"),
]


@FOLDERS.check
def renames_a_folder(c):
    """As a job commits what it wrote: each file is copied and deleted."""
    for name in RENAMED:
        c.put(f"table/_temporary/0/{name}", sample(800, name))
    c("move", Key=c.key("table/_temporary/0"), to=c.key("table/dt=2026-01-01"))
    for name in RENAMED:
        expect_same(c.body(f"table/dt=2026-01-01/{name}"), sample(800, name), name)
    expect_equal(c("list", Prefix=c.key("table/_temporary")), [], "files at the old place")


@FOLDERS.check
def makes_and_removes_folders(c):
    c("make", Key=c.key("warehouse/empty"))
    expect_equal(c("exists", Key=c.key("warehouse/empty")), True, "the folder")
    expect_equal(c("walk", Prefix=c.key("warehouse")), [f"{BUCKET}/{c.key('warehouse/empty')}"], "the folder above")
    c.put("warehouse/full/photo-0001.jpg")
    c.remove_all(c.key("warehouse"))
    expect_equal(c("exists", Key=c.key("warehouse")), False, "the folder")


@FOLDERS.check
def keeps_a_file_that_is_there(c):
    c.put("once.txt", b"first")
    refused(lambda: c("put", Key=c.key("once.txt"), file=str(c.folder / "to-put"), overwrite="no"), "FileAlreadyExists")
    expect_same(c.body("once.txt"), b"first")
