"""s3fs-fuse: a folder of the bucket as one of this machine. It needs /dev/fuse and the right to mount."""

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import ALICE, BUCKET, REGION, Group, expect, expect_equal, expect_same, run, sample


class Client:
    def __init__(self, place):
        self.place = place
        self.folder = place.new_folder("s3fs-fuse")
        self.own = self.mounted(f"{BUCKET}:/alice") / self.folder.name

    def mounted(self, what):
        keys = self.folder / "keys"
        keys.write_text(f"{ALICE.key_id}:{ALICE.secret}\n")
        keys.chmod(0o600)
        # Not below a folder that is emptied at the end: what is in the mount are the objects.
        mount = Path(tempfile.mkdtemp(prefix="cosgate-interop-mount-"))
        options = [f"passwd_file={keys}", f"url={self.place.endpoint}", f"endpoint={REGION}", "use_path_request_style"]
        run(["s3fs", what, mount, "-o", ",".join(options)], self.place.environment(ALICE))
        atexit.register(unmount, mount)
        expect(os.path.ismount(mount), "it is not mounted")
        return mount


def unmount(mount):
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["fusermount", "-u", "-z", mount], capture_output=True, timeout=10)
        mount.rmdir()


FUSE = Group("s3fs-fuse", Client, needs="s3fs-fuse")
GROUPS = [FUSE]


@FUSE.check
def files_are_written_and_read(c):
    c.own.mkdir()
    files = {"photo-0001.jpg": 70_000, "照片 2024 (100%).heic": 1, "empty": 0, "disk.img": 21 << 20}
    for name, size in files.items():
        data = sample(size, name)
        (c.own / name).write_bytes(data)
        expect_same((c.own / name).read_bytes(), data, name)
    expect_equal(sorted(os.listdir(c.own)), sorted(files), "files")


@FUSE.check
def folders_are_renamed_and_removed(c):
    tree = c.own / "2024"
    tree.mkdir(parents=True)
    (tree / "a.txt").write_bytes(b"a")
    tree.rename(c.own / "2025")
    expect_same((c.own / "2025" / "a.txt").read_bytes(), b"a")
    shutil.rmtree(c.own / "2025")
    expect(not (c.own / "2025").exists(), "the folder is left")


@FUSE.check
def the_whole_bucket_shows_the_own_folder_alone(c):
    mount = c.mounted(BUCKET)
    expect_equal(os.listdir(mount), ["alice"], "the bucket")
    for act in (lambda: (mount / "bob" / "fenced").write_bytes(b"x"), lambda: (mount / "bob" / "treasure").read_bytes()):
        try:
            act()
        except OSError:
            continue
        expect(False, "bob's folder is open")


@FUSE.check
def the_whole_bucket_is_written_below_the_own_folder(c):
    own = c.mounted(BUCKET) / "alice" / c.place.new_folder("s3fs-fuse-whole").name
    own.mkdir()
    for name, size in {"photo-0001.jpg": 70_000, "照片 2024 (100%).heic": 6 << 20}.items():
        data = sample(size, name)
        (own / name).write_bytes(data)
        expect_same((own / name).read_bytes(), data, name)
    (own / "photo-0001.jpg").rename(own / "a b.jpg")
    expect_equal(sorted(os.listdir(own)), ["a b.jpg", "照片 2024 (100%).heic"], "files")
    shutil.rmtree(own)
    expect(not own.exists(), "the folder is left")
