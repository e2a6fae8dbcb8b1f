"""What deploys the page: checked as far as that goes without the services that would run it."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from typer.main import get_command

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "deploy" / "space"
# https://huggingface.co/docs/hub/spaces-config-reference
KEYS = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "python_version", "sdk_version",
    "suggested_hardware", "suggested_storage", "app_file", "app_port", "base_path", "fullWidth",
    "header", "short_description", "models", "datasets", "tags", "thumbnail", "pinned", "license",
    "hf_oauth", "disable_embedding", "startup_duration_timeout", "custom_headers", "preload_from_hub",
}  # fmt: skip
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions():
    """(instruction, arguments) of the Dockerfile, lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def given(name):
    return [arguments for instruction, arguments in instructions() if instruction == name]


def command(text):
    """The words of an instruction's JSON form, from which no shell is started."""
    return json.loads(text)


def options():
    from nbdt.demo.command import app

    return {name for option in get_command(app).params for name in option.opts}


# ---- the image ----


def test_every_file_that_the_image_copies_is_there_and_not_ignored():
    sources = [part for text in given("COPY") for part in shlex.split(text)[:-1]]
    assert sources
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source
    assert {line[1:] for line in ignored if line.startswith("!")} == set(sources)


def test_the_image_holds_every_folder_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    copied = {part for text in given("COPY") for part in shlex.split(text)[:-1]}
    assert folders | {"README.md", "LICENSE", "pyproject.toml"} <= copied


def test_the_image_is_pinned_and_not_run_as_root():
    (base,) = given("FROM")
    assert re.fullmatch(r"python:3\.1[1-3]\S*", base)
    installs = [text for text in given("RUN") if "pip install" in text]
    assert all("-c constraints.txt" in text for text in installs)
    extras = re.search(r"\.\[([\w,]+)\]", installs[-1])[1].split(",")
    assert set(extras) <= PROJECT["optional-dependencies"].keys()
    order = [instruction for instruction, _ in instructions()]
    (user,) = given("USER")
    assert user != "root"
    assert order.index("USER") > max(i for i, name in enumerate(order) if name == "RUN")
    for volume in given("VOLUME"):
        assert any(f"chown {user}:{user} {volume}" in text for text in given("RUN"))


def test_the_images_command_is_one_that_exists():
    from nbdt.__main__ import COMMANDS

    assert list(map(command, given("ENTRYPOINT"))) == [["nbdt"]]
    (words,) = map(command, given("CMD"))
    assert words[0] in COMMANDS
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    assert flags.keys() <= options()
    assert given("EXPOSE") == [flags["--port"]]
    assert flags["--store"].startswith(tuple(f"{volume}/" for volume in given("VOLUME")))


def test_the_health_check_is_python_that_asks_the_right_address(monkeypatch):
    (text,) = given("HEALTHCHECK")
    words = command(text[text.index("[") :])
    assert words[1] == "-c"
    asked = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: asked.append(url))
    exec(compile(words[2], "HEALTHCHECK", "exec"), {})
    assert asked == [f"http://127.0.0.1:{given('EXPOSE')[0]}/health"]


# ---- the Space ----


def test_the_spaces_header_is_what_spaces_read():
    _, header, text = (SPACE / "README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(header)
    assert found.keys() <= KEYS
    assert {"title", "emoji", "sdk", "app_file"} <= found.keys()
    assert {found["colorFrom"], found["colorTo"]} <= COLOURS
    assert len(found["short_description"]) <= 60
    assert (SPACE / found["app_file"]).is_file()
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    assert (found["sdk"], found["sdk_version"]) == ("gradio", pins["gradio"])
    assert Version(found["python_version"]) in SpecifierSet(PROJECT["requires-python"])
    assert text.strip()


def test_the_spaces_requirements_are_the_projects():
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if not line.startswith("-")]
    declared = {Requirement(line).name: Requirement(line) for line in PROJECT["dependencies"]}
    for requirement in wanted[:-1]:
        assert requirement.specifier == declared[requirement.name].specifier
    assert wanted[-1].name == PROJECT["name"]
    assert wanted[-1].extras <= PROJECT["optional-dependencies"].keys()


def test_the_spaces_command_follows_its_variables(monkeypatch, tmp_path):
    scope = {"__name__": "space"}
    exec(compile((SPACE / "app.py").read_text(), "app.py", "exec"), scope)
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "NBDT_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NBDT_MODEL", "someone/model")
    scope["KEPT"] = os.fspath(tmp_path / "none")
    words = scope["arguments"]()
    assert words[:5] == ["demo", "--host", "0.0.0.0", "--port", "7860"]
    assert words[5:] == ["--store", "none", "--model", "someone/model"]
    scope["KEPT"] = os.fspath(tmp_path)
    assert f"{tmp_path}/corrections.sqlite" in scope["arguments"]()
    assert {word for word in words if word.startswith("--")} <= options()


@pytest.mark.slow
def test_the_space_starts_and_says_that_it_is_well():
    server = subprocess.Popen(
        [sys.executable, "app.py"], cwd=SPACE, stdout=subprocess.PIPE, text=True,
        env={
            **os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": "0",
            "NBDT_MODEL": "cifar10", "NBDT_USER": "",
        },
    )  # fmt: skip
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0]
        for _ in range(1200):
            assert server.poll() is None, "it ended"
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                    found = json.load(answer)
                break
            except OSError:
                time.sleep(0.1)
        assert found["status"] == "ok"
        assert found["model"] == "cifar10"
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()
