"""The examples of the documentation: every code block marked `interop` on a page runs as it is written, in order.

One marked `interop PROGRAM` needs a program that `run` sets up; a page of such blocks runs once for each program.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from harness import ALICE, Group, run

ROOT = Path(__file__).resolve().parents[2]
GO_MODULE = Path(__file__).parent / "go"
RUST_PACKAGE = Path(__file__).parent / "rust"
BLOCK = re.compile(r"^```(sh|python|js|go|java|rust) interop ?([\w-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {page: found for page in PAGES if (found := BLOCK.findall(page.read_text()))}
DOCUMENTED_PORT = re.compile(r"\b9000\b")
COMMANDS = {"mc": "mc", "s3fs-fuse": "s3fs"}  # programs that pages call by a name


class Client:
    def __init__(self, place):
        self.place = place
        self.folder = place.new_folder("documents")
        # The pages set the keys themselves.
        self.environment = {
            name: value for name, value in place.environment(ALICE).items() if not name.startswith("AWS_")
        }
        self.environment["AWS_EC2_METADATA_DISABLED"] = "true"
        if place.direct:
            self.give("cosgate", Path(place.direct.program).resolve())
        for name in COMMANDS.keys() & place.programs.keys():
            self.give(COMMANDS[name], shutil.which(place.programs[name]))
        if "go-sdk" in place.programs:
            # The modules and the objects that `run` has there already.
            printed = subprocess.run(["go", "env", "GOMODCACHE", "GOCACHE"], capture_output=True, check=True, text=True)
            self.environment |= zip(("GOMODCACHE", "GOCACHE"), printed.stdout.split())
        if "rust-sdk" in place.programs:
            # The crates and the toolchain that `run` has there already.
            for name, folder in (("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")):
                self.environment[name] = os.environ.get(name, str(Path.home() / folder))

    def give(self, command, program):
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        (programs / command).symlink_to(program)
        self.environment["PATH"] = f"{programs}{os.pathsep}{self.environment['PATH']}"

    def run_page(self, page, program):
        folder = self.folder / page.stem
        folder.mkdir()
        shutil.copy(ROOT / "README.md", folder)
        blocks = [block for block in BLOCKS[page] if block[1] in ("", program)]
        script = "\n".join(self.shell(number, *block) for number, block in enumerate(blocks))
        script = DOCUMENTED_PORT.sub(str(self.place.port), script)
        try:
            run(["bash", "-euo", "pipefail", "-c", f"cd '{folder}'\n{script}"], self.environment)
        finally:
            for mount in filter(os.path.ismount, folder.iterdir()):
                subprocess.run(["fusermount", "-u", "-z", mount], capture_output=True, timeout=10)

    def shell(self, number, language, program, code):
        """A block as lines of a shell script, so that what one exports the next one sees."""
        if language == "sh":
            return code
        given = self.place.programs.get(program)
        if language == "python":
            python = f"'{given}/bin/python'" if given else "python3"
            return f"{python} - {here_document(code)}"
        if language == "go":
            folder = f"go-{number}"
            return f"mkdir {folder}\ncp '{GO_MODULE}'/go.* {folder}\ncat >{folder}/main.go {here_document(code)}\n(cd {folder}; go run .)"
        if language == "java":
            return f"cat >Example.java {here_document(code)}\njava -cp '{given}/lib/*' Example.java"
        if language == "rust":
            return rust_program(f"rust-{number}", Path(given).parents[1], code)
        # Node looks for packages beside the file, not in the working folder.
        file = f"{self.place.node_folder.resolve()}/documents-{self.place.port}-{number}.mjs"
        return f"cat >{file} {here_document(code)}\ntrap 'rm -f {file}' EXIT\nnode {file}"


def rust_program(folder, target, code):
    """A package of its own, with the dependencies that `run` has compiled in `target`."""
    return f"""mkdir -p {folder}/src
sed s/cosgate-interop-rust/documents/ '{RUST_PACKAGE}/Cargo.toml' >{folder}/Cargo.toml
sed s/cosgate-interop-rust/documents/ '{RUST_PACKAGE}/Cargo.lock' >{folder}/Cargo.lock
cp '{ROOT}/rust-toolchain.toml' {folder}
cat >{folder}/src/main.rs {here_document(code)}
(cd {folder}; CARGO_TARGET_DIR='{target}' cargo run --locked --offline --quiet)"""


def here_document(code):
    return f"<<'END_OF_BLOCK'\n{code}END_OF_BLOCK"


def page_check(page, program):
    def check(client):
        client.run_page(page, program)

    check.__name__ = page.stem.lower().replace("-", "_")
    return check


def all_groups():
    groups = {}
    for page, blocks in BLOCKS.items():
        for program in sorted({program for _, program, _ in blocks if program}) or [""]:
            name = f"documents/{program}" if program else "documents"
            group = groups.setdefault(name, Group(name, Client, needs=program or None))
            group.check(page_check(page, program))
    return [*groups.values()]


GROUPS = all_groups()
