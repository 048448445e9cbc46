"""Objects under one prefix of a folder or an S3 bucket: create-only publish, sorted listings, ranged reads.

    from kubesae.store import open_store
    open_store("s3://bucket/experiments/one").create("runs/first.json", b"{}")

Nothing above this package knows where objects lie. Importing it loads neither torch nor an S3 client: the latter comes
with the first `s3://` store that is opened.
"""

from kubesae.store.opening import open_store
from kubesae.store.s3_settings import S3Settings
from kubesae.store.store import Buffer, ObjectInfo, OpenUpload, Store
from kubesae.store.tally import TALLY

__all__ = ["TALLY", "Buffer", "ObjectInfo", "OpenUpload", "S3Settings", "Store", "open_store"]
