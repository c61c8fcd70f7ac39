"""The algorithms that `ChecksumAlgorithm` may name, computed as AWS's own runtime does."""

import base64
import hashlib

from awscrt import checksums

ALGORITHMS = {
    "CRC32": lambda data: checksums.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: checksums.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: checksums.crc64nvme(data).to_bytes(8, "big"),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


def xxhash(new):
    def digest(data):
        state = new()
        state.update(data)
        return state.finalize()

    return digest


# Newer ones, which not every client has.
NEWER = {
    "SHA512": lambda data: hashlib.sha512(data).digest(),
    "XXHASH64": xxhash(checksums.XXHash.new_xxhash64),
    "XXHASH3": xxhash(checksums.XXHash.new_xxhash3_64),
    "XXHASH128": xxhash(checksums.XXHash.new_xxhash3_128),
}
# Those that botocore has as a field, but does not compute.
GIVEN = {"MD5": lambda data: hashlib.md5(data).digest()}


def checksum_of(algorithm, data):
    """As `x-amz-checksum-…` has it."""
    return base64.b64encode({**ALGORITHMS, **NEWER, **GIVEN}[algorithm](data)).decode()
