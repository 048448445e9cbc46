"""The page of an SAE's features: static files in the bucket, read by range; a local server for it; one file to send."""

from kubesae.browse.page import write_page



__all__ = ["write_page"]
