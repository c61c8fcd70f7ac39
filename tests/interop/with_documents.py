"""The examples of the documentation: every code block marked `interop` on a page runs as it is written, in order."""

import re
import shutil
from pathlib import Path

from harness import ALICE, Group, run

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(sh|python|js) interop\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if BLOCK.search(page.read_text())]
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
        folder = self.folder / page.stem
        folder.mkdir()
        shutil.copy(ROOT / "README.md", folder)
        blocks = enumerate(BLOCK.findall(page.read_text()))
        script = "\n".join(self.shell(number, *block) for number, block in blocks)
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

    check.__name__ = page.stem.lower().replace("-", "_")
    return DOCUMENTS.check(check)


for page in PAGES:
    page_check(page)
