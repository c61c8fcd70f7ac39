"""The examples of the documentation: every code block marked `interop` on a page runs as it is written, in order."""

import re

from harness import ALICE, Group, expect, run

PAGES = [
    "browser-uploads",
    "clients/aws-cli-boto3",
    "clients/javascript",
    "clients/minio-py",
    "clients/rclone",
    "clients/restic",
    "clients/s3cmd-s5cmd",
    "clients/tencent",
]
BLOCK = re.compile(r"^```(sh|python|js) interop\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTED_PORT = re.compile(r"\b9000\b")


class Client:
    def __init__(self, place):
        self.place = place
        self.folder = place.new_folder("documents")
        # The pages set the keys themselves.
        self.environment = {
            name: value for name, value in place.environment(ALICE).items() if not name.startswith("AWS_")
        }
        self.environment["AWS_EC2_METADATA_DISABLED"] = "true"

    def run_page(self, page):
        text = (self.place.documents / f"{page}.md").read_text()
        blocks = BLOCK.findall(text)
        expect(blocks, f"{page}.md has no block marked interop")
        folder = self.folder / page.replace("/", "-")
        folder.mkdir()
        script = "\n".join(self.shell(number, *block) for number, block in enumerate(blocks))
        script = DOCUMENTED_PORT.sub(str(self.place.port), script)
        run(["bash", "-euo", "pipefail", "-c", f"cd '{folder}'\n{script}"], self.environment)

    def shell(self, number, language, code):
        """A block as lines of a shell script, so that what one exports the next one sees."""
        if language == "sh":
            return code
        if language == "python":
            return f"python3 - <<'END_OF_BLOCK'\n{code}END_OF_BLOCK"
        # Node looks for packages beside the file, not in the working folder.
        file = f"{self.place.node_folder.resolve()}/documents-{self.place.port}-{number}.mjs"
        return f"cat >{file} <<'END_OF_BLOCK'\n{code}END_OF_BLOCK\ntrap 'rm -f {file}' EXIT\nnode {file}"


DOCUMENTS = Group("documents", Client)
GROUPS = [DOCUMENTS]


def page_check(page):
    def check(client):
        client.run_page(page)

    check.__name__ = page.rsplit("/", 1)[-1].replace("-", "_")
    return DOCUMENTS.check(check)


for page in PAGES:
    page_check(page)
