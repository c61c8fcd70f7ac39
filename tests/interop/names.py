"""2500 natural object names, the same in every run, and a tree of files with them.

They are of the kinds that cameras, log rotation, data lakes, backup tools, offices and web builds write. Most have a `.`
between letters or digits, some a `%`, words such as `token` and `secret`, an APPID or the name of COS's hosts: all that a
proxy might take for something else when it stands in a listing's token or marker.
"""

import hashlib
import os
import time
import unicodedata

COUNT = 2500
# Together with any prefix that a client puts before it, at most the 850 bytes that COS takes.
LONGEST = 800


def digits(*seed):
    """32 hexadecimal digits."""
    return hashlib.sha256(repr(seed).encode()).hexdigest()[:32]


def uuid(*seed):
    text = digits(*seed)
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]])


def day(number, separator="/"):
    return f"2026{separator}{number % 12 + 1:02}{separator}{number % 28 + 1:02}"


# How many of a kind, and its name number N.
FILE_KINDS = [
    (300, lambda n: f"photos/{day(n)[:7]}/IMG_{4000 + n}.{['JPG', 'heic', 'mp4', 'MOV', 'PNG'][n % 5]}"),
    (400, lambda n: f"{day(n)}/app.log.{n}.gz"),
    (150, lambda n: f"logs/nginx/access.log-{day(n, '')}-{n:05}.gz"),
    (350, lambda n: f"warehouse/db.db/dt={day(n, '-')}/hour={n % 24:02}/part-{n:05}-{uuid(n)}.c000.snappy.parquet"),
    (50, lambda n: f"warehouse/db.db/events/metadata/{n:05}-{uuid('metadata', n)}.metadata.json"),
    (200, lambda n: f"照片/{2020 + n % 7}年/{n % 12 + 1}月/微信图片_{day(n, '')}{n:06}.jpg"),
    (60, lambda n: f"文档/合同（终稿）/第{n + 1}版 - 张三 & 李四.docx"),
    (60, lambda n: f"restic/data/{digits(n)[:2]}/{digits(n)}{digits('more', n)}"),
    (40, lambda n: f"npm/@scope/pkg-{n}/-/pkg-{n}-0.{n}.0.tgz"),
    (40, lambda n: f"pypi/some_pkg-{n}.0.post1+cpu-cp311-abi3-manylinux_2_28_x86_64.whl"),
    (40, lambda n: f"web/static/js/main.{digits('web', n)[:8]}.chunk.js.map"),
    (40, lambda n: f"Users/Jörg Müller/Desktop/Übersicht {n} [final] (copy {n}).xlsx"),
    (40, lambda n: f"email/inbox/{n}.<CAF{digits('mail', n)[:10]}@mail.example.com>.eml"),
    (40, lambda n: f"export/report 100% {n}+{n} = {2 * n}; draft, v1.{n}.csv"),
    (30, lambda n: f"encoded/a%20b%2Fc%25{n}.txt"),
    (30, lambda n: f"tokens/token.v{n}.secret.signature.json"),
    (30, lambda n: f"akid-1250000000/cos.ap-guangzhou.myqcloud.com/{n}.bin"),
    (20, lambda n: f"plus+and space/ {n} leading and trailing "),
    (20, lambda n: f"questions/q{n}?x=1&y=2#z"),
    (20, lambda n: f"quotes/it's \"quoted\" {n}.txt"),
    (10, lambda n: f"markup/a&amp;b <Key>{n}<!-- ]]>.xml"),
    (10, lambda n: f"brackets/{{a}}[b]<c>|d^e`f {n}"),
    (10, lambda n: f"back\\slash\\path {n}.txt"),
    (10, lambda n: f"stars/*.{n}!~$HOME:%41"),
    (10, lambda n: f"..almost/...{n}..../a..b"),
    (10, lambda n: f".hidden/.git{n}/config"),
    (10, lambda n: f"emoji/🎉🚀{n}.webp"),
    (10, lambda n: f"عربي/ملف {n}.pdf"),
    # The same letters composed and decomposed: two names.
    (10, lambda n: unicodedata.normalize(["NFC", "NFD"][n % 2], f"forms/Ångström-é-{n // 2}.txt")),
    # Some tools write aside, under a longer name.
    (4, lambda n: f"long/{n}{'深' * 80}/{'x' * 240}.d/{'y' * 220}.tar.gz"),
]
# What no path of a file is: with an empty segment, a `/` at the end, or a segment of more than 255 bytes.
KEY_KINDS = [
    (20, lambda n: f"folder-{n}/"),
    (10, lambda n: f"empty//segments///c{n}.txt"),
    (4, lambda n: f"long-segment/{n}.{'深' * 250}"),
]


def made(kinds):
    return [name(number) for count, name in kinds for number in range(count)]


def sorted_keys(names):
    """In the order in which S3 lists: by the bytes of UTF-8."""
    return sorted(names, key=str.encode)


OTHERS = made(FILE_KINDS)
FILES = sorted_keys([*OTHERS, *(f"photo-{number:04}.jpg" for number in range(COUNT - len(OTHERS)))])
KEYS = sorted_keys(made(KEY_KINDS))
assert len(set(FILES)) == COUNT and max(len(name.encode()) for name in [*FILES, *KEYS]) <= LONGEST


def content(name):
    """Different for each name, and small."""
    return b"" if name.endswith("/") else f"{digits(name)}\n".encode()


def write_tree(folder, some):
    """A file of each name. S3 tells whole seconds, so all are an hour old: none is newer than its object."""
    an_hour_ago = time.time() - 3600
    for name in some:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))
        os.utime(path, (an_hour_ago, an_hour_ago))
