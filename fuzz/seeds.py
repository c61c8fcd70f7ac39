"""Writes the first inputs of every fuzzer, out of the test vectors: python3 fuzz/seeds.py corpus"""

import base64
import json
import pathlib
import sys
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
# Longer ones would only slow the fuzzer down.
LONGEST = 4096

DOCUMENTS = [
    "<Delete><Quiet>true</Quiet><Object><Key>a&amp;b</Key><VersionId>v</VersionId></Object></Delete>",
    '<?xml version="1.0" encoding="UTF-8"?><Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Object><Key><![CDATA[<k>]]></Key></Object></Delete>",
    "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;e&quot;</ETag>"
    "<ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>",
    "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>",
]
SOURCES = ["photos/k", "/photos/a%20b%2Fc?versionId=v%2F1", "photos%2F%E4%B8%AD", "photos/a+b", "photos/a/%2e%2e/b"]


def vectors(name):
    return json.loads((ROOT / "tests" / "vectors" / name).read_text())


def aws_chunked():
    """A plan, a seed of the pieces, a length, a body: see fuzz_targets/aws_chunked.rs."""
    chunked = vectors("aws-chunked.json")
    for case in chunked["cases"] + chunked["negative_cases"]:
        headers = {name.lower(): value for name, value in case["headers"]}
        body = base64.b64decode(case["encoded_base64"])
        trailer = headers.get("x-amz-trailer")
        if trailer:
            body = body.replace(trailer.encode(), b"x-amz-checksum-any")
        plan = 2 if "HMAC" in case["mode"] else 1 if trailer else 0
        length = int(headers["x-amz-decoded-content-length"])
        if length < 65536:
            yield bytes([plan, 7]) + length.to_bytes(2, "little") + body
    for plan in (3, 4, 5):
        for size, of in ((1, b"abc"), (7, b"an object in a few chunks"), (4096, b"")):
            yield bytes([plan, 7]) + size.to_bytes(2, "little") + b"\1\5\0" + of


def requests():
    sigv4 = vectors("sigv4.json")
    for case in sigv4["cases"] + sigv4["client_captures"]:
        headers = {name.lower(): value for name, value in case["headers"]}
        yield urllib.parse.urlsplit(case["url"]), headers, case.get("expected", {})


def authorization():
    for url, headers, expected in requests():
        signed = expected.get("authorization") or headers.get("authorization") or ""
        yield f"{signed}\n{url.query}".encode()


def target():
    for url, _, _ in requests():
        yield url.path.encode()
        yield f"{url.path}?{url.query}".encode()


def query():
    for url, _, _ in requests():
        yield url.query.encode()


def copy_source():
    return (source.encode() for source in SOURCES)


def delete_xml():
    return (document.encode() for document in DOCUMENTS)


def header_block():
    """GET, https, a path in three forms; the last from the dynamic table, which one field has entered."""
    huffman = bytes.fromhex("9262b9ce93a18aed8e831189c689ffea5b0737")
    plain = b"\x18/photos/public/hash#frag"
    for path in (plain, huffman):
        yield b"\x82\x87\x44" + path + b"\xbe\x04" + path
        yield b"\x82\x87\x40\x05:path" + path + b"\x3e\x7e" + path


def post_form():
    """A seed of the pieces, a body: see fuzz_targets/post_form.rs."""
    policies = vectors("post-policy.json")
    for case in policies["bodies"]:
        boundary = case["content_type"].split("boundary=")[1].strip('"').encode()
        yield b"\7" + base64.b64decode(case["body_base64"]).replace(boundary, b"b0undary")
    for case in policies["cases"]:
        fields = "".join(
            f'--b0undary\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in case["fields"]
        )
        file = 'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\nfile'
        yield f"\7{fields}--b0undary\r\n{file}\r\n--b0undary--\r\n".encode()


def proxy_header():
    start = b"\r\n\r\n\0\r\nQUIT\n"
    v4 = bytes([192, 0, 2, 7, 198, 51, 100, 1, 0x1F, 0x90, 1, 0xBB])
    yield b"PROXY TCP4 192.0.2.7 198.51.100.1 8080 443\r\n"
    yield b"PROXY TCP6 2001:db8::7 ::1 8080 443\r\n"
    yield b"PROXY UNKNOWN a b c d\r\n"
    for command, family, block in (
        (0x21, 0x11, v4),
        (0x21, 0x11, v4 + b"\4\0\1x" + b"\3\0\4\0\0\0\0"),
        (0x21, 0x21, bytes(36)),
        (0x21, 0x31, bytes(216)),
        (0x21, 0, b"x"),
        (0x20, 0, b""),
    ):
        yield start + bytes([command, family]) + len(block).to_bytes(2, "big") + block


def config():
    return (file.read_bytes() for file in sorted((ROOT / "config").glob("*.toml")))


def main(corpus):
    every = (aws_chunked, authorization, config, copy_source, delete_xml, header_block, post_form, proxy_header, query, target)
    for inputs in every:
        folder = pathlib.Path(corpus) / inputs.__name__
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs()):
            if len(data) <= LONGEST or inputs is config:
                (folder / f"seed-{number:03}").write_bytes(data)


if __name__ == "__main__":
    main(sys.argv[1])
