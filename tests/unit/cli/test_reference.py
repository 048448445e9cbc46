"""The page of the commands says what the commands take."""

from pathlib import Path

from kubesae.cli.main import COMMANDS
from kubesae.cli.reference import commands_page

PAGE = Path(__file__).parents[3] / "docs" / "commands.md"


def test_the_page_is_the_commands():
    assert PAGE.read_text() == commands_page(COMMANDS), "run `kubesae config --commands > docs/commands.md`"


def test_every_command_has_its_flags():
    page = commands_page(COMMANDS)
    sections = dict(section.split("`\n", 1) for section in page.split("\n## `")[1:])
    assert sections.keys() == COMMANDS.keys()
    assert (
        "| `--architecture [relu\\|topk\\|batchtopk\\|matryoshka\\|jumprelu\\|gated]` | relu: ReLU + L1; topk: k "
        "features each token; batchtopk: k a token on average; matryoshka: batchtopk whose first features reconstruct "
        "by themselves; jumprelu: a trained threshold each feature; gated: a trained gate each feature  "
        "[default: relu] |" in sections["train"]
    )
    assert "```\ntorchrun --nproc_per_node=2 -m kubesae.train experiment.yaml\n```" in sections["train"]
