"""A page of another origin in headless Chromium: the SDKs of AWS and Tencent, Uppy, presigned URLs, forms, images."""

import base64
import hashlib
import json
import queue
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness import (
    ALICE,
    BUCKET,
    COMMAND_SECONDS,
    PART,
    REGION,
    Group,
    Tenant,
    expect,
    expect_equal,
    run,
)
from with_boto3 import connect
from with_browser import browser

CAROL = Tenant("carol/", "COSGATEDEMOCAROL0001", "cosgate-demo-carol-secret-00000000000000")
CAROLS_BUCKET = "demo-1250000000"
SIZE = 2 * PART + 1
# Chromium itself knows that names under localhost are this machine; no rule of `cosgate dev` names this one.
STRANGER = "stranger.localhost"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def sample(size):
    """As page.mjs makes it."""
    return bytes((i * 31 + (i >> 8) * 7 + (i >> 16)) & 255 for i in range(size))


class Site(ThreadingHTTPServer):
    """A site with one page, which takes a step and tells what came of it."""

    daemon_threads = True

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Page)
        self.script = script
        self.task = {}
        self.results = queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        files = {
            "/": ("text/html", f'<!doctype html><meta charset="utf-8"><title>page</title><script>window.task = '
                  f'{json.dumps(self.server.task)}</script><script type="module" src="/page.js"></script>'),
            "/page.js": ("text/javascript", self.server.script),
        }
        kind, text = files.get(self.path, ("text/plain", ""))
        self.respond(200 if text else 404, kind, text)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.respond(204, "text/plain", "")
        self.server.results.put(json.loads(body))

    def respond(self, status, kind, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Client:
    def __init__(self, place):
        self.place = place
        self.s3 = connect(place.endpoint, ALICE)
        self.folder = place.new_folder("cors")
        self.name = f"{self.folder.name}/"
        self.log = self.folder / "browser.log"
        self.environment = place.environment(ALICE)
        bundle = self.folder / "page.js"
        bundler = place.node_folder / "node_modules/.bin/esbuild"
        source = place.node_folder / "page.mjs"
        run([bundler, source, "--bundle", "--format=esm", "--log-level=error", f"--outfile={bundle}"], self.environment)
        self.site = Site(bundle.read_text())

    def key(self, name):
        return f"{ALICE.prefix}{self.name}{name}"

    def step(self, step, task, host="127.0.0.1"):
        """What came of it when a page of `host` took the step."""
        self.site.task = {"step": step, **task}
        with self.browser(f"http://{host}:{self.site.server_port}/"):
            try:
                result = self.site.results.get(timeout=COMMAND_SECONDS)
            except queue.Empty:
                printed = self.log.read_text(errors="replace")
                expect(False, f"the page reported nothing\n{printed[-2000:]}")
        expect("error" not in result, f"{step}: {result.get('error')}")
        return result["result"]

    @contextmanager
    def browser(self, url):
        command = [*browser(self.place, self.folder / "profile"), "--remote-debugging-port=0", url]
        with self.log.open("wb") as log:
            process = subprocess.Popen(list(map(str, command)), env=self.environment, stdout=log, stderr=log)
            try:
                yield
            finally:
                process.kill()
                process.wait()

    def sdk(self, tenant, bucket):
        return {
            "endpoint": self.place.endpoint,
            "authority": self.place.authority,
            "scheme": self.place.scheme,
            "region": REGION,
            "bucket": bucket,
            "prefix": f"{tenant.prefix}{self.name}",
            "id": tenant.key_id,
            "secret": tenant.secret,
            "size": SIZE,
        }

    def presigned(self, operation, key, **more):
        params = {"Bucket": BUCKET, "Key": self.key(key), **more}
        return self.s3.generate_presigned_url(operation, Params=params, ExpiresIn=600)

    def body(self, name):
        return self.s3.get_object(Bucket=BUCKET, Key=self.key(name))["Body"].read()


CORS = Group("cors", Client, uploads=True)
GROUPS = [CORS]


@CORS.check
def aws_sdk_v3(c):
    task = c.sdk(ALICE, BUCKET)
    result = c.step("sdk", task)
    expect_equal(result["text"], "a page", "text")
    expect_equal((result["colour"], result["range"]), ("blue", "bytes 5-10/11"), "metadata and range")
    expect_equal(result["errors"], ["NoSuchKey", "AccessDenied"], "errors")
    expect_equal(result["keys"], [f"{task['prefix']}sdk a+b 中.txt"], "keys")
    expect(result["etag"] and result["id"], f"no ETag or no request id was read: {result}")


@CORS.check
def aws_sdk_v3_multipart(c):
    result = c.step("sdk_multipart", c.sdk(ALICE, BUCKET))
    expect_equal(result["sha256"], hashlib.sha256(sample(SIZE)).hexdigest(), "SHA-256")


@CORS.check
def cos_js_sdk_v5(c):
    task = c.sdk(CAROL, CAROLS_BUCKET)
    result = c.step("cos", task)
    expect_equal((result["text"], result["colour"], result["none"]), ("from a page", "blue", 404), "what was read")
    expect_equal(result["keys"], [f"{task['prefix']}cos a+b 中.txt"], "keys")
    expect_equal(result["sha256"], hashlib.sha256(sample(SIZE)).hexdigest(), "SHA-256")
    expect(result["etag"], "no ETag was read")


@CORS.check
def uppy_multipart(c):
    result = c.step("uppy", c.sdk(ALICE, BUCKET))
    expect_equal((result["successful"], result["failed"]), (1, []), "uploads")
    expect(c.body("uppy/photo-0001.jpg") == sample(SIZE), "the object is another")


@CORS.check
def presigned_put_and_get(c):
    put = c.presigned("put_object", "photo 0001.jpg", ContentType="image/jpeg")
    get = c.presigned("get_object", "photo 0001.jpg")
    headers = {"Content-Type": "image/jpeg"}
    requests = [{"url": put, "method": "PUT", "headers": headers, "body": "jpeg"}, {"url": get}]
    stored, got = c.step("fetches", {"requests": requests})
    expect_equal((stored["status"], got["status"], got["text"]), (200, 200, "jpeg"), "responses")
    expect_equal(stored["headers"].get("etag"), got["headers"].get("etag"), "ETag")
    expect(got["headers"].get("x-amz-request-id"), f"no request id was read: {got}")


@CORS.check
def form_with_a_readable_response(c):
    created = {"success_action_status": "201"}
    form = c.s3.generate_presigned_post(BUCKET, c.key("${filename}"), Fields=created, Conditions=[created])
    refused = c.s3.generate_presigned_post(BUCKET, c.key("refused"), Conditions=[["content-length-range", 0, 1]])
    requests = [
        {"url": of["url"], "method": "POST", "form": of["fields"], "file": "from a page"} for of in (form, refused)
    ]
    posted, denied = c.step("fetches", {"requests": requests})
    expect_equal(posted["status"], 201, "status")
    expect(f"<Key>{c.key('a file.txt')}</Key>" in posted["text"], posted["text"])
    expect(posted["headers"].get("etag"), f"no ETag was read: {posted}")
    expect_equal((denied["status"], "EntityTooLarge" in denied["text"]), (400, True), "the refusal")
    expect_equal(c.body("a file.txt"), b"from a page", "what is stored")


@CORS.check
def images_of_the_anonymous_tenant(c):
    key = f"public/{c.name}pixel.png"
    connect(c.place.endpoint, None).put_object(Bucket=BUCKET, Key=key, Body=PIXEL, ContentType="image/png")
    url = f"{c.place.endpoint}/{BUCKET}/{key}"
    expect_equal(c.step("images", {"urls": [url]}), [1], "width of the image")
    requests = [{"url": url}, {"url": url, "method": "PUT", "body": "x"}]
    got, put = c.step("fetches", {"requests": requests})
    expect_equal((got["status"], put["status"]), (200, 403), "GET and PUT by a page")
    expect_equal(c.step("images", {"urls": [url]}, STRANGER), [0], "width of the image in a stranger's page")
    expect_equal(c.step("fetches", {"requests": requests[:1]}, STRANGER), [{"failed": "TypeError"}], "a stranger's GET")


@CORS.check
def a_strangers_page_reads_and_writes_nothing(c):
    put = c.presigned("put_object", "stranger")
    get = c.presigned("get_object", "stranger")
    c.s3.put_object(Bucket=BUCKET, Key=c.key("stranger"), Body=b"before")
    requests = [{"url": put, "method": "PUT", "body": "x"}, {"url": get}]
    seen = c.step("fetches", {"requests": requests}, STRANGER)
    expect_equal(seen, [{"failed": "TypeError"}] * 2, "what the page sees")
    expect_equal(c.body("stranger"), b"before", "what is stored")
