"""mc, MinIO's client, with an alias and nothing else."""

import json

import listings
import sizes
from harness import ALICE, BUCKET, ODD_FILE_NAMES, Group, expect, expect_equal, expect_same, expect_same_tree, fetch, run, sample, write_odd_tree


class Client:
    def __init__(self, place):
        self.folder = place.new_folder("mc")
        self.environment = place.environment(ALICE)
        self.base = [place.programs["mc"], "--config-dir", self.folder / "config", "--quiet", "--no-color"]
        self.prefix = f"{ALICE.prefix}{self.folder.name}/"
        self("alias", "set", "cos", place.endpoint, ALICE.key_id, ALICE.secret)

    def __call__(self, *arguments, **more):
        return run([*self.base, *arguments], self.environment, **more)

    def key(self, name):
        return self.prefix + name

    def at(self, name):
        return f"cos/{BUCKET}/{self.prefix}{name}"

    def put(self, name, data=b"content"):
        source = self.folder / "to-put"
        source.write_bytes(data)
        self("cp", source, self.at(name))

    def put_by_parts(self, name, data):
        self("pipe", self.at(name), stdin=data)

    def body(self, name):
        return self("cat", self.at(name))

    def listings(self, prefix):
        lines = self("ls", "--recursive", "--json", f"cos/{BUCKET}/{prefix}").decode().splitlines()
        yield "ls --recursive", [prefix + json.loads(line)["key"] for line in lines]

    def remove_all(self, prefix):
        self("rm", "--recursive", "--force", f"cos/{BUCKET}/{prefix}")


MC = Group("mc", Client, uploads=True, needs="mc")
GROUPS = [
    MC,
    sizes.SIZES.also("mc/sizes", Client, needs="mc"),
    listings.of("mc", Client, needs="mc"),
]


@MC.check
def copy_up_and_down(c):
    for name in ODD_FILE_NAMES:
        c.put(f"odd/{name}", sample(900, name))
        expect_same(c.body(f"odd/{name}"), sample(900, name), name)


@MC.check
def looks_around(c):
    """`ls` and `tree` from the bucket down show the way to the own folder."""
    c.put("around/photo-0001.jpg")
    printed = json.loads(c("ls", "--json", f"cos/{BUCKET}"))
    expect_equal(printed["key"], "alice/", "the bucket")
    expect("alice" in c("tree", f"cos/{BUCKET}").decode(), "tree does not show the folder")
    found = c("find", f"cos/{BUCKET}/{c.key('around')}").decode().split()
    expect_equal(found, [f"cos/{BUCKET}/{c.key('around/photo-0001.jpg')}"], "find")


@MC.check
def mirror_both_ways(c):
    tree, back = c.folder / "tree", c.folder / "tree.back"
    write_odd_tree(tree)
    c("mirror", tree, c.at("tree"))
    c("mirror", c.at("tree"), back)
    expect_same_tree(back, tree)
    expect_equal(c("diff", tree, c.at("tree")), b"", "differences")


@MC.check
def about_an_object(c):
    c.put("about.txt", b"about")
    printed = json.loads(c("stat", "--json", c.at("about.txt")))
    expect_equal(printed["size"], 5, "size")
    c("cp", c.at("about.txt"), c.at("copy of about.txt"))
    c("mv", c.at("copy of about.txt"), c.at("moved.txt"))
    expect_same(c.body("moved.txt"), b"about")


@MC.check
def shares_a_link(c):
    c.put("shared a+b.txt", b"shared")
    printed = json.loads(c("share", "download", "--json", "--expire", "1m", c.at("shared a+b.txt")))
    status, _, body = fetch(printed["share"])
    expect_equal(status, 200, f"status, body {body[:300]!r}")
    expect_same(body, b"shared")


@MC.check
def fenced(c):
    source = c.folder / "fenced"
    source.write_bytes(b"x")
    c("cp", source, f"cos/{BUCKET}/bob/fenced", fails=True)
    c("cat", f"cos/{BUCKET}/bob/treasure", fails=True)
    c("ls", f"cos/{BUCKET}/bob/", fails=True)
