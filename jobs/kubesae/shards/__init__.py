"""The tar format: layout, writer, reader, codecs, index. Everything that touches a tar goes through here."""

from kubesae.shards.codecs import CODECS, Codec, Stored, codec
from kubesae.shards.flags import OUTLIER_RATIO, outlier_flags, position_flags
from kubesae.shards.index import BlockRef, blocks_of, layer_blocks, read_index, write_index
from kubesae.shards.layout import FIRST_POSITION, FLAGS, NORM_OUTLIER, SPECIAL_TOKEN, Document, PartTar
from kubesae.shards.moments import Moments
from kubesae.shards.reader import BlockData, parse_block, read_block
from kubesae.shards.tail import BlockTail, read_flags, read_row, read_tail
from kubesae.shards.writer import FinishedLayer, finish_layer

__all__ = [
    "CODECS",
    "FIRST_POSITION",
    "FLAGS",
    "NORM_OUTLIER",
    "OUTLIER_RATIO",
    "SPECIAL_TOKEN",
    "BlockData",
    "BlockRef",
    "BlockTail",
    "Codec",
    "Document",
    "FinishedLayer",
    "Moments",
    "PartTar",
    "Stored",
    "blocks_of",
    "codec",
    "finish_layer",
    "layer_blocks",
    "outlier_flags",
    "parse_block",
    "position_flags",
    "read_block",
    "read_flags",
    "read_index",
    "read_row",
    "read_tail",
    "write_index",
]
