"""A preset fills what the recipe does not say, and the run's own recipe tells what it used."""

import pytest

from fim import FimError, SpanPolicy
from finetune.recipe.file import read_recipe, write_recipe
from finetune.recipe.presets import PRESETS
from finetune.recipe.schema import Fim

RECIPE = "name: r\nmodel:\n  name: m\ncorpus:\n  sources:\n    - folder: f\n"
ASKED = {
    "aixcoder": {"samplers": {"construct": 0.65, "cursor": 0.3, "empty": 0.05}, "fim_rate": 0.7},
    "ast-fim": {
        "samplers": {"node": 0.45, "siblings": 0.45, "random": 0.1}, "boundaries": {"exact": 1.0},
    },
    "random": {"samplers": {"random": 1.0}, "max_middle_bytes": 1_048_576},
    "execrepobench": {"samplers": {"construct": 1.0}, "boundaries": {"exact": 1.0}},
}  # fmt: skip


def read(tmp_path, fim: str = "", overrides: tuple[str, ...] = ()):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE + fim)
    return read_recipe(path, overrides)


def test_every_preset_has_a_row_of_what_it_asks_for():
    assert ASKED.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_its_values_and_leaves_the_others_at_their_defaults(tmp_path, name):
    fim = read(tmp_path, f"fim:\n  preset: {name}\n").fim

    assert {key: getattr(fim, key) for key in ASKED[name]} == ASKED[name]
    others = Fim.__dataclass_fields__.keys() - PRESETS[name].keys() - {"preset"}
    assert {key: getattr(fim, key) for key in others} == {
        key: getattr(Fim(), key) for key in others
    }


@pytest.mark.parametrize("name", PRESETS)
def test_the_values_of_a_preset_make_a_policy(tmp_path, name):
    fim = read(tmp_path, overrides=(f"fim.preset={name}",)).fim

    policy = SpanPolicy(
        samplers=fim.samplers, boundaries=fim.boundaries, constructs=fim.constructs,
        max_middle_bytes=fim.max_middle_bytes,
    )  # fmt: skip

    assert policy.constructs.keys() == PRESETS[name].get("constructs", {}).keys()


def test_what_the_file_or_an_override_says_wins_over_the_preset(tmp_path):
    said = "fim:\n  preset: ast-fim\n  boundaries: {line: 1.0}\n"

    fim = read(tmp_path, said, ("fim.samplers={node: 1}", "fim.fim_rate=0.5")).fim

    assert fim.samplers == {"node": 1.0}
    assert fim.boundaries == {"line": 1.0}
    assert fim.fim_rate == 0.5


@pytest.mark.parametrize(
    "override", ["fim={preset: random}", "fim.preset='random'", 'fim={"preset": "random"}']
)
def test_a_preset_is_filled_however_an_override_spells_it(tmp_path, override):
    fim = read(tmp_path, overrides=(override,)).fim

    assert (fim.preset, fim.samplers) == ("random", {"random": 1.0})


def test_the_type_ratios_of_execrepobench_are_its_construct_weights(tmp_path):
    constructs = read(tmp_path, overrides=("fim.preset=execrepobench",)).fim.constructs

    assert constructs == {
        "import": 0.1, "comment": 0.05, "return": 0.1, "if": 0.15, "for": 0.15, "while": 0.1,
        "class": 0.1, "function": 0.1, "assignment": 0.05, "expression": 0.05,
    }  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_the_resolved_recipe_says_what_was_used_and_reads_back_equal(tmp_path, name):
    recipe = read(tmp_path, overrides=(f"fim.preset={name}",))
    again = tmp_path / "again.yaml"
    again.write_text(write_recipe(recipe))

    assert read_recipe(again) == recipe
    assert "samplers:\n" in again.read_text()


@pytest.mark.parametrize(
    ("fim", "said"),
    [
        ("fim:\n  preset: astfim\n", "fim.preset: expected one of .*ast-fim"),
        ("fim:\n  constructs: {loops: 1}\n", "fim.constructs.loops: unknown key"),
        ("fim:\n  constructs: {empty: 1}\n", "fim.constructs.empty: unknown key"),
        ("fim:\n  constructs: {if: -1}\n", "fim.constructs.if: expected 0 or more"),
        ("fim:\n  constructs: {if: 0}\n", "fim.constructs: every weight is 0"),
    ],
)
def test_an_unknown_preset_or_construct_is_refused(tmp_path, fim, said):
    with pytest.raises(FimError, match=said):
        read(tmp_path, fim)
