"""Laws of `tuning.composition`: what wins over what, where each value is from, what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize  # noqa: TID251
from hydra.core.config_store import ConfigStore  # noqa: TID251
from hydra.core.global_hydra import GlobalHydra  # noqa: TID251

from tuning.composition import Composition, Origin, compose_file, load, overridden
from tuning.config import build
from tuning.errors import ConfigError, NameRefusedError, NotFoundError, UserError
from tuning.paths import shipped_config_dir

NAME = "experiment_name: x\n"


def written(folder: Path, files: dict[str, str]) -> Path:
    """Write files and return the first of them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder / next(iter(files))


def composed(
    folder: Path,
    files: dict[str, str],
    overrides: Sequence[str] = (),
    config_dirs: Sequence[str] = (),
) -> Composition:
    dirs = [folder / name for name in config_dirs]
    return compose_file(written(folder, files), overrides, dirs)


def refused(
    folder: Path,
    files: dict[str, str],
    overrides: Sequence[str] = (),
    config_dirs: Sequence[str] = (),
) -> str:
    """Return the one line that refuses a file and its overrides, the folder left out."""
    dirs = [folder / name for name in config_dirs]
    with pytest.raises(UserError) as caught:
        load(written(folder, files), overrides, dirs)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.replace(f"{folder}/", "")


# --- inheriting ---------------------------------------------------------------------------------


def test_a_file_inherits_from_a_sibling_and_its_own_values_win(tmp_path: Path) -> None:
    found = composed(
        tmp_path,
        {
            "main.yaml": f"defaults: [base, _self_]\n{NAME}lora_config: {{alpha: 64}}\n",
            "base.yaml": "lora_config: {r: 8, alpha: 16}\ntraining_config: {seed: 3}\n",
        },
    )
    assert found.data == {
        "experiment_name": "x",
        "lora_config": {"r": 8, "alpha": 64},
        "training_config": {"seed": 3},
    }


@pytest.mark.parametrize(
    ("defaults", "r"),
    [
        ("[base, _self_]", 4),
        ("[_self_, base]", 8),
        ("[base]", 4),
        ("[base, second, _self_]", 4),
        ("[_self_, base, second]", 2),
        ("[_self_, second, base]", 8),
        ("[base.yaml, _self_]", 4),
        ("[_self_, /base]", 8),
        ("[]", 4),
    ],
)
def test_what_stands_later_in_the_defaults_wins(tmp_path: Path, defaults: str, r: int) -> None:
    found = composed(
        tmp_path,
        {
            "main.yaml": f"{NAME}defaults: {defaults}\nlora_config: {{r: 4}}\n",
            "base.yaml": "lora_config: {r: 8}\n",
            "second.yaml": "lora_config: {r: 2}\n",
        },
    )
    assert found.data == {"experiment_name": "x", "lora_config": {"r": r}}


def test_a_defaults_list_without_self_warns_of_nothing(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}defaults: [base]\n", "base.yaml": "lora_config: {r: 8}\n"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert composed(tmp_path, files).data["lora_config"] == {"r": 8}


def test_inheritance_goes_on_through_the_inherited_files(tmp_path: Path) -> None:
    found = composed(
        tmp_path,
        {
            "main.yaml": f"{NAME}defaults: [child, _self_]\nlora_config: {{r: 2}}\n",
            "child.yaml": "defaults: [parent, _self_]\nlora_config: {r: 4, alpha: 8}\n",
            "parent.yaml": "defaults: [{models: tiny}, _self_]\n"
            "lora_config: {r: 8, alpha: 16, dropout: 0.2}\n",
        },
    )
    assert found.data == {
        "experiment_name": "x",
        "lora_config": {"r": 2, "alpha": 8, "dropout": 0.2},
        "tokenizer_config": {"model_name": "tiny"},
    }


def test_a_list_is_replaced_not_merged(tmp_path: Path) -> None:
    found = composed(
        tmp_path,
        {
            "main.yaml": f"{NAME}defaults: [base, _self_]\n"
            "lora_config: {target_modules: [up_proj]}\n",
            "base.yaml": "lora_config: {target_modules: [q_proj, k_proj, v_proj]}\n",
        },
    )
    assert found.data["lora_config"] == {"target_modules": ["up_proj"]}


def test_a_file_chooses_from_a_group(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            {"main.yaml": f"{NAME}defaults: [{{models: tiny}}, {{training: quick}}, _self_]\n"},
        )
    )
    assert config.tokenizer_config.model_name == "tiny"
    assert (config.training_config.max_steps, config.training_config.warmup_steps) == (60, 6)


# --- groups as overrides --------------------------------------------------------------------------


def test_a_group_replaces_the_choice_of_the_file_whose_own_values_still_win(
    tmp_path: Path,
) -> None:
    files = {
        "main.yaml": f"defaults: [{{training: quick}}, _self_]\n{NAME}"
        "training_config: {precision: auto}\n"
    }
    found = composed(tmp_path, files, ["training=t4"])
    assert found.data["training_config"] == {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 8,
        "precision": "auto",
    }
    assert "transfer_config" not in found.data, "what quick set is gone"


def test_a_group_that_the_file_does_not_choose_is_laid_on_top(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}training_config: {{precision: auto, seed: 7}}\n"}
    found = composed(tmp_path, files, ["training=t4"])
    assert found.data["training_config"] == {
        "precision": "fp16",
        "seed": 7,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 8,
    }


def test_a_group_replaces_the_choice_of_an_inherited_file(tmp_path: Path) -> None:
    files = {
        "main.yaml": f"defaults: [base, _self_]\n{NAME}",
        "base.yaml": "defaults: [{training: quick}, _self_]\ntraining_config: {precision: auto}\n",
    }
    found = composed(tmp_path, files, ["training=t4"])
    assert found.data["training_config"] == {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 8,
        "precision": "auto",
    }


def test_the_last_choice_of_a_group_wins(tmp_path: Path) -> None:
    found = composed(tmp_path, {"main.yaml": NAME}, ["models=tiny", "models=qwen3-0.6b"])
    assert found.data["tokenizer_config"] == {"model_name": "qwen3-0.6b"}


def test_a_later_group_wins_over_an_earlier_one(tmp_path: Path) -> None:
    files = {
        "main.yaml": NAME,
        "one/a.yaml": "lora_config: {r: 4}\n",
        "one/b.yaml": "lora_config: {r: 8}\n",
        "two/a.yaml": "lora_config: {r: 2}\n",
    }
    assert composed(tmp_path, files, ["one=a", "two=a"]).data["lora_config"] == {"r": 2}
    assert composed(tmp_path, files, ["two=a", "one=a"]).data["lora_config"] == {"r": 4}
    found = composed(tmp_path, files, ["one=a", "two=a", "one=b"])
    assert found.data["lora_config"] == {"r": 8}


def test_a_choice_that_a_file_leaves_open_can_be_made_by_an_override(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}defaults:\n  - training: ???\n  - _self_\n"}
    assert composed(tmp_path, files, ["training=quick"]).data["training_config"]["max_steps"] == 60
    assert "training" in refused(tmp_path, files)


# --- whose file is found --------------------------------------------------------------------------


def test_folders_of_the_user_are_searched_in_order_and_before_ours(tmp_path: Path) -> None:
    files = {
        "run/main.yaml": NAME,
        "first/training/quick.yaml": "training_config: {max_steps: 200}\n",
        "second/training/quick.yaml": "training_config: {max_steps: 300}\n",
        "second/training/t4.yaml": "training_config: {max_steps: 400}\n",
    }

    def max_steps(overrides: list[str], config_dirs: list[str]) -> int:
        found = composed(tmp_path, files, overrides, config_dirs)
        steps: int = found.data["training_config"]["max_steps"]
        return steps

    assert max_steps(["training=quick"], []) == 60
    assert max_steps(["training=quick"], ["first", "second"]) == 200
    assert max_steps(["training=quick"], ["second", "first"]) == 300
    assert max_steps(["training=t4"], ["first", "second"]) == 400


def test_folders_of_the_user_add_groups_and_choices(tmp_path: Path) -> None:
    files = {
        "run/main.yaml": f"{NAME}defaults: [common, _self_]\n",
        "own/common.yaml": "lora_config: {dropout: 0.2}\n",
        "own/size/large.yaml": "lora_config: {r: 64}\n",
        "own/training/long.yaml": "training_config: {max_steps: 5000}\n",
    }
    overrides = ["size=large", "training=long", "models=tiny"]
    assert composed(tmp_path, files, overrides, ["own"]).data == {
        "experiment_name": "x",
        "lora_config": {"dropout": 0.2, "r": 64},
        "training_config": {"max_steps": 5000},
        "tokenizer_config": {"model_name": "tiny"},
    }


def test_the_folder_of_the_file_comes_before_all_others(tmp_path: Path) -> None:
    files = {
        "run/main.yaml": NAME,
        "run/training/quick.yaml": "training_config: {max_steps: 400}\n",
        "own/training/quick.yaml": "training_config: {max_steps: 300}\n",
    }
    found = composed(tmp_path, files, ["training=quick"], ["own"])
    assert found.data["training_config"] == {"max_steps": 400}


def test_a_folder_that_is_not_there_is_no_mistake(tmp_path: Path) -> None:
    found = composed(tmp_path, {"main.yaml": NAME}, ["models=tiny"], ["nothing"])
    assert found.data["tokenizer_config"] == {"model_name": "tiny"}


@pytest.mark.parametrize("name", ["it's, [a] folder = x", "größe", "a\\b", "${oc.env:HOME}"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    files = {
        f"{name}/main.yaml": f"{NAME}defaults: [base, _self_]\n",
        f"{name}/base.yaml": "lora_config: {r: 8}\n",
    }
    assert composed(tmp_path, files).data["lora_config"] == {"r": 8}


def test_json_and_yml_are_as_good_as_yaml(tmp_path: Path) -> None:
    files = {
        "main.json": '{"defaults": [{"size": "large"}, "base", "_self_"],\n "experiment_name": "x"}',
        "base.json": '{"lora_config": {"dropout": 0.2}}',
        "size/large.yml": "lora_config: {r: 64}\n",
        "training/long.json": '{"training_config": {"max_steps": 5000}}',
    }
    found = composed(tmp_path, files, ["training=long"])
    assert found.data == {
        "experiment_name": "x",
        "lora_config": {"r": 64, "dropout": 0.2},
        "training_config": {"max_steps": 5000},
    }
    assert found.origin(("lora_config", "r")) == Origin(f"{tmp_path}/size/large.yml, line 1")
    (tmp_path / "main.yml").write_text(f"{NAME}defaults: [base, _self_]\n")
    assert compose_file(tmp_path / "main.yml").data["lora_config"] == {"dropout": 0.2}


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}defaults: [base, _self_]\n", "base.yaml": "lora_config: {r: 8}\n"}
    assert composed(tmp_path, files).data["lora_config"] == {"r": 8}
    files["base.yaml"] = "lora_config: {r: 128}\n"
    assert composed(tmp_path, files).data["lora_config"] == {"r": 128}


def test_a_first_line_puts_a_file_into_a_section(tmp_path: Path) -> None:
    files = {
        "main.yaml": NAME,
        "size/large.yaml": "# @package lora_config\nr: 64\nalpha: 128\n",
    }
    found = composed(tmp_path, files, ["size=large"])
    assert found.data == {"experiment_name": "x", "lora_config": {"r": 64, "alpha": 128}}
    assert found.origin(("lora_config", "alpha")) == Origin(f"{tmp_path}/size/large.yaml, line 3")
    files["size/large.yaml"] = "# @package lora_config\nalpha: 128\nr: 0\n"
    assert refused(tmp_path, files, ["size=large"]) == (
        "size/large.yaml, line 3: lora_config.r: must be greater than or equal to 1, got 0"
    )


# --- overrides ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "section", "value"),
    [
        ("lora_r=8", "lora_config", {"r": 8}),
        ("lora_config.r=8", "lora_config", {"r": 8}),
        ("+lora_r=8", "lora_config", {"r": 8}),
        ("++lora_config.r=8", "lora_config", {"r": 8}),
        ("lora_r = 8", "lora_config", {"r": 8}),
        ("target_modules=[q_proj, up_proj]", "lora_config", {"target_modules": ["q_proj", "up_proj"]}),
        ("target_modules=[]", "lora_config", {"target_modules": []}),
        ("lora_config={r: 8, alpha: 16}", "lora_config", {"r": 8, "alpha": 16}),
        ("learning_rate=5e-4", "training_config", {"learning_rate": 5e-4}),
        ("learning_rate=-1", "training_config", {"learning_rate": -1}),
        ("training_config.seed=null", "training_config", {"seed": None}),
        ("auto_scale=false", "lightning_config", {"auto_scale": False}),
        ("tokenizer_config.model_name=Qwen/Qwen3-4B", "tokenizer_config", {"model_name": "Qwen/Qwen3-4B"}),
        ("tokenizer_config.model_name=my model", "tokenizer_config", {"model_name": "my model"}),
        ("tokenizer_config.model_name='5'", "tokenizer_config", {"model_name": "5"}),
        ('tokenizer_config.model_name="null"', "tokenizer_config", {"model_name": "null"}),
        ("tokenizer_config.model_name='a=b, (c) é'", "tokenizer_config", {"model_name": "a=b, (c) é"}),
        ("tokenizer_config.model_name='it\\'s'", "tokenizer_config", {"model_name": "it's"}),
    ],
)  # fmt: skip
def test_an_override_sets_its_key(
    tmp_path: Path, override: str, section: str, value: dict[str, Any]
) -> None:
    found = composed(tmp_path, {"main.yaml": NAME}, [override])
    assert repr(found.data) == repr({"experiment_name": "x", section: value})


def test_a_later_override_wins_and_all_of_them_win_over_files(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}lora_config: {{r: 4, alpha: 4}}\n"}
    overrides = ["lora_r=8", "lora_config.r=16", "lora_r=32"]
    assert composed(tmp_path, files, overrides).data["lora_config"] == {"r": 32, "alpha": 4}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lora_r", ["must be key=value, got 'lora_r'"]),
        ("=3", ["must be key=value, got '=3'"]),
        ("~lora_config", ["must be key=value"]),
        ("lora_r=[", ["override 'lora_r=[' cannot be read", "quotes: lora_r=\"'...'\""]),
        ("experiment_name='x", ["cannot be read"]),
        ("experiment_name=ä", ["cannot be read", "quotes"]),
        ("lora_config..r=3", ["cannot be read"]),
        ("lora_r=8\nlora_alpha=3", ["cannot be read"]),
        ("lora_r=unknown(3)", ["cannot be read"]),
        (f"lora_r={'[' * 500}{']' * 500}", ["cannot be read"]),
        (f"lora_r={'9' * 5000}", ["cannot be read"]),
        ("lora_r=4,8", ["names several values", "lora_r: [4,8] into HPARAM_CANDIDATES"]),
        ("lora_r=range(1,4)", ["names several values"]),
        ("lora_r=choice(4,8)", ["names several values"]),
        ("lora_r=${oc.env:HOME}", ["override 'lora_r=${oc.env:HOME}'", "are not resolved"]),
        ("experiment_name='${oc.env:HOME}'", ["are not resolved"]),
        ("${oc.env:HOME}=3", ["are not resolved"]),
        ("lora_rr=3", ["lora_rr: no such hyperparameter, key or group; did you mean lora_r"]),
        ("trainin=quick", ["trainin: no such", "did you mean training"]),
        ("lora_config.rr=3", ["override 'lora_config.rr=3'", "lora_config.rr: no such key"]),
        ("lora_r=0", ["override 'lora_r=0': lora_config.r: must be greater", "got 0"]),
        ("lora_r='???'", ["override", "lora_config.r", "??? leaves it open"]),
        ("search_spaces=demo", ["search_spaces: no such"]),
        ("defaults=[base]", ["defaults: no such"]),
        ("models=tinny", ["models=tinny: no such configuration; did you mean tiny"]),
        ("training=", ["training must be 1 to 128 letters"]),
        ("models=../../x", ["models must be 1 to 128 letters", "'../../x'"]),
        ("models=a/b", ["models must be 1 to 128 letters"]),
        ("models=tiny,qwen3-4b", ["models must be 1 to 128 letters"]),
        ("hydra=x", ["hydra: no such"]),
        ("hydra/launcher=basic", ["hydra/launcher: no such"]),
        ("hydra.run.dir=x", ["hydra.run.dir"]),
        ("hydra.searchpath=[/tmp]", ["hydra.searchpath"]),
    ],
)  # fmt: skip
def test_a_wrong_override_is_one_clear_line(
    tmp_path: Path, override: str, words: list[str]
) -> None:
    message = refused(tmp_path, {"main.yaml": NAME}, [override])
    for word in words:
        assert word in message
    assert message.isprintable()


def test_a_group_that_would_leave_its_folder_is_a_refused_name(tmp_path: Path) -> None:
    with pytest.raises(NameRefusedError):
        composed(tmp_path, {"main.yaml": NAME}, ["models=../../x"])


def test_overrides_of_a_configuration_name_themselves_in_mistakes() -> None:
    config = build({"experiment_name": "x"}, "test")
    with pytest.raises(ConfigError) as caught:
        overridden(config, ["lora_r=0", "lora_dropout=2"])
    assert str(caught.value).splitlines() == [
        "override 'lora_r=0': lora_config.r: must be greater than or equal to 1, got 0",
        "override 'lora_dropout=2': lora_config.dropout: must be less than 1, got 2",
    ]
    assert overridden(config, []) is config


# --- what does not exist --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ("[bse, _self_]", "bse: no such configuration; did you mean base?"),
        ("[{training: quik}, _self_]", "training=quik: no such configuration; did you mean quick?"),
        ("[training/quik, _self_]", "training=quik: no such configuration; did you mean quick?"),
    ],
)
def test_what_is_inherited_and_does_not_exist_names_the_nearest(
    tmp_path: Path, defaults: str, message: str
) -> None:
    files = {"main.yaml": f"{NAME}defaults: {defaults}\n", "base.yaml": "lora_config: {r: 8}\n"}
    with pytest.raises(NotFoundError):
        composed(tmp_path, files)
    assert refused(tmp_path, files) == f"main.yaml, line 2: {message}"


def test_an_unknown_group_names_the_nearest(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}defaults: [{{trainin: quick}}, _self_]\n"}
    assert "did you mean training" in refused(tmp_path, files)


def test_a_missing_file_of_an_inherited_file_is_blamed_on_that_one(tmp_path: Path) -> None:
    files = {
        "main.yaml": f"{NAME}defaults: [base, _self_]\n",
        "base.yaml": "\n\ndefaults:\n  - training: quik\n",
    }
    assert refused(tmp_path, files).startswith("base.yaml, line ")


def test_a_missing_choice_of_an_override_is_blamed_on_the_override(tmp_path: Path) -> None:
    message = refused(tmp_path, {"main.yaml": NAME}, ["training=quik"])
    assert message.startswith("override 'training=quik'")


SECRET = "lora_config: {r: 4}\n"


@pytest.mark.parametrize(
    "entry",
    [
        "../secret",
        "/../secret",
        "{..: secret}",
        "{training: ../../secret}",
        "{training/../..: secret}",
        "FOLDER/secret",
        "/FOLDER/secret@_global_",
        "{/FOLDER@_global_: secret}",
        "{training: FOLDER/secret}",
        "file://FOLDER/secret",
        # Hydra itself looks beside its own configurations.
        "UPFOLDER/secret@_global_",
        "/UPFOLDER/secret@_global_",
        "{hydra/output@_global_: UPFOLDER/secret}",
    ],
)
def test_nothing_outside_the_folders_can_be_read(tmp_path: Path, entry: str) -> None:
    written(tmp_path, {"secret.yaml": SECRET})
    defaults = entry.replace("FOLDER", str(tmp_path)).replace("UP", "/".join([".."] * 40))
    message = refused(tmp_path, {"inner/main.yaml": f"defaults: [{defaults}, _self_]\n{NAME}"})
    assert message.startswith("inner/main.yaml, line 1: ")
    assert "did you mean secret" not in message, "nor can folders outside be listed"


@pytest.mark.parametrize(
    "entry", ["y" * 5000, f"{{training: {'y' * 5000}}}", '{"": quick}', '{" ": quick}', '""']
)
def test_a_name_that_no_file_can_have_is_one_clear_line(tmp_path: Path, entry: str) -> None:
    message = refused(tmp_path, {"main.yaml": f"{NAME}defaults:\n  - {entry}\n  - _self_\n"})
    assert message.startswith("main.yaml, line ")


@pytest.mark.parametrize(
    "defaults",
    [
        "{models: tiny}",
        "models",
        "",
        "[3]",
        "[[models]]",
        "[{models: 3}]",
        "[{models: tiny, training: quick}]",
        "[_self_, _self_]",
        "[{training: quick}, {training: t4}]",
    ],
)
def test_what_is_no_defaults_list_is_one_clear_line(tmp_path: Path, defaults: str) -> None:
    message = refused(tmp_path, {"main.yaml": f"{NAME}defaults: {defaults}\n"})
    assert message.startswith("main.yaml")


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"main.yaml": f"{NAME}defaults: [main]\n"}, "main.yaml -> main.yaml"),
        (
            {"main.yaml": f"{NAME}defaults: [b, _self_]\n", "b.yaml": "defaults: [main]\n"},
            "main.yaml -> b.yaml -> main.yaml",
        ),
        (
            {
                "main.yaml": f"{NAME}defaults: [b, _self_]\n",
                "b.yaml": "defaults: [c]\n",
                "c.yaml": "defaults: [main]\n",
            },
            "main.yaml -> b.yaml -> c.yaml -> main.yaml",
        ),
        (
            {
                "main.yaml": f"{NAME}defaults: [fine, b]\n",
                "fine.yaml": "lora_config: {r: 8}\n",
                "b.yaml": "defaults: [c]\n",
                "c.yaml": "defaults: [b]\n",
            },
            "main.yaml -> b.yaml -> c.yaml -> b.yaml",
        ),
        (
            {
                "main.yaml": f"{NAME}defaults: [{{size: a}}]\n",
                "size/a.yaml": "defaults: [b]\n",
                "size/b.yaml": "defaults: [a]\n",
            },
            "main.yaml -> size/a.yaml -> size/b.yaml -> size/a.yaml",
        ),
    ],
)  # fmt: skip
def test_defaults_that_lead_back_to_themselves_name_the_circle(
    tmp_path: Path, files: dict[str, str], circle: str
) -> None:
    # The line is that of the last reference, which closes the circle.
    message = refused(tmp_path, files)
    last = circle.split(" -> ")[-2]
    assert message == (
        f"{last}, line {1 if last != 'main.yaml' else 2}: defaults lead back to themselves: {circle}"
    )


def test_a_circle_that_begins_in_a_group_of_an_override_is_named_too(tmp_path: Path) -> None:
    files = {
        "main.yaml": NAME,
        "size/a.yaml": "defaults: [b]\n",
        "size/b.yaml": "defaults: [a]\n",
    }
    message = refused(tmp_path, files, ["size=a"])
    assert message.endswith("size/a.yaml -> size/b.yaml -> size/a.yaml")


def test_a_section_for_hydra_itself_is_refused(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}hydra:\n  run: {{dir: x}}\n"}
    assert refused(tmp_path, files).startswith("main.yaml, line 2: hydra")


def test_configurations_of_hydra_itself_cannot_be_inherited(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}defaults: [hydra/output/default@_global_, _self_]\n"}
    assert refused(tmp_path, files) == (
        "main.yaml, line 2: defaults: Hydra's own configurations are not inherited"
    )


def test_a_section_for_hydra_itself_is_refused_in_a_group_too(tmp_path: Path) -> None:
    files = {"main.yaml": NAME, "size/a.yaml": "\nhydra: {run: {dir: x}}\n"}
    assert refused(tmp_path, files, ["size=a"]).startswith("size/a.yaml, line 2: hydra")


# --- where a value is from ------------------------------------------------------------------------

LAYERED = {
    "main.yaml": f"defaults: [base, {{size: small}}, _self_]\n{NAME}\nlora_config:\n  alpha: 64\n",
    "base.yaml": "# inherited\nlora_config:\n  r: 8\n  dropout: 0.2\n"
    "training_config: {seed: 3, max_steps: 200}\n",
    "size/small.yaml": "lora_config:\n  r: 4\n  alpha: 4\nspelling_config:\n  arm: direct\n",
}


def test_every_value_knows_what_set_it(tmp_path: Path) -> None:
    found = composed(
        tmp_path, LAYERED, ["max_steps=100", "training_config.seed=5", "max_steps=300"]
    )
    expected = {
        "experiment_name": ("main.yaml, line 2", False),
        "lora_config.alpha": ("main.yaml, line 5", False),
        "lora_config.dropout": ("base.yaml, line 4", False),
        "lora_config.r": ("size/small.yaml, line 2", False),
        "spelling_config.arm": ("size/small.yaml, line 5", False),
        "training_config.seed": ("override 'training_config.seed=5'", False),
        "training_config.max_steps": ("override 'max_steps=300'", False),
        # What holds a value that nobody sets is named, so that a law can be blamed on it.
        "lora_config.target_modules": ("main.yaml, line 4", True),
        "spelling_config.difficulty": ("size/small.yaml, line 4", True),
        "training_config.precision": ("base.yaml, line 5", True),
        "timestamp": ("main.yaml", True),
        "transfer_config.eval_frequency": ("main.yaml", True),
    }
    origins = {key: found.origin(tuple(key.split("."))) for key in expected}
    assert {
        key: (origin.place.removeprefix(f"{tmp_path}/"), origin.is_default)
        for key, origin in origins.items()
    } == expected
    assert {key: found.place(tuple(key.split("."))) for key in expected} == {
        key: origin.place for key, origin in origins.items()
    }


def test_a_group_of_an_override_is_where_its_values_are_from(tmp_path: Path) -> None:
    found = composed(tmp_path, {"main.yaml": NAME}, ["training=quick"])
    quick = shipped_config_dir() / "training" / "quick.yaml"
    assert found.origin(("training_config", "max_steps")) == Origin(f"{quick}, line 3")


def test_a_group_that_was_replaced_is_where_nothing_is_from(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}defaults: [{{training: quick}}, _self_]\n"}
    found = composed(tmp_path, files, ["training=t4"])
    t4 = shipped_config_dir() / "training" / "t4.yaml"
    assert found.origin(("training_config", "precision")) == Origin(f"{t4}, line 5")
    assert found.origin(("training_config", "max_steps")) == Origin(f"{t4}, line 2", True)
    assert found.origin(("transfer_config", "eval_frequency")).is_default


def test_an_override_of_a_section_is_where_only_its_own_keys_are_from(tmp_path: Path) -> None:
    files = {"main.yaml": f"{NAME}lora_config:\n  alpha: 8\n"}
    found = composed(tmp_path, files, ["lora_config={r: 4}"])
    assert found.data["lora_config"] == {"r": 4, "alpha": 8}
    assert found.origin(("lora_config", "r")) == Origin("override 'lora_config={r: 4}'")
    assert found.origin(("lora_config", "alpha")) == Origin(f"{tmp_path}/main.yaml, line 3")
    assert found.origin(("lora_config", "dropout")).is_default


# --- mistakes in layers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "overrides", "message"),
    [
        (
            {"main.yaml": f"{NAME}defaults: [base]\n", "base.yaml": "\nlora_config:\n  r: 0\n"},
            [],
            "base.yaml, line 3: lora_config.r: must be greater than or equal to 1, got 0",
        ),
        (
            {"main.yaml": NAME, "training/own.yaml": "training_config:\n  max_step: 5\n"},
            ["training=own"],
            "training/own.yaml, line 2: training_config.max_step: no such key; "
            "did you mean max_steps",
        ),
        (
            {"main.yaml": NAME, "training/own.yaml": "training_config:\n  max_steps: 5\n"},
            ["training=own"],
            "training/own.yaml, line 1: training_config.warmup_steps: warmup_steps must be at "
            "most max_steps, got 100 > 5",
        ),
        (
            {"main.yaml": f"{NAME}lora_config:\n  target_modules:\n    - q_proj\n    - c_attn\n"},
            ["models=tiny"],
            "main.yaml, line 3: lora_config.target_modules: target_modules must be linear layers "
            "of tiny (family qwen3), got 'c_attn'",
        ),
        (
            {"main.yaml": f"{NAME}lora_config: {{r: 4}}\n"},
            ["lora_alpha=4000"],
            "override 'lora_alpha=4000': lora_config.alpha: alpha / r must lie in [1/16, 64], got "
            "4000 / 4 = 1000",
        ),
        (
            {"main.yaml": NAME, "training/own.yaml": "a: 1\nb: [\n"},
            ["training=own"],
            "training/own.yaml, line 2: not YAML: ",
        ),
        (
            {"main.yaml": NAME, "training/own.yaml": "a: 1\na: 2\n"},
            ["training=own"],
            "training/own.yaml, line 2: the key 'a' stands twice",
        ),
        (
            {"main.yaml": f"{NAME}defaults: [base]\n", "base.yaml": "lora_config:\n  r: ${x}\n"},
            [],
            "base.yaml, line 2: lora_config.r: interpolations such as ${...} are not resolved",
        ),
        (
            {
                "main.yaml": f"{NAME}training_config: {{seed: 5}}\n",
                "training/own.yaml": "\ntraining_config: [5]\n",
            },
            ["training=own"],
            "training/own.yaml, line 2: training_config: must be",
        ),
        (
            {"main.yaml": f"{NAME}lora_config: {{dropout: 8}}\n"},
            ["lora_config={r: 4}"],
            "main.yaml, line 2: lora_config.dropout: must be less than 1, got 8",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_blamed_on_the_file_or_override_that_made_it(
    tmp_path: Path, files: dict[str, str], overrides: list[str], message: str
) -> None:
    assert refused(tmp_path, files, overrides).startswith(message)


def test_laws_over_several_keys_are_reported_together_with_those_of_single_ones(
    tmp_path: Path,
) -> None:
    files = {
        "main.yaml": f"{NAME}defaults: [base, _self_]\nlora_config:\n  r: 4\n  alpha: 4000\n",
        "base.yaml": "training_config:\n  learning_rate: 7\n  max_steps: 20\n",
    }
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, files), ["lora_dropout=3"])
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == [
        "override 'lora_dropout=3': lora_config.dropout: must be less than 1, got 3",
        "base.yaml, line 2: training_config.learning_rate: must be less than or equal to 1, got 7",
        "main.yaml, line 5: lora_config.alpha: alpha / r must lie in [1/16, 64], got 4000 / 4 = "
        "1000; for r 4 choose alpha between 0.25 and 256",
        "base.yaml, line 1: training_config.warmup_steps: warmup_steps must be at most max_steps, "
        "got 100 > 20",
    ]


@pytest.mark.parametrize("key", ["experiment_name", "lora_config.r", "spelling_config.word_list"])
def test_a_value_that_is_left_open_is_one_line_until_an_override_gives_it(
    tmp_path: Path, key: str
) -> None:
    content = {"experiment_name": "x", "lora_config.r": "8", "spelling_config.word_list": "w"}
    lines = [f"{name}: {'???' if name == key else value}" for name, value in content.items()]
    text = "".join(
        line.replace(".", ":\n  ", 1) + "\n" if "." in line else f"{line}\n" for line in lines
    )
    number = text[: text.index("???")].count("\n") + 1
    files = {"main.yaml": text}
    assert refused(tmp_path, files) == (
        f"main.yaml, line {number}: {key}: must be given: ??? leaves it open"
    )
    load(written(tmp_path, files), [f"{key}={4 if key.endswith('.r') else 'given'}"])


def test_a_section_that_is_left_open_is_one_line(tmp_path: Path) -> None:
    assert refused(tmp_path, {"main.yaml": f"{NAME}lora_config: ???\n"}) == (
        "main.yaml, line 2: lora_config: must be given: ??? leaves it open"
    )


def test_a_key_with_a_line_break_does_not_break_the_line(tmp_path: Path) -> None:
    message = refused(tmp_path, {"main.yaml": f'{NAME}"a\\nb": 1\n'})
    assert message == "main.yaml, line 2: a key must be one line, got 'a\\nb'"


# --- Hydra as it was before -----------------------------------------------------------------------


def test_nothing_is_left_in_hydra_after_good_and_bad_compositions(tmp_path: Path) -> None:
    files = {
        "main.yaml": f"{NAME}defaults: [base, _self_]\n",
        "base.yaml": "lora_config: {r: 8}\n",
        "circle.yaml": f"{NAME}defaults: [circle]\n",
        "bad.yaml": f"{NAME}defaults: [nothing]\n",
    }
    written(tmp_path, files)
    before = repr(ConfigStore.instance().repo)
    for name in ("main.yaml", "circle.yaml", "bad.yaml") * 3:
        try:
            load(tmp_path / name, ["training=quick"])
        except UserError:
            assert name != "main.yaml"
        assert not GlobalHydra.instance().is_initialized()
    assert repr(ConfigStore.instance().repo) == before


def test_composing_works_inside_a_program_that_uses_hydra_itself(tmp_path: Path) -> None:
    path = written(tmp_path, {"main.yaml": f"{NAME}defaults: [{{models: tiny}}, _self_]\n"})
    store = ConfigStore.instance()
    store.store("outer", {"a": 1})
    try:
        with initialize(config_path=None, job_name="outer", version_base="1.3"):
            outer = GlobalHydra.instance().hydra
            assert load(path, ["lora_r=8"]).lora_config.r == 8
            assert compose_file(path).origin(("lora_config", "r")).is_default
            assert GlobalHydra.instance().hydra is outer
            assert compose("outer") == {"a": 1}
    finally:
        store.repo.pop("outer.yaml")


def test_a_configuration_of_another_program_with_any_name_stays(tmp_path: Path) -> None:
    path = written(tmp_path, {"main.yaml": NAME})
    store = ConfigStore.instance()
    store.store("primary", {"a": 1})
    try:
        compose_file(path)
        assert "primary.yaml" in store.repo
    finally:
        store.repo.pop("primary.yaml", None)


def test_composing_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, {"main.yaml": NAME})
    load(Path("main.yaml"), ["models=tiny"])
    assert [path.name for path in tmp_path.iterdir()] == ["main.yaml"]
