"""An S3 server small enough to read, for what speaks to one: objects in a dict, on a free port.

Buckets need no making, signatures are not looked at. Enough of the protocol for pyarrow's client:
put (whole, in chunks with trailers, or in parts), get (ranges too), head, list, delete.
"""

import hashlib
import io
import re
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Store:
    """Objects by "bucket/key": (bytes, seconds since 1970)."""

    def __init__(self):
        self.objects, self.uploads, self.asked = {}, {}, []

    def put(self, name, data):
        self.objects[name] = (data, int(time.time()))

    def below(self, prefix):
        """The bytes of all objects below a prefix, by the rest of their names."""
        start = prefix.rstrip("/") + "/"
        return {
            name.removeprefix(start): data
            for name, (data, _) in self.objects.items()
            if name.startswith(start) and not name.endswith("/")
        }


def chunks(stream):
    """Of a body that comes as "size in hexadecimal; notes", then so many bytes, till size 0."""
    while size := int(stream.readline().split(b";")[0], 16):
        yield stream.read(size)
        stream.readline()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def store(self):
        return self.server.store

    def parse(self):
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        self.store.asked.append((self.command, parts.path))
        return unquote(parts.path).lstrip("/"), query

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self):
        self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")

    def body(self):
        data = self.raw_body()
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        return b"".join(chunks(io.BytesIO(data)))

    def raw_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b"".join(chunks(self.rfile))
        self.rfile.readline()
        return data

    def do_HEAD(self):
        name, _ = self.parse()
        if "/" not in name:
            self.answer(200)
        elif name not in self.store.objects:
            self.missing()
        else:
            data, changed = self.store.objects[name]
            self.answer(200, Content_Length=len(data), **self.facts(data, changed))

    def facts(self, data, changed):
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        return {"ETag": etag, "Last_Modified": formatdate(changed, usegmt=True)}

    def do_GET(self):
        name, query = self.parse()
        if "list-type" in query:
            self.list(name.rstrip("/"), query)
            return
        if name not in self.store.objects:
            self.missing()
            return
        data, changed = self.store.objects[name]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            self.answer(200, data, **self.facts(data, changed))
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        span = f"bytes {start}-{end}/{len(data)}"
        self.answer(206, data[start : end + 1], Content_Range=span, **self.facts(data, changed))

    def list(self, bucket, query):
        prefix, mark = f"{bucket}/{query.get('prefix', '')}", query.get("delimiter")
        keys, folders = [], set()
        for name, (data, changed) in sorted(self.store.objects.items()):
            if not name.startswith(prefix):
                continue
            rest = name.removeprefix(prefix)
            if mark and mark in rest:
                folders.add(prefix + rest.partition(mark)[0] + mark)
            else:
                keys.append((name, len(data), changed))
        found = [*keys, *((name, None, None) for name in sorted(folders))]
        start, most = int(query.get("continuation-token", 0)), int(query.get("max-keys", 1000))
        shown, more = found[start : start + most], len(found) > start + most
        body = f"<Name>{bucket}</Name><KeyCount>{len(shown)}</KeyCount>"
        body += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        if more:
            body += f"<NextContinuationToken>{start + most}</NextContinuationToken>"
        for name, size, changed in shown:
            key = escape(name.removeprefix(f"{bucket}/"))
            if size is None:
                body += f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"
            else:
                when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(changed))
                body += f"<Contents><Key>{key}</Key><Size>{size}</Size>"
                body += f"<LastModified>{when}</LastModified></Contents>"
        self.xml(f"<ListBucketResult>{body}</ListBucketResult>")

    def xml(self, text):
        self.answer(200, f'<?xml version="1.0"?>{text}'.encode(), Content_Type="application/xml")

    def do_PUT(self):
        (name, query), data = self.parse(), self.body()
        if "uploadId" in query:
            self.store.uploads[query["uploadId"]][int(query["partNumber"])] = data
        else:
            self.store.put(name, data)
        self.answer(200, ETag=f'"{hashlib.md5(data).hexdigest()}"')

    def do_POST(self):
        (name, query), data = self.parse(), self.body()
        if "uploads" in query:
            number = str(len(self.store.uploads))
            self.store.uploads[number] = {}
            self.xml(
                f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId>"
                "</InitiateMultipartUploadResult>"
            )
        elif "uploadId" in query:
            parts = self.store.uploads.pop(query["uploadId"])
            self.store.put(name, b"".join(parts[number] for number in sorted(parts)))
            self.xml("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
        else:  # delete several
            for key in re.findall(rb"<Key>(.*?)</Key>", data):
                self.store.objects.pop(f"{name.rstrip('/')}/{key.decode()}", None)
            self.xml("<DeleteResult></DeleteResult>")

    def do_DELETE(self):
        name, query = self.parse()
        if "uploadId" in query:
            self.store.uploads.pop(query["uploadId"], None)
        self.store.objects.pop(name, None)
        self.answer(204)


@contextmanager
def serving(monkeypatch):
    """A `Store` that answers where the environment says that S3 is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.store = Store()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
