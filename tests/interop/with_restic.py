"""restic: a repository of backups, written, checked to the last byte, restored and pruned."""

import json

from harness import (
    ALICE,
    BUCKET,
    PART,
    REGION,
    Group,
    expect,
    expect_equal,
    expect_same_tree,
    run,
    sample,
    write_odd_tree,
)


class Client:
    def __init__(self, place):
        self.folder = place.new_folder("restic")
        self.environment = {**place.environment(ALICE), "RESTIC_PASSWORD": "only-for-this-check"}
        self.base = ["restic", "--no-cache", "--repo", f"s3:{place.endpoint}/{BUCKET}/{ALICE.prefix}{self.folder.name}"]
        self.base += ["-o", f"s3.region={REGION}"]
        if place.tls:
            self.base += ["--cacert", place.authority_file]
        self.tree = self.folder / "tree"
        write_odd_tree(self.tree)
        (self.tree / "big").write_bytes(sample(4 * PART))

    def __call__(self, *arguments, **more):
        return run([*self.base, *arguments], self.environment, **more)

    def snapshots(self):
        return len(json.loads(self("snapshots", "--json")))


RESTIC = Group("restic", Client, uploads=True)
GROUPS = [RESTIC]


@RESTIC.check
def init_backup_and_check(c):
    c("init")
    c("backup", c.tree)
    c("check", "--read-data")


@RESTIC.check
def restore(c):
    c("restore", "latest", "--target", c.folder / "back")
    expect_same_tree(c.folder / "back" / c.tree.relative_to("/"), c.tree)


@RESTIC.check
def forget_and_prune(c):
    (c.tree / "big").write_bytes(sample(PART, "second"))
    c("backup", c.tree)
    expect_equal(c.snapshots(), 2, "snapshots")
    c("forget", "--keep-last", "1", "--prune")
    expect_equal(c.snapshots(), 1, "snapshots left")
    c("check", "--read-data")


@RESTIC.check
def fenced(c):
    outside = [*c.base[:3], c.base[3].replace(ALICE.prefix, "bob/"), *c.base[4:]]
    printed = run([*outside, "init"], c.environment, fails=True)
    # restic prints the message without the code
    expect("outside the prefixes" in printed, f"not refused as outside the prefix: {printed}")
