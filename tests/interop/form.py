"""A form with a file as browsers send it: multipart/form-data (RFC 7578), the file last."""

import secrets

from harness import fetch


def post(url, fields, data, filename="file.bin", content_type="application/octet-stream"):
    """POSTs `data` with the form's fields: status, headers and body of the response."""
    boundary = f"----cosgate{secrets.token_hex(8)}"
    lines = []
    for name, value in fields.items():
        lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"', "", value]
    lines += [
        f"--{boundary}",
        f'Content-Disposition: form-data; name="file"; filename="{filename}"',
        f"Content-Type: {content_type}",
        "",
        "",
    ]
    body = "\r\n".join(lines).encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return fetch(url, "POST", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
