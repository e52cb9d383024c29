"""Laws of `tuning.grid`: which trials a space makes, in which order, each once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning import composition, grid
from tuning import config as configs
from tuning.cloud_settings import check_cloud_file, is_cloud_file
from tuning.config import ExperimentConfig, build
from tuning.errors import ConfigError, NameRefusedError, NotFoundError, UserError
from tuning.fingerprint import training_key, weights_key
from tuning.grid import Plan, base_experiment, is_space, load_space
from tuning.paths import shipped_config_dir
from tuning.search_space import SearchSpace

STAMP = "20260102_030405"
BASE = build({"experiment_name": "base", "timestamp": STAMP}, "test")

# Section 4 of the specification, to the letter.
SPECIFIED = {
    "lora_r": [4, 8, 16, 32],
    "lora_alpha": [8, 16, 32, 64],
    "learning_rate": [1e-4, 2e-4, 5e-4, 1e-3],
    "batch_size": [4, 8, 16, 32],
    "grad_accum_steps": [1, 2, 4, 8],
    "max_steps": [500, 1000, 2000, 5000],
    "spelling_data_ratio": [0.5, 0.7, 0.9],
    "spelling_difficulty": ["easy", "medium", "hard"],
    "position_task_weight": [0.3, 0.5, 0.7],
    "count_task_weight": [0.3, 0.5, 0.7],
    "gpu_tier": ["cpu", "t4", "a100"],
    "use_english_only_tokens": [False, True],
    "analyze_thinking_mode": [False, True],
}


def space(candidates: dict[str, list[Any]], **more: Any) -> SearchSpace:
    return SearchSpace.model_validate({"HPARAM_CANDIDATES": candidates, **more})


def listed(
    chosen: SearchSpace, base: ExperimentConfig, step_scale: float, first_seed: int
) -> list[grid.Proposal]:
    return list(Plan(chosen, base, step_scale, first_seed))


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# --- the default space ------------------------------------------------------------------------


def test_the_default_space_is_the_specified_one() -> None:
    assert grid.create_hyperparameter_grid() == SPECIFIED
    assert list(grid.create_hyperparameter_grid()) == list(SPECIFIED)
    assert math.prod(map(len, grid.create_hyperparameter_grid().values())) == 3_981_312


def test_the_default_space_cannot_be_spoiled_by_its_users() -> None:
    grid.create_hyperparameter_grid()["lora_r"].append(99)
    assert grid.create_hyperparameter_grid() == SPECIFIED


def test_one_at_a_time_makes_31_configurations_of_24_weights_in_21_trainings() -> None:
    made = listed(space(SPECIFIED, replicates_of_default=1), BASE, 1.0, first_seed=0)
    assert len(made) == 31
    assert len({weights_key(p.config) for p in made}) == 24
    assert len({training_key(p.config) for p in made}) == 21


def test_without_the_last_three_hyperparameters_it_makes_27() -> None:
    small = {k: v for k, v in SPECIFIED.items() if k not in list(SPECIFIED)[-3:]}
    assert len(listed(space(small, replicates_of_default=1), BASE, 1.0, first_seed=0)) == 27


# --- proposals --------------------------------------------------------------------------------


def test_the_default_comes_first_with_fresh_seeds_then_each_variation_with_the_first() -> None:
    chosen = space({"lora_r": [4, 16, 8], "spelling_difficulty": ["hard"]}, replicates_of_default=3)
    made = listed(chosen, BASE, 1.0, first_seed=5)
    assert [(p.parameters, p.seed) for p in made] == [
        ({}, 5),
        ({}, 6),
        ({}, 7),
        ({"lora_r": 4}, 5),
        ({"lora_r": 8}, 5),
        ({"spelling_difficulty": "hard"}, 5),
    ]
    for proposal in made:
        assert proposal.config.training_config.seed == proposal.seed
        at_base = proposal.config.model_dump(mode="json")
        at_base["training_config"]["seed"] = 0
        assert build(at_base, "test") == configs.with_parameters(BASE, proposal.parameters)


CANDIDATES = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(st.sampled_from(values), min_size=1, max_size=6, unique=True)
        for name, values in SPECIFIED.items()
    },
).filter(bool)


@given(candidates=CANDIDATES, replicates=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_every_variation_is_tried_once_and_the_default_only_as_itself(
    candidates: dict[str, list[Any]], replicates: int, seed: int
) -> None:
    made = listed(space(candidates, replicates_of_default=replicates), BASE, 1.0, seed)
    defaults = flat(BASE)
    others = {(n, v) for n, values in candidates.items() for v in values if v != defaults[n]}
    assert len(made) == replicates + len(others)
    assert len({p.trial_id for p in made}) == len(made)
    assert len({configs.to_yaml(p.config) for p in made}) == len(made)
    assert {next(iter(p.parameters.items())) for p in made[replicates:]} == others
    assert made == listed(space(candidates, replicates_of_default=replicates), BASE, 1.0, seed)


def flat(config: ExperimentConfig) -> dict[str, Any]:
    raw = config.model_dump(mode="json")
    dotted = ((name, key.split(".")) for name, key in configs.FLAT_NAMES.items())
    return {name: raw[section][key] for name, (section, key) in dotted}


def test_trial_ids_begin_with_their_place_and_tell_seeds_and_parameters_apart() -> None:
    chosen = space({"lora_r": [4, 8]}, replicates_of_default=2)
    ids = [p.trial_id for p in listed(chosen, BASE, 1.0, first_seed=0)]
    assert [i.split("-")[0] for i in ids] == ["0000", "0001", "0002", "0003"]
    assert len({i.split("-")[1] for i in ids}) == 4
    again = [p.trial_id for p in listed(chosen, BASE, 1.0, first_seed=1)]
    assert not set(ids) & set(again)


def test_a_step_scale_reaches_the_default_and_the_variations_alike() -> None:
    chosen = space({"max_steps": [500, 2000]}, replicates_of_default=1)
    made = listed(chosen, BASE, 0.1, first_seed=0)
    assert [p.config.training_config.max_steps for p in made] == [100, 50, 200]
    assert [p.config.training_config.warmup_steps for p in made] == [10, 10, 10]
    assert [p.parameters for p in made] == [{}, {"max_steps": 500}, {"max_steps": 2000}]


def test_broken_candidates_are_reported_together() -> None:
    chosen = space({"lora_r": [4, 0], "learning_rate": [7, 1e-3], "max_steps": [50]})
    with pytest.raises(ConfigError) as caught:
        listed(chosen, BASE, 1.0, first_seed=0)
    assert str(caught.value).splitlines() == [
        "HPARAM_CANDIDATES.lora_r.1: lora_config.r: must be greater than or equal to 1, got 0",
        "HPARAM_CANDIDATES.learning_rate.0: training_config.learning_rate: "
        "must be less than or equal to 1, got 7",
        "HPARAM_CANDIDATES.max_steps: max_steps=50: warmup_steps must be at most max_steps, "
        "got 100 > 50",
    ]


def test_a_number_as_the_specification_writes_it_is_a_number(tmp_path: Path) -> None:
    name = written(tmp_path, "HPARAM_CANDIDATES: {learning_rate: [1e-4, 2e-4]}")
    made = listed(load_space(name), BASE, 1.0, first_seed=0)
    # 2e-4 is the default's own value, and is not tried twice.
    assert [p.parameters for p in made] == [{}, {}, {}, {"learning_rate": 1e-4}]


def test_a_sampler_that_cannot_be_made_is_told_before_any_trial() -> None:
    candidates = {"lora_r": [4, 8]}
    for strategy in ("bayesian", "random"):
        chosen = space(candidates, strategy=strategy, sampler="no_such_module:Sampler")
        with pytest.raises(ConfigError, match="no_such_module"):
            Plan(chosen, BASE, 1.0, 0).check_sampler()
    for more in ({"strategy": "bayesian", "sampler": "tpe"}, {"strategy": "random"}, {}):
        Plan(space(candidates, **more), BASE, 1.0, 0).check_sampler()
    Plan(space(candidates, strategy="random", sampler="sobol"), BASE, 1.0, 0).check_sampler()


def test_a_plan_says_which_models_it_varies() -> None:
    varied = space({"tokenizer_config.model_name": ["tiny", "qwen3-0.6b"], "lora_r": [4]})
    model = "tokenizer_config.model_name"
    assert Plan(varied, BASE, 1.0, 0).varied(model) == ("tiny", "qwen3-0.6b")
    assert Plan(space({"lora_r": [4]}), BASE, 1.0, 0).varied(model) == ()


# --- files ------------------------------------------------------------------------------------


def test_an_unknown_hyperparameter_names_the_nearest(tmp_path: Path) -> None:
    name = written(tmp_path, "HPARAM_CANDIDATES: {lora_rank: [4]}")
    with pytest.raises(ConfigError, match="lora_rank: no such hyperparameter; did you mean lora_r"):
        load_space(name)


def test_all_unknown_hyperparameters_are_reported_together(tmp_path: Path) -> None:
    name = written(tmp_path, "HPARAM_CANDIDATES: {lora_rank: [4], max_step: [5]}")
    with pytest.raises(ConfigError, match=r"(?s)lora_rank.*max_step"):
        load_space(name)


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("HPARAM_CANDIDATES: {lora_r: []}", ", line 1: .*lora_r: needs at least one candidate"),
        ("HPARAM_CANDIDATES: {}", ", line 1: HPARAM_CANDIDATES: the space is empty"),
        ("strategy: one_at_a_time", ": HPARAM_CANDIDATES: the space is empty"),
        ("HPARAM_CANDIDATES: {lora_r: 4}", ", line 1: HPARAM_CANDIDATES.lora_r: .*list"),
        (
            "HPARAM_CANDIDATES: {lora_r: [4]}\nreplicates_of_default: 0",
            ", line 2: replicates_of_default: must be greater than or equal to 1, got 0",
        ),
        ("HPARAM_CANDIDATES: {lora_r: [4]}\nstep_scale: 0", ", line 2: .*greater than 0"),
        ("HPARAM_CANDIDATES: {lora_r: [4]}\nstep_scale: 1.5", ", line 2: .*less than or equal"),
        ("HPARAM_CANDIDATES: {lora_r: [4]}\nstrategy: psychic", ", line 2: strategy: must be"),
        ("HPARAM_CANDIDATES: {lora_r: [4]}\nseeds: 3", ", line 2: seeds: no such key"),
        ("- 1", ": must hold a mapping"),
        ("a: [", ", line 1: not YAML"),
    ],
)
def test_a_broken_space_is_one_clear_error(tmp_path: Path, text: str, law: str) -> None:
    name = written(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"{name}{law}"):
        load_space(name)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("replicate: 3", "replicates"),
        ("HPARAM_CANDIDATE: {lora_r: [4]}", "HPARAM_CANDIDATES"),
        ("HPARAM_RANGE: {lora_r: {low: 4, hihg: 8}}", "high"),
        ("HPARAM_RANGE: {lora_r: {low: 4, high: 8, steps: 1}}", "step"),
    ],
)
def test_an_unknown_key_names_the_nearest_of_its_place(
    tmp_path: Path, text: str, nearest: str
) -> None:
    with pytest.raises(ConfigError, match=rf"no such key; did you mean {nearest}\b"):
        load_space(written(tmp_path, text))


def test_a_broken_experiment_of_a_space_says_that_it_is_the_spaces() -> None:
    broken = space({"lora_r": [4]}, experiment={"lora_config": {"r": 0}})
    with pytest.raises(ConfigError, match=r"^the space's experiment: lora_config\.r"):
        base_experiment(broken, "x", STAMP)


def test_a_file_with_another_ending_is_no_space_file(tmp_path: Path) -> None:
    path = tmp_path / "space.txt"
    path.write_text("HPARAM_CANDIDATES: {lora_r: [4]}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"space\.txt: .* must end in \.yaml, \.yml"):
        load_space(str(path))


def test_a_space_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(NotFoundError, match="space dem: no such space; did you mean demo"):
        load_space("dem")
    with pytest.raises(NotFoundError, match="no such file"):
        load_space("no/such/space.yaml")
    with pytest.raises(NameRefusedError, match="^space must be"):
        load_space("../demo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HPARAM_CANDIDATES: {lora_r: [4]}", True),
        ("strategy: random", True),
        ("defaults: [demo]", True),
        ("defaults: [sibling]", False),
        ("experiment_name: mine", False),
        ("lora_config: {r: 4}", False),
    ],
)
def test_a_space_is_told_from_an_experiment_by_its_own_or_inherited_keys(
    tmp_path: Path, text: str, expected: bool
) -> None:
    (tmp_path / "sibling.yaml").write_text("experiment_name: other", encoding="utf-8")
    assert is_space(Path(written(tmp_path, text))) is expected


def test_a_space_inherits_from_folders_of_the_users_own(tmp_path: Path) -> None:
    folder = tmp_path / "own" / "search_spaces"
    folder.mkdir(parents=True)
    (folder / "few.yaml").write_text("HPARAM_CANDIDATES: {lora_r: [4]}", encoding="utf-8")
    path = Path(written(tmp_path, "defaults: [few]"))
    assert is_space(path, [tmp_path / "own"])
    assert load_space(str(path), [tmp_path / "own"]) == load_space("few", [tmp_path / "own"])
    with pytest.raises(UserError, match="few"):
        is_space(path)


def test_a_broken_experiment_of_a_space_is_one_clear_error(tmp_path: Path) -> None:
    name = written(tmp_path, "HPARAM_CANDIDATES: {lora_r: [4]}\nexperiment: {lora_config: {r: 0}}")
    with pytest.raises(
        ConfigError, match=f"{name}, line 2: experiment.lora_config.r: must be .* got 0"
    ):
        load_space(name)


def test_the_demo_space_makes_three_defaults_and_eight_variations_of_150_steps() -> None:
    demo = load_space("demo")
    base = base_experiment(demo, "demo", STAMP)
    made = listed(demo, base, demo.step_scale, first_seed=0)
    assert base.experiment_name == "demo"
    assert base.tokenizer_config.model_name == "tiny"
    assert [p.parameters for p in made[:3]] == [{}, {}, {}]
    assert len({p.seed for p in made[:3]}) == 3
    assert len(made) == 11
    assert all(len(p.parameters) == 1 for p in made[3:])
    assert made[0].config.training_config.max_steps == 150


# --- every shipped file -----------------------------------------------------------------------


def parse_experiment(path: Path) -> None:
    composition.load(path)


def parse_group(path: Path) -> None:
    raw = yaml.safe_load(path.read_text("utf-8"))
    config = composition.overridden(BASE, [f"{path.parent.name}={path.stem}"])
    dumped = config.model_dump(mode="json")
    for section, keys in raw.items():
        assert {k: dumped[section][k] for k in keys} == keys


def parse_space(path: Path) -> None:
    found = load_space(path.stem)
    assert found == load_space(str(path))
    base = base_experiment(found, "x", STAMP)
    plan = Plan(found, base, found.step_scale, first_seed=0)
    assert plan.num_trials > found.replicates_of_default


LOADERS = {
    "": parse_experiment,
    "models": parse_group,
    "training": parse_group,
    "evaluation": parse_group,
    "lightning": parse_group,
    "token_analysis": parse_group,
    "search_spaces": parse_space,
    "lightning/templates": check_cloud_file,
}
SHIPPED = sorted(
    path.relative_to(shipped_config_dir())
    for path in shipped_config_dir().rglob("*")
    if path.suffix in (".yaml", ".yml", ".json")
)


def test_configurations_ship_at_all() -> None:
    assert set(LOADERS) == {"" if path.parent == Path() else str(path.parent) for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_every_shipped_file_parses_with_the_loader_of_its_folder(path: Path) -> None:
    folder = "" if path.parent == Path() else str(path.parent)
    assert folder in LOADERS, f"say here which loader reads {folder}"
    own = shipped_config_dir() / path
    (check_cloud_file if is_cloud_file(own) else LOADERS[folder])(own)
