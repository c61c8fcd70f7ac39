"""Unmodified S3 clients against a running `cosgate dev`; contents are compared by SHA-256.

Over TLS the checks of uploads run, over plain HTTP all of them.

One line a check: `ok`, `skip` with its reason, or `FAIL` with what was seen. Exit 3 if any failed: 1 is Python's own, for an error
that nobody caught.
"""

import argparse
import concurrent.futures
import fnmatch
import os
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

import fence
import other_grants
import temporary_keys
import with_awscli
import with_boto3
import with_browser
import with_cors
import with_cos_sdk
import with_documents
import with_emulator
import with_fsspec
import with_hadoop
import with_mc
import with_minio
import with_obstore
import with_rclone
import with_reloads
import with_restic
import with_s3cmd
import with_s3fs
import with_s5cmd
import with_schema
import with_sdk
import with_temporary_keys
from harness import CheckFailed, Place

# Longest first, so that the last one running is a short one.
GROUPS = [
    *with_awscli.GROUPS,
    *with_restic.GROUPS,
    *with_s3cmd.GROUPS,
    *with_rclone.GROUPS,
    *with_s5cmd.GROUPS,
    *with_boto3.GROUPS,
    *with_documents.GROUPS,
    *with_sdk.GROUPS,
    *with_browser.GROUPS,
    *with_cors.GROUPS,
    *with_cos_sdk.GROUPS,
    *with_minio.GROUPS,
    *with_obstore.GROUPS,
    *with_fsspec.GROUPS,
    *with_s3fs.GROUPS,
    *with_mc.GROUPS,
    *with_sdk.COMPILED_GROUPS,
    *with_hadoop.GROUPS,
    *fence.GROUPS,
]
AT_ONCE = 8
CHECKS_FAILED = 3

# What this version does not offer with `--signature cos`: check (a shell pattern, such as "s5cmd* rm_*") → why.
# Nothing at present: all that works with `--signature s3` must work here.
NOT_IN_COS = {}


def reason_to_skip(name, signature):
    if signature != "cos":
        return None
    for pattern, reason in NOT_IN_COS.items():
        if fnmatch.fnmatchcase(name, pattern):
            return reason
    return None


class Report:
    """Prints each outcome whole, whichever thread it comes from, and counts the failures."""

    def __init__(self, mode):
        self.mode = mode
        self.lock = threading.Lock()
        self.failed = 0

    def line(self, outcome, name, more=""):
        with self.lock:
            self.failed += outcome == "FAIL"
            print(f"{outcome:4} {self.mode} {name}{more}", flush=True)

    def failure(self, name, printed):
        self.line("FAIL", name, "".join(f"\n     | {line}" for line in printed.strip().splitlines()[-20:]))


def described(error):
    if isinstance(error, CheckFailed):
        return str(error)
    return "".join(traceback.format_exception(error))


def wanted_checks(group, args):
    """The checks of a group that this run is for: of a heavy one those that are named, or with `--all`."""
    if group.heavy and not args.all and args.only == "*":
        return []
    pattern = args.only if set("*?[ ") & set(args.only) else f"{args.only}*"
    return [check for check in group.checks if fnmatch.fnmatchcase(f"{group.name} {check.__name__}", pattern)]


def run_group(group, place, args, report):
    wanted = wanted_checks(group, args)
    if not wanted:
        return
    if group.needs and group.needs not in place.programs:
        report.line("skip", group.name, f": {args.lacking.get(group.needs, 'not set up')}")
        return
    try:
        client = group.client(place)
    except Exception as error:  # whatever a client raises is a finding
        report.failure(f"{group.name} (start)", described(error))
        return
    for check in wanted:
        name = f"{group.name} {check.__name__}"
        reason = reason_to_skip(name, args.signature)
        if reason and not args.no_skips:
            report.line("skip", name, f": {reason}")
            continue
        try:
            check(client)
        except Exception as error:  # the same
            report.failure(name, described(error))
        else:
            report.line("ok", name)


def timed(act, group, *arguments):
    began = time.monotonic()
    act(group, *arguments)
    return group.name, time.monotonic() - began


def direct(args):
    """What clients need that go to COS themselves."""
    if not args.cosgate:
        return {}
    files = args.certificates
    return {
        "certificates": files,
        "direct": temporary_keys.Direct(args.cosgate, args.cos, args.sts),
        "java_folder": args.java,
        "sts_behind_tls": temporary_keys.behind_tls(args.sts, files / "server.pem", files / "server.key"),
    }


def all_groups():
    return [
        *with_reloads.GROUPS,
        *GROUPS,
        *with_sdk.RUST_GROUPS,
        *other_grants.GROUPS,
        *with_schema.GROUPS,
        *with_emulator.GROUPS,
        *with_temporary_keys.GROUPS,
        *with_temporary_keys.JAVA_GROUPS,
    ]


def show(args):
    groups = [group for group in all_groups() if wanted_checks(group, args if args.needs else replaced(args, all=True))]
    if args.needs:
        print(*sorted({group.needs for group in groups if group.needs}))
        return 0
    for group in sorted(groups, key=lambda group: group.name):
        print(f"{group.name:24} {len(group.checks):3} checks  {'--all' if group.heavy else 'quick'}")
    return 0


def replaced(args, **other):
    return argparse.Namespace(**{**vars(args), **other})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", default="", help="http://127.0.0.1:PORT, or https")
    parser.add_argument("--authority", type=Path, help="over https: the PEM file of the authority to trust")
    parser.add_argument("--node", type=Path, help="folder with client.mjs and its packages")
    parser.add_argument("--signature", choices=["s3", "cos"], default="s3", help="what the proxy runs with")
    parser.add_argument("--cosgate", help="the program; without it nothing runs that needs its keys or COS itself")
    parser.add_argument("--admin", help="http://ADDRESS of the admin pages")
    parser.add_argument("--cos", help="http://ADDRESS of the embedded COS")
    parser.add_argument("--sts", help="http://ADDRESS of the embedded STS")
    parser.add_argument("--certificates", type=Path, help="the folder that `cosgate certs` made")
    parser.add_argument("--java", type=Path, help="folder with the class of java/; without it nothing runs that needs it")
    parser.add_argument("--only", default="*", help="a client, or a shell pattern of checks, such as 'boto3/path list_*'")
    parser.add_argument("--all", action="store_true", help="run the heavy groups, too")
    parser.add_argument("--no-skips", action="store_true", help="run what the table of skips names, too")
    parser.add_argument("--program", action="append", default=[], metavar="NAME=PATH", help="a program that groups need")
    parser.add_argument("--lacking", action="append", default=[], metavar="NAME=REASON", help="one that could not be set up")
    parser.add_argument("--list", action="store_true", help="print the groups, and run nothing")
    parser.add_argument("--needs", action="store_true", help="print the programs that this run needs, and run nothing")
    args = parser.parse_args()
    args.lacking = dict(one.split("=", 1) for one in args.lacking)
    if args.list or args.needs:
        return show(args)
    if not any(wanted_checks(group, args) for group in all_groups()):
        parser.error(f"no check is named {args.only!r}; see --list")

    with_boto3.resolve_localhost()
    # A browser's processes may write into their profile a moment longer than it runs.
    with tempfile.TemporaryDirectory(prefix="cosgate-interop-", ignore_cleanup_errors=True) as folder:
        place = Place(args.endpoint.rstrip("/"), Path(folder), args.authority, args.node, **direct(args))
        place = replace(place, admin=args.admin, signature=args.signature, programs=dict(one.split("=", 1) for one in args.program))
        os.environ.update(place.trust)  # for the clients that are Python's own
        groups = [*GROUPS, *with_sdk.RUST_GROUPS]
        if args.cosgate:
            groups = [*with_reloads.GROUPS, *groups, *other_grants.GROUPS, *with_schema.GROUPS]
        # What these do at COS is the same whatever the proxy's own signature.
        if args.cosgate and args.signature == "s3":
            groups += [*with_emulator.GROUPS, *with_temporary_keys.GROUPS]
            groups += with_temporary_keys.JAVA_GROUPS if args.java else []
        groups = [group for group in groups if group.uploads or not place.tls]
        report = Report(f"{args.signature}/{place.scheme}")
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            seconds = dict(pool.map(lambda group: timed(run_group, group, place, args, report), groups))
        slowest = sorted(seconds, key=seconds.get, reverse=True)[:8]
        print("slowest:", ", ".join(f"{name} {seconds[name]:.0f} s" for name in slowest), flush=True)
    return CHECKS_FAILED if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
