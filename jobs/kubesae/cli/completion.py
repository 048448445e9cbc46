"""`kubesae completion`: the script by which a shell completes commands, flags, their values and file names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_KUBESAE_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands, flags, their values and file names.

    \b
    bash:  echo 'eval "$(kubesae completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(kubesae completion zsh)"' >> ~/.zshrc
    fish:  kubesae completion fish > ~/.config/fish/completions/kubesae.fish
    """  # noqa: D301 - \b keeps click from joining the lines
    completion = get_completion_class(shell)
    if completion is not None:
        click.echo(completion(context.find_root().command, {}, "kubesae", VARIABLE).source())
