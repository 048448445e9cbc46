"""The page of an SAE's features: static files in the bucket, read by range; a local server for it; one file to send.

`kubesae.browse.page.write_page` writes it, with pyarrow; what is here reads what was written, and needs no such thing.
"""

from kubesae.browse.serve import LOOPBACK, PageServer
from kubesae.browse.single import MOST, choose, require_page, write_single

__all__ = ["LOOPBACK", "MOST", "PageServer", "choose", "require_page", "write_single"]
