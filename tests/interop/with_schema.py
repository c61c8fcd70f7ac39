"""The JSON schema of the configuration: a validator that editors use takes every documented file, and refuses mistakes."""

import json
import re
import tomllib
from pathlib import Path

from jsonschema import Draft7Validator

from harness import Group, expect, run

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```toml check\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GRANT = '[[tenants.a.grants]]\nname = "photos"\nbucket = "b-1"\nregion = "ap-guangzhou"\n'
MISTAKES = [
    '[server]\nlisten = 9000\n',
    '[server]\nlistne = "127.0.0.1:9000"\n',
    '[servers]\n',
    '[server]\nthreads = 0\n',
    '[server]\nstrict_region = "yes"\n',
    '[server.limits]\nhead_timeout = 10\n',
    '[server.limits]\nhead_timeout = "10 seconds"\n',
    '[server.limits]\nhead_bytes = "16KB"\n',
    '[upstream]\nsignature = "v4"\n',
    '[issuers.main]\nkind = "federated"\n',
    '[issuers.main]\nkind = "static"\nduration = "2h"\n',
    '[issuers."a b"]\nkind = "federation"\n',
    '[tenants.a]\naccess_keys = "KEY"\n',
    '[tenants.a]\naccess_keys = [{ key = "KEY" }]\n',
    GRANT + 'prefixes = "a/*"\n',
    GRANT + 'prefix = ["a/*"]\n',
]


class Client:
    def __init__(self, place):
        schema = json.loads(run([place.direct.program, "schema"], {}))
        Draft7Validator.check_schema(schema)
        self.validator = Draft7Validator(schema)

    def mistakes(self, text):
        return [f"{error.json_path}: {error.message}" for error in self.validator.iter_errors(tomllib.loads(text))]


SCHEMA = Group("schema", Client)
GROUPS = [SCHEMA]


@SCHEMA.check
def documented_files_are_valid(c):
    texts = {path: path.read_text() for path in (ROOT / "config").glob("*.toml")}
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        texts |= {(page, number): text for number, text in enumerate(BLOCK.findall(page.read_text()))}
    expect(len(texts) >= 4, f"only {len(texts)} files were found")
    for name, text in texts.items():
        found = c.mistakes(text)
        expect(not found, f"{name}: {found}")


@SCHEMA.check
def mistakes_are_found(c):
    for text in MISTAKES:
        expect(c.mistakes(text), f"nothing wrong was found in {text}")
