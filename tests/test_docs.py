"""Every command in README and guides runs, in the order of reading, in one folder a page."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tuning.analysis.terms import TERMS
from tuning.cli.main import app
from tuning.training import cli as lightning

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDES = [
    ROOT / "docs" / f"{name}.md"
    for name in (
        "hyperparameter_tuning",
        "config_system",
        "tuning_results",
        "transfer_learning",
        "lightning_studio_setup",
        "qwen3_token_analysis",
    )
]
PAGES = [README, *GUIDES]


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    # A command that calls wandb in this process takes it away, for all tests after it.
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return tmp_path


def run_commands(page: Path) -> None:
    for command in commands(page):
        program, *arguments = shlex.split(command)
        if arguments[:2] == ["-m", "tuning.training.cli"]:
            assert lightning.main(arguments[2:]) == 0, command
            continue
        assert program == "tuning"
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, f"{command}\n{done.output}"
        assert done.output.strip(), command


FEW_WORDS = {"num_words": 12, "num_monitor_words": 3, "num_generated_items": 3}
FEW_TRIALS = {"step_scale": 0.003, "num_trials": 2, "replicates_of_default": 1}
SIZED = (
    "configs/hyperparameters/evaluation/fast.yaml",
    "configs/hyperparameters/search_spaces/quick.yaml",
    "examples/near_best.yaml",
    "examples/learning_rate.yaml",
)
"""The files that say how long trials of a page are, and how much they are asked."""


@pytest.fixture
def quick_checkout(checkout: Path) -> None:
    """Have trials be short and asked few words."""
    for path in (checkout / name for name in SIZED):
        content = yaml.safe_load(path.read_text("utf-8"))
        content.get("experiment", content)["evaluation_config"] = FEW_WORDS
        for key, value in FEW_TRIALS.items():
            if key in content:
                content[key] = value
        path.write_text(yaml.safe_dump(content), "utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_checkout")
def test_commands_of_the_readme_run_in_the_order_of_reading() -> None:
    run_commands(README)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_checkout", "warm_studies")
@pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.stem)
def test_commands_of_a_guide_run_in_the_order_of_reading(page: Path) -> None:
    run_commands(page)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_of_a_page_run_with_the_files_that_ship(page: Path) -> None:
    run_commands(page)


API = ROOT / "docs" / "python_api.md"


@pytest.mark.parametrize(
    "name", re.findall(r"^\| `(tuning\.[\w.]+)` \|", API.read_text("utf-8"), re.MULTILINE)
)
def test_a_name_of_the_public_interface_is_there_documented_and_typed(name: str) -> None:
    module, _, member = name.rpartition(".")
    found = getattr(importlib.import_module(module), member)
    assert (inspect.getdoc(found) or "").strip()
    if inspect.isfunction(found):
        signature = inspect.signature(found)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not p.empty for p in signature.parameters.values())


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src" / "tuning" / "py.typed").is_file()


def test_the_glossary_has_the_words_of_reports_as_reports_explain_them() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    assert text.endswith("".join(f"- **{term.name}**: {term.meaning}\n" for term in TERMS))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a page's headings have where it is shown."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_pages_have_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) >= 10


@pytest.mark.parametrize(
    "page",
    [*PAGES, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda p: p.name,
)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
        place = page.parent / target if target else page
        assert place.exists(), target
        assert not anchor or anchor in anchors_of(place), f"{target}#{anchor}"


def test_the_file_tree_of_the_readme_names_every_module() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    tree = text[text.index("## Files") :]
    for path in (ROOT / "src" / "tuning").rglob("*.py"):
        if path.name not in ("__init__.py", "__main__.py") and path.parent.name != "cli":
            assert path.name in tree, path


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("page", [*PAGES, API], ids=lambda p: p.stem)
def test_python_of_a_page_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text("utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, str(page), "exec"), {})
        assert capsys.readouterr().out.strip(), block


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_configurations_among_the_examples_are_valid(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    arguments = ["config", "validate", str(path), "--config-dir", str(ROOT / "examples/configs")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output


@pytest.mark.usefixtures("quick_checkout", "warm_studies")
@pytest.mark.nightly
def test_the_sampler_among_the_examples_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("examples")
    arguments = ["study", "run", "--space", "examples/near_best.yaml", "--json", "--quiet"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["num_completed"] == 5
