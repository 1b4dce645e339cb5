"""`nanotasks image`: the container image that agents run in."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from nanotasks.errors import NotFoundError
from nanotasks.ops.cli.output import say, show_one, show_result
from nanotasks.ops.cli.root import App
from nanotasks.settings import settings

app = App(help="The agents' container image. `nanotasks up` builds it by itself when Docker answers.")


def register(root: typer.Typer) -> None:
    """Add `image` to the command line."""
    root.add_typer(app, name="image")


@app.command("build")
def build_image(
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="IMAGE", help="The image to begin with; NANOTASKS_IMAGE_BASE if not given."),
    ] = None,
) -> None:
    """Build the image, saying each step. Needs a Docker daemon, and a registry or a local base image."""
    from nanotasks.runtimes import image
    from nanotasks.runtimes.docker_client import new_client

    config = settings()
    with contextlib.closing(new_client(config.container_start_timeout_s)) as client:
        built = image.build(client, config, say, base)
    row = {"image": f"nanotasks-agent-{config.install_id}:latest", "id": built}
    show_result(row, "image", f"Built {built}.")


@app.command("show")
def show_image() -> None:
    """Show the image that agents of this installation run in. Exits 3 when it is not built yet."""
    from nanotasks.runtimes import image
    from nanotasks.runtimes.docker_client import new_client

    config = settings()
    with contextlib.closing(new_client(config.container_start_timeout_s)) as client:
        name = image.image_name(config)
        labels = image.labels_of(client, name)
        if labels is None:
            raise NotFoundError(f"The image {name} is not there.", fix="Run `nanotasks image build`.")
        row = {
            "image": name,
            "base": labels.get(image.BASE_LABEL),
            "code": labels.get(image.CODE_LABEL),
            "up_to_date": image.is_current(client, config),
        }
    show_one(row)


@app.command("base")
def make_base() -> None:
    """Make a base image from this machine's Python, for a machine that reaches no image registry."""
    from nanotasks.runtimes.base_image import LOCAL_BASE, make_base_image
    from nanotasks.runtimes.docker_client import new_client

    with contextlib.closing(new_client(settings().container_start_timeout_s)) as client:
        made = make_base_image(client)
    row = {"image": LOCAL_BASE, "id": made}
    show_result(row, "image", f"Next: `nanotasks image build --base {LOCAL_BASE}`.")
