"""The page of an SAE's features: static files in the bucket, read by range; a local server for it; one file to send."""

from kubesae.browse.page import write_page
from kubesae.browse.serve import LOOPBACK, PageServer
from kubesae.browse.single import MOST, choose, require_page, write_single

__all__ = ["LOOPBACK", "MOST", "PageServer", "choose", "require_page", "write_page", "write_single"]
