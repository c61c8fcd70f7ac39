"""Headless Chromium posts a form, made by boto3, from a page of another site; it is sent back there afterwards. It shows the
status page, too."""

import html
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from harness import ALICE, BUCKET, PART, Group, expect, expect_equal, expect_same, run, sample
from with_boto3 import connect

PROGRAMS = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]
# The browser makes the file itself, from a line that it repeats, as a script of a page may.
LINE = "cosgate, \u00fc\u4e2d, \r\n--not-a-boundary\r\n"
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>form</title>
<form method="post" enctype="multipart/form-data" action="{action}">
{fields}
<input type="file" name="file">
</form>
<script>
const files = new DataTransfer();
files.items.add(new File([{line}.repeat({times})], "from a browser, ü+.txt", {{ type: "text/plain" }}));
document.querySelector("input[type=file]").files = files.files;
document.forms[0].submit();
</script>
"""


class Site(ThreadingHTTPServer):
    """A site with one page, which notes how the browser comes back to it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Page)
        self.page = ""
        self.came_back = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/back":
            self.server.came_back = {name: value for name, [value] in parse_qs(url.query).items()}
        known = {"/": self.server.page, "/back": "<!doctype html><title>back</title>thanks"}.get(url.path)
        self.send_response(404 if known is None else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write((known or "").encode())

    def log_message(self, *_):
        pass


def browser(place, profile):
    """The command of a browser; a URL is to follow."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    expect(program, f"none of {', '.join(PROGRAMS)} is installed")
    command = [
        program,
        "--headless",
        "--no-sandbox",  # which a container's root does not have
        "--disable-gpu",
        "--no-proxy-server",
        f"--user-data-dir={profile}",
    ]
    if place.tls:
        # Chromium reads no file of authorities: an option makes it trust this server's.
        command.append("--ignore-certificate-errors")
    return command


class Client:
    def __init__(self, place):
        self.s3 = connect(place.endpoint, ALICE)
        self.folder = place.new_folder("browser")
        self.prefix = f"{ALICE.prefix}{self.folder.name}/"
        self.environment = place.environment(ALICE)
        self.admin = place.admin
        self.site = Site()
        self.browse = [*browser(place, self.folder), "--virtual-time-budget=30000", "--dump-dom"]

    def key(self, name):
        return self.prefix + name

    def submit(self, form, times):
        """Opens the page that submits the form at once; returns the page on which the browser ends."""
        fields = "\n".join(
            f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
            for name, value in form["fields"].items()
        )
        self.site.page = PAGE.format(action=html.escape(form["url"]), fields=fields, line=json.dumps(LINE), times=times)
        self.site.came_back = None
        page = run([*self.browse, self.site.url("/")], self.environment).decode(errors="replace")
        return re.sub("(?s)<style.*?</style>", "", page)

    def body(self, name):
        return self.s3.get_object(Bucket=BUCKET, Key=self.key(name))["Body"].read()


BROWSER = Group("chromium", Client, uploads=True)
GROUPS = [BROWSER]


@BROWSER.check
def form_posted_and_sent_back(c):
    for times in (1, PART // 32):
        back = {"success_action_redirect": c.site.url("/back")}
        form = c.s3.generate_presigned_post(BUCKET, c.key("form/${filename}"), Fields=back, Conditions=[back])
        seen = c.submit(form, times)
        expect(c.site.came_back, f"the browser did not come back, but ended with {seen[:1000]}")
        key = c.key("form/from a browser, ü+.txt")
        expect_equal((c.site.came_back["bucket"], c.site.came_back["key"]), (BUCKET, key), "bucket and key sent back")
        head = c.s3.head_object(Bucket=BUCKET, Key=key)
        expect_equal(c.site.came_back["etag"], head["ETag"], "ETag sent back")
        expect_same(c.body("form/from a browser, ü+.txt"), LINE.encode() * times)


@BROWSER.check
def form_refused(c):
    """The browser shows S3's response, and nothing is stored."""
    form = c.s3.generate_presigned_post(BUCKET, c.key("refused"), Conditions=[["content-length-range", 0, 10]])
    seen = c.submit(form, 1)
    expect("EntityTooLarge" in seen, f"not refused as EntityTooLarge: {seen[:1000]}")
    listed = c.s3.list_objects_v2(Bucket=BUCKET, Prefix=c.key("refused"))
    expect_equal(listed["KeyCount"], 0, "keys stored")


@BROWSER.check
def status_page_draws_charts(c):
    """The script of the page runs under its Content-Security-Policy, and fills in what the server leaves out."""
    if not c.admin:
        return
    seen = run([*c.browse, f"{c.admin}/"], c.environment).decode(errors="replace")
    expect(re.search(r'id="live"[^>]*>live, ', seen), f"the page is not live: {seen[-1000:]}")
    expect('<path class="c0" d="M' in seen, "there is no chart")
    connections = re.search(r'id="n-connections">([0-9]+)<', seen)
    expect(connections, "the numbers are not filled in")
