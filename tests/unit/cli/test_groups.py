"""Options that several commands share, as dataclasses."""

from dataclasses import dataclass, fields
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from unrecall.cli.app import app
from unrecall.cli.groups import grouped
from unrecall.cli.options import OwnModel


@dataclass(frozen=True)
class Colours:
    """Which colours there are."""

    front: Annotated[str, typer.Option(help="that of letters")]
    back: Annotated[str | None, typer.Option("--behind", help="that of paper")] = None


def paint(colours: Colours, times: Annotated[int, typer.Option(min=1)] = 1) -> None:
    """Paints."""
    typer.echo(f"{colours} {times}")


def painted(*arguments: str) -> str:
    """What a command of one group says to these arguments."""
    one = typer.Typer()
    one.command()(grouped(paint))
    return CliRunner().invoke(one, arguments).output


def test_a_command_gets_the_group_whose_fields_are_its_options() -> None:
    assert painted("--front", "red") == "Colours(front='red', back=None) 1\n"
    assert painted("--behind", "white", "--times", "3", "--front", "red") == "Colours(front='red', back='white') 3\n"


def test_a_field_without_a_default_is_a_required_option() -> None:
    assert "Missing option '--front'" in painted()


def test_the_help_shows_a_group_in_a_panel_of_its_name() -> None:
    text = painted("--help")
    assert text.index("─ Options ─") < text.index("--times") < text.index("─ Which colours there are ─")
    assert text.index("─ Which colours there are ─") < text.index("--front") < text.index("--behind")


@pytest.mark.parametrize("command", ["run", "doctor", "unlearn", "audit", "bench"])
def test_each_command_that_needs_a_model_takes_all_options_of_ones_own(command: str) -> None:
    text = CliRunner().invoke(app, [command, "--help"]).output
    assert all(f"--{field.name} " in text for field in fields(OwnModel))
