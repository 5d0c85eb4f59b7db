"""Configurations: every shipped one works, every mistake is named, and only what may be built is built."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from images_that_speak import config, help
from images_that_speak.config import CONFIGS
from images_that_speak.errors import UserError
from images_that_speak.prompts import Pair, read_pairs
from images_that_speak.tasks import TASKS
from images_that_speak.validate import problems, validate

FILES = sorted(path for path in CONFIGS.rglob("*.yaml"))
NAMES = [str(path.relative_to(CONFIGS)) for path in FILES]


def groups_of(task: str) -> list[str]:
    """The groups that the primary configuration of `task` chooses from."""
    found = re.findall(r"^  - (?:optional )?(\w+): ", (CONFIGS / f"{task}.yaml").read_text(), re.MULTILINE)
    return [group for group in found if group != "hydra"]


def uses() -> list[tuple[str, str]]:
    """(task, override) for every shipped choice of every group in every task that has the group.

    An experiment says itself which entry script runs it.
    """
    found = [(task, "") for task in TASKS]
    for path in FILES:
        group, _, name = str(path.relative_to(CONFIGS).with_suffix("")).partition("/")
        for task in TASKS:
            if name and group in groups_of(task) and help.fits(path, group, task):
                found.append((task, f"{group}={name}"))
    return found


@pytest.fixture
def family(tmp_path: Path) -> list[str]:
    """Overrides that point at a family's folder, so that these tests need no weights."""
    (tmp_path / "pocket").mkdir()
    (tmp_path / "pocket" / "family.json").write_text("{}")
    return [f"paths.weights={tmp_path}"]


# --- what is shipped

@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_opens_with_a_line_that_says_what_it_is(path: Path) -> None:
    assert len(help.describe(path)) > 15
    assert help.describe(path).endswith((".", "`")) or path.parent.name in ("data", "tts")


@pytest.mark.parametrize(("task", "override"), uses(), ids=lambda value: value or "default")
def test_composes_and_binds(task: str, override: str) -> None:
    cfg = config._compose(task, [override] if override else [])
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert config.unbound(plain) == []


@pytest.mark.parametrize("task", TASKS)
def test_every_option_has_its_meaning(task: str) -> None:
    """Every key of a primary configuration is in `--help`, with a comment."""
    keys = set(OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{task}.yaml"))) - {"defaults"}
    shown = {key for key, _, meaning in help.options(CONFIGS / f"{task}.yaml") if meaning}
    assert keys == shown


@pytest.mark.parametrize("path", sorted((CONFIGS / "experiment").rglob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_opens_with_the_command_that_runs_it(path: Path) -> None:
    name = path.relative_to(CONFIGS / "experiment").with_suffix("")
    assert re.search(rf"python \w+\.py experiment={name}\b", path.read_text())


# --- mistakes

def test_all_mistakes_are_told_at_once(family: list[str]) -> None:
    wrong = ["image_promt=a", "family=pockt", "steps=many", "guidance.audio_wieght=1", "seed=-1",
             "guidance.image_start=2", "num_samples=0", "+novel=1"]
    with pytest.raises(UserError) as caught:
        config.compose("generate", family + wrong)
    told = str(caught.value)
    assert len(told.splitlines()) == len(wrong)
    assert "Did you mean 'image_prompt'?" in told
    assert "Did you mean 'pocket'?" in told
    assert "Did you mean 'guidance.audio_weight'?" in told
    for key in ("steps=many", "seed=-1", "guidance.image_start=2.0", "num_samples=0", "novel"):
        assert key in told


@pytest.mark.parametrize(("override", "said"), [
    ("guidance.audio_weight=nan", "0 to 1"),
    ("guidance.audio_weight=1.01", "0 to 1"),
    ("guidance.interval=[0.5,0.2]", "two fractions of the schedule"),
    ("guidance.interval=[0.5]", "two fractions of the schedule"),
    ("guidance.interval=[0,1.2]", "two fractions of the schedule"),
    ("guidance.rescale=1.5", "0 to 1"),
    ("steps=0", "1 to 1000"),
    ("steps=1001", "1 to 1000"),
    ("steps=2.5", "Integer"),
    ("image_prompt=", "expected some words"),
    ("audio_prompt='  '", "expected some words"),
    ("audio_prompt='Привет, мир'", "letters a to z"),
    ("audio_prompt='...'", "nothing to say"),
    ("prompts=nowhere.csv", "no such file"),
    ("device=gpu", "Did you mean"),
    ("seed=4294967296", "4294967295"),
    ("family.weights=/nowhere", "family.json"),
    ("a b", "cannot be read"),
    ("steps=1,2", "need -m"),
    ("logger=wandb logger.wandb.project=a/b", "1 to 128 characters"),
    ("logger=wandb logger.wandb.project=null", "1 to 128 characters"),
    ("logger=wandb logger.wandb.entity=''", "1 to 128 characters"),
    (f"logger=wandb logger.wandb.tags=[{'x' * 80}]", "80 characters; expected 1 to 64"),
    ("logger=wandb logger.wandb.tags=one", "expected a list, logger.wandb.tags=[one]"),
])
def test_a_mistake_is_named(family: list[str], override: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        config.compose("generate", [*family, *re.split(r" (?=logger)", override)])
    assert override.split("=")[0].split(".")[0] in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_both_branches_late_is_a_contradiction(family: list[str]) -> None:
    late = ["guidance.image_start=0.2", "guidance.audio_start=0.1"]
    with pytest.raises(UserError, match="one of them must be 0"):
        config.compose("generate", family + late)


def test_evaluate_wants_one_thing_to_read(family: list[str], tmp_path: Path) -> None:
    for given_ in ([], [f"run={tmp_path}", f"pictures={tmp_path}"]):
        with pytest.raises(UserError, match="exactly one of"):
            config.compose("evaluate", family + given_)
    with pytest.raises(UserError, match="no folder samples"):
        config.compose("evaluate", [*family, f"run={tmp_path}"])
    assert config.compose("evaluate", [*family, f"pictures={tmp_path}"]).pictures == str(tmp_path)


def test_train_wants_something_to_train() -> None:
    with pytest.raises(UserError, match="experiment"):
        config.compose("train")


@settings(max_examples=100, deadline=None)
@given(st.floats(allow_nan=True))
def test_weights_are_shares(value: float) -> None:
    cfg = config.defaults("generate").copy()
    cfg.guidance.audio_weight = value
    found = [problem for problem in problems(cfg, "generate") if "guidance.audio_weight" in problem]
    assert (not found) == (not math.isnan(value) and 0 <= value <= 1)


def test_an_adapter_that_nothing_reads_is_refused() -> None:
    told, = config.check("train", ["experiment=pocket/lora_voice", "adapter=aligned"])
    assert told.startswith("adapter: this model does not read it")
    assert config.check("train", ["experiment=pocket/speech", "adapter=aligned"]) == []


def test_validate_raises_once() -> None:
    cfg = config.defaults("generate").copy()
    cfg.seed, cfg.steps = -1, 0
    with pytest.raises(UserError, match=r"(?s)(?=.*seed=-1)(?=.*steps=0)"):
        validate(cfg, "generate")


def test_every_value_of_a_sweep_is_checked(family: list[str]) -> None:
    found = config.check("generate", [*family, "guidance.audio_weight=0.1,0.5,7", "scheduler=ddim,dmp"], True)
    assert len(found) == 2
    assert "guidance.audio_weight=7" in found[0] and "no such choice" in found[1]


def read(argument: str, multirun: bool = False) -> str:
    """What a prompt is in the configuration, typed as this argument."""
    override = OverridesParser.create().parse_override(config.quoted(argument, multirun))
    return OmegaConf.create({"prompt": override.value(), "seed": 3}).prompt


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=40)
       | st.text("${}\\\"',=a ", max_size=12))
def test_a_prompt_is_taken_literally(text: str) -> None:
    """Whatever is typed after image_prompt= is the prompt, without a second pair of quotes."""
    bare = text.strip()
    quoted_already = len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\""
    if quoted_already or text == "null":
        return
    assert read(f"image_prompt={text}") == text
    # As a run records it, it may be given again.
    assert read(config.quoted(f"image_prompt={text}")) == text


@pytest.mark.parametrize("text", [
    '"cat" next to "dog"', "'cat' or 'dog'", "a ${5} bill", "${seed}", "${oc.env:HOME}", "a ${",
    r"a \${seed}", "x=y", "a {b: c}, [d]", "100 % (of it)", "back\\", '"', "~a", "a, b", "$HOME", "@b",
    "!null"])
@pytest.mark.parametrize("multirun", [False, True])
def test_a_prompt_is_no_expression(text: str, multirun: bool) -> None:
    if not multirun:
        assert read(f"image_prompt={text}") == text
    elif '"' not in text and "'" not in text and "," not in text:  # which part prompts there
        assert read(f"image_prompt={text}", multirun) == text


def test_one_pair_of_quotes_is_hydras() -> None:
    assert read('image_prompt="a cat, sitting"') == "a cat, sitting"
    assert read(r'image_prompt="a \"big\" cat"') == 'a "big" cat'
    assert read("audio_prompt='it is'") == "it is"


def test_a_literal_prompt_reaches_the_run(tmp_path: Path, family: list[str]) -> None:
    cfg = config.compose("generate", [*family, config.quoted("image_prompt=a ${5} bill ${")])
    assert cfg.image_prompt == config.changed(cfg, "generate")["image_prompt"] == "a ${5} bill ${"
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    assert config.read_written(tmp_path / "config.yaml") == OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize(("typed", "prompts"), [
    ("a cat (big), it's two", ["a cat (big)", "it's two"]),
    ('owl,"a frog, green"', ["owl", "a frog, green"]),
    ('"a frog, green", owl', ["a frog, green", "owl"]),
    ('"owl","a frog, green"', ["owl", "a frog, green"]),
    ("'a frog, green',\"owl\"", ["a frog, green", "owl"]),
    ("the dog's bone, the cats' tails", ["the dog's bone", "the cats' tails"]),
    ("'tis a cat, a dog's", ["'tis a cat", "a dog's"]),
    ('a "big" cat, 5" of rain', ['a "big" cat', '5" of rain']),
    (r'"a \"big\" cat, green",owl', ['a "big" cat, green', "owl"]),
    (r"a frog\, green,owl", ["a frog, green", "owl"]),
])
def test_a_sweep_of_prompts_is_parted_at_commas_outside_of_quotes(typed: str, prompts: list[str]) -> None:
    override = OverridesParser.create().parse_override(config.quoted(f"image_prompt={typed}", multirun=True))
    assert [value.text for value in override.value().list] == prompts


def test_one_prompt_in_quotes_is_one_job() -> None:
    override = OverridesParser.create().parse_override(config.quoted('image_prompt="a frog, green"', True))
    assert str(override.value()) == "a frog, green"


def test_other_values_are_quoted_where_hydra_could_not_read_them() -> None:
    assert config.quoted("steps=20") == "steps=20"
    override = OverridesParser.create().parse_override(config.quoted("run=logs/it's=here!"))
    assert str(override.value()) == "logs/it's=here!"


# --- identity's ingredients

def test_changed_is_what_differs_from_the_defaults() -> None:
    cfg = config._compose("generate", ["guidance.audio_weight=0.25", "seed=0", "paths.logs=/elsewhere"])
    assert config.changed(cfg, "generate") == {"guidance.audio_weight": 0.25, "paths.logs": "/elsewhere"}
    masks = config._compose("generate", ["composition=images_that_sound"])
    assert config.changed(masks, "generate")["composition.low_hz"] == "absent"


# --- building

def test_builds_what_belongs_to_this_package() -> None:
    pair = config.instantiate({"_target_": "images_that_speak.prompts.Pair", "image_prompt": "a"},
                              audio_prompt="b")
    assert pair == Pair("a", "b")
    nested = config.instantiate(OmegaConf.create(
        {"first": {"_target_": "images_that_speak.prompts.Pair", "image_prompt": "a", "audio_prompt": "b"},
         "rest": [1, {"two": 2}]}))
    assert nested["first"] == Pair("a", "b")
    assert type(nested["rest"]) is list and type(nested["rest"][1]) is dict


@pytest.mark.parametrize("target", [
    "os.system", "builtins.eval", "subprocess.Popen", "pathlib.Path", "hydra.utils.get_class",
    "images_that_speak.files.os.remove", "images_that_speak.config.hydra.utils.get_method",
    "torch.hub.load", "torch.load", "images_that_speak.nowhere.Thing", "images_that_speak.prompts.COLUMNS",
    "images_that_speak_evil.run", 3,
])
def test_builds_nothing_else(target: object) -> None:
    with pytest.raises(UserError, match="_target_|deep"):
        config.instantiate({"_target_": target})
    with pytest.raises(UserError, match="deep"):
        config.instantiate({"list": [{"deep": {"_target_": target}}]})


def test_what_a_constructor_refuses_reaches_the_user() -> None:
    with pytest.raises(UserError, match="the word list is empty"):
        config.instantiate({"_target_": "images_that_speak.resources.words", "path": "/dev/null"})


def test_a_wrong_argument_is_named() -> None:
    with pytest.raises(UserError, match="Did you mean 'image_prompt'?"):
        config.instantiate({"_target_": "images_that_speak.prompts.Pair", "image_promt": "a"})


# --- files of pairs

def test_reads_csv_and_txt(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("\ufeffid, image_prompt,audio_prompt\n1,a  cat,\"happy, baby\"\n\n2,dogs,music\n",
                     encoding="utf-8")
    assert read_pairs(table) == [Pair("a cat", "happy, baby"), Pair("dogs", "music")]
    # As a spreadsheet writes it; and a mark that only some readers take for the end of a line.
    table.write_text("image_prompt,audio_prompt,,\r\na cat,happy\u2028baby,,\r\n,,,\r\n",
                     encoding="utf-8", newline="")
    assert read_pairs(table) == [Pair("a cat", "happy baby")]
    lines = tmp_path / "pairs.txt"
    lines.write_text("# mine\na cat | happy baby\n\n")
    assert read_pairs(lines) == [Pair("a cat", "happy baby")]


@pytest.mark.parametrize(("name", "text", "said"), [
    ("a.csv", "image,audio_prompt\nx,y\n", "Did you mean 'image'?"),
    ("a.csv", "image_prompt,audio_prompt\nx,\n", "line 2 has no audio_prompt"),
    ("a.csv", "image_prompt,audio_prompt\n", "no pair"),
    ("a.csv", "", "no column"),
    ("a.csv", "image_prompt;audio_prompt\nx;y\n", "parted by ';'"),
    ("a.csv", "image_prompt\taudio_prompt\nx\ty\n", "(expected commas: image_prompt,audio_prompt)"),
    ("a.csv", "image_prompt,audio_prompt\na cat, sitting,happy baby music\n",
     "line 2 has 3 values (expected 2: image_prompt,audio_prompt; one that holds a comma stands in quotes)"),
    ("a.csv", "image_prompt,audio_prompt\na cat,music\na dog,well, hello\n", "line 3 has 3 values"),
    ("a.csv", "image_prompt,audio_prompt,image_prompt\na,b,c\n", "names 'image_prompt' more than once"),
    ("a.csv", 'image_prompt,audio_prompt\n"a cat" sitting,music\n', "not a csv"),
    ("a.csv", 'image_prompt,audio_prompt\n"a cat,music\na dog,music\n', "not a csv"),
    ("a.txt", "only a picture\n", "line 1 has no audio_prompt"),
    ("a.txt", "a cat | happy | baby\n", "line 1 has 2 bars"),
    ("a.json", "{}", ".csv or .txt"),
])
def test_a_bad_file_of_pairs_is_explained(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read_pairs(path)
    assert name in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_file_is_read_or_explained(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    path.write_bytes(b"image_prompt,audio_prompt\n" + data)
    try:
        assert all(pair.image_prompt and pair.audio_prompt for pair in read_pairs(path))
    except UserError as error:
        assert "pairs.csv" in str(error)
