"""`kubesae reason`."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import check_share, choose_sae, experiment_options, overrides, resolve, share_options
from kubesae.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.reason import Bench

SECONDS_BETWEEN_LINES = 10.0
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@click.command("reason")
@experiment_options("model", "collect.engine", "collect.device")
@share_options("the problems")
@click.option("--sae-name", help="which SAE (default: the experiment's, or the only one there is)")
@click.option("--text", help="show the features that are active in this text, token by token")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="features of a token (--text)")
@click.option("--problems", type=click.Path(path_type=Path, dir_okay=False), help="solve the problems of a jsonl file")
@click.option("--name", help="what their results are called  [default: the file's name]")
@click.option("--limit", type=click.IntRange(1), help="the first so many problems only")
@click.option("--instruction", help="what is said after each problem  [default: to solve it step by step, in a box]")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="problems of one forward pass")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="tokens of an answer")
@click.option(
    "--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0: always the likeliest token"
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of all that is drawn")
@click.option("--tested", type=click.IntRange(1), default=10, show_default=True, help="features of a ranking to test")
@click.option("--texts", type=click.IntRange(2), default=32, show_default=True, help="ordinary texts for injection")
@click.option(
    "--paraphrased", type=click.IntRange(1), default=50, show_default=True, help="held-out problems to say otherwise"
)
@click.option(
    "--intervene", type=click.Choice(["ablate", "clamp", "scale", "add"]), help="change a feature's activation"
)
@click.option("--feature", type=click.IntRange(0), help="which feature (--intervene)")
@click.option("--value", type=float, help="to what, by what factor, or by how much (clamp, scale, add)")
@click.option("--controls", type=click.IntRange(1), default=2, show_default=True, help="random controls of each kind")
@click.option("--json", "as_json", is_flag=True, help="print the results as JSON")
def command(
    experiment: Path | None,
    index: int | None,
    of: int | None,
    sae_name: str | None,
    text: str | None,
    problems: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Features while the model reasons: in a text, or over problems that it solves.

    --text prints the features that are most active on each token. --problems solves the problems of a file in the shape
    of GSM8K or MATH, keeps the sparse codes of every generated token, ranks features (reasoning against ordinary text,
    right against wrong answers), and sets beside each ranking what could refute it. --intervene edits one feature
    meanwhile, beside controls. Killed and started again, it goes on where it was.
    """
    given = {name: flags.pop(name) for name in list(flags) if not name.startswith("field_")}
    resolved = resolve(experiment, overrides(flags))
    share = check_share(index, of)
    _check(text, problems, given)
    from kubesae.reason import Bench, check_feature  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    data, output = open_store(resolved.data), open_store(resolved.output_prefix)
    bench = Bench.open(resolved, data, output, choose_sae(resolved, sae_name))
    if (edit := _edit(given)) is not None:
        check_feature(bench, edit)  # before hours are spent on problems
    if text is not None:
        _text(bench, text, given, str(experiment or resolved.data), as_json=as_json)
    if problems is not None:
        _problems(bench, problems, given, share, as_json=as_json)


def _check(text: str | None, problems: Path | None, given: dict[str, Any]) -> None:
    """Raise ConfigError where flags do not go together."""
    if (text is None) == (problems is None):
        raise ConfigError("What is there to look at? Give either --text, or --problems with a jsonl file.")
    kind, feature, value = (given[name] for name in ("intervene", "feature", "value"))
    if kind is None and (feature is not None or value is not None):
        raise ConfigError("--feature and --value say what to change: give --intervene too.")
    if kind is not None and feature is None:
        raise ConfigError(f"--intervene {kind} needs --feature, the number of the one to change.")
    if kind is not None and (value is None) != (kind == "ablate"):
        raise ConfigError("--value says to what (clamp), by what factor (scale) or by how much (add); ablate has none.")
    if value is not None and not math.isfinite(value):
        raise ConfigError(f"--value is {value}: give a finite number.")
    name = given["name"]
    if problems is not None and not _NAME.fullmatch(name or _default_name(problems)):
        raise ConfigError(f"{name or problems.stem!r} is no name: give --name of small letters, digits and dashes.")


def _default_name(problems: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", problems.stem.lower()).strip("-")


def _text(bench: Bench, text: str, given: dict[str, Any], experiment: str, *, as_json: bool) -> None:
    from kubesae.reason import NO_LABELS, intervene_on_text, intervention_lines, look, look_lines  # noqa: PLC0415

    tokens = look(bench, text, given["top"])
    edit = _edit(given)
    result = None if edit is None else intervene_on_text(bench, text, edit, given["controls"], given["seed"])
    if as_json:
        click.echo(json.dumps({"tokens": tokens, "intervention": result}, ensure_ascii=False))
        return
    for line in look_lines(tokens):
        say(line)
    if bench.labels() is None:
        say(NO_LABELS.format(experiment=experiment))
    if result is not None:
        for line in intervention_lines(result):
            say(line)


def _problems(bench: Bench, problems: Path, given: dict[str, Any], share: tuple[int, int], *, as_json: bool) -> None:
    from kubesae.reason import Asked, intervene, intervention_lines, reason, summary_lines  # noqa: PLC0415

    settings = {
        name: given[name] for name in ("limit", "batch", "temperature", "seed", "tested", "texts", "paraphrased")
    }
    if given["instruction"] is not None:
        settings["instruction"] = given["instruction"]
    name = given["name"] or _default_name(problems)
    asked = Asked(problems=problems, name=name, most=given["max_tokens"], **settings)
    tell = (lambda _line: None) if as_json else say
    summary = reason(bench, asked, share, _progress(tell), tell)
    if summary is None:
        say(f"Worker {share[0]} of {share[1]} has solved its problems. Others have not: whoever is last goes on")
        return
    edit = _edit(given)
    result = None if edit is None else intervene(bench, asked, edit, given["controls"])
    if as_json:
        click.echo(json.dumps(summary.model_dump(mode="json") | {"intervention": result}, ensure_ascii=False))
        return
    for line in summary_lines(summary):
        say(line)
    if result is not None:
        say("")
        for line in intervention_lines(result):
            say(line)
    where = f"reason/{bench.named.name}/{name}/index.html"
    say("")
    say(f"Page: {bench.output.url_of(where)}")


def _edit(given: dict[str, Any]) -> Any:
    from kubesae.reason import Edit  # noqa: PLC0415

    if given["intervene"] is None:
        return None
    return Edit(given["intervene"], given["feature"], given["value"] or 0.0)


def _progress(tell: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return what says at times how far the problems are."""
    said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > SECONDS_BETWEEN_LINES or done == total:
            said = time.monotonic()
            tell(f"Solved {done:,} / {total:,} problems")

    return progress
